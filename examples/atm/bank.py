"""The bank: takes requests from one channel, answers each over the request's own reply channel.

    serve_bank(requests, "bank.sqlite")    # until requests is closed

Where the channel comes from is the caller's to say: made here, from a place, or published with
net.serve. Requests of different accounts are handled side by side, each in a tasklet of its own;
nothing that an ATM sends or does not do ends the bank or stops the others (ATM-12, ATM-13).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from examples.atm.group_commit import GroupCommit
from examples.atm.lanes import Lanes
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import Attach, Error, Frozen, Reply, Request
from net.errors import NetError
from tasklets import ChannelClosed, NotSendable, Timeout, channel, select, tasklet, timeout

MOST_AT_ONCE = 1000  # requests in work; further ones wait in the channel, and their ATMs notice
MOST_ATTACHED = 100_000  # machines that hear of locked accounts
REPLY_PATIENCE = 5.0  # seconds for an ATM to take its answer; it may ask again under the same txn

_log = logging.getLogger("atm.bank")


def serve_bank(requests: channel, where: str) -> None:
    """Open the ledger at `where` and serve `requests` until that channel is closed. Blocks."""
    with open_ledger(where) as ledger:
        Bank(ledger).serve(requests)


class Bank:
    """Answers requests out of a ledger.

    `before` runs with the request's accounts held, and may block; `after` is told each answer that leaves, and must not
    block; `apart` is GroupCommit's.
    """

    def __init__(
        self,
        ledger: Ledger,
        before: Callable[[Request], None] | None = None,
        after: Callable[[Request, Reply], None] = lambda request, reply: None,
        *,
        apart: Callable[..., Any] | None = None,
    ) -> None:
        self.attached: dict[str, channel] = {}  # machine -> where it hears of locked accounts
        self._books = GroupCommit(ledger, self._tell_all, apart)
        self._before = before
        self._after = after
        self._lanes = Lanes()
        self._room = channel(MOST_AT_ONCE, "room in the bank")  # holds one None for each request in work

    def serve(self, requests: channel) -> None:
        """Serve until `requests` is closed, then finish what was begun. Blocks."""
        for request in requests:
            self._room.send(None)
            if self._has_to_wait(request):
                tasklet(self._handle)(request)
            else:
                self._books.put(request, partial(self._finish, request))
        for _ in range(MOST_AT_ONCE):
            self._room.send(None)
        self._books.close()

    def _has_to_wait(self, request: object) -> bool:
        """Say whether there is something to wait for before the books; else it costs no tasklet (ATM-11)."""
        return (
            self._before is not None
            or type(request) is not Request
            or not self._lanes.are_free(_accounts(request))
        )

    def _finish(self, request: Request, outcome: Reply | Exception) -> None:
        """Send the answer of a request that had nothing to wait for, unless there is now. Never blocks."""
        if isinstance(outcome, Exception):
            # A pin is to be hashed, which is waited for there; or it fails once more, and is told there.
            tasklet(self._handle)(request)
            return
        self._tell_observer(request, outcome)
        try:
            sent, _ = select([(request.reply, outcome)], default=None)
        except Exception:  # noqa: BLE001 - whatever it is, _send finds it again and tells it
            sent = -1
        if sent < 0:
            tasklet(self._finish_late)(request, outcome)
        else:
            self._room.receive()

    def _finish_late(self, request: Request, reply: Reply) -> None:
        with self._one_request():
            self._send(request.reply, reply)

    @contextmanager
    def _one_request(self) -> Iterator[None]:
        """Let nothing that one request does end the bank (T8.12), and give its room back."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it holds
            _log.error("a request could not be handled (%r); the bank goes on", error)
            _log.debug("where it happened", exc_info=True)
        finally:
            self._room.receive()

    def _handle(self, request: object) -> None:
        with self._one_request():
            if isinstance(request, Attach):
                self._attach(request)
                return
            reply = self._answer(request)
            # A message of the wrong type may still bring a way to say so.
            back = getattr(request, "reply", None)
            if back is not None:
                self._send(back, reply)

    def _answer(self, request: object) -> Reply:
        if not isinstance(request, Request):
            return Error("", f"{type(request).__name__} is not a request; send examples.atm.messages.Request")
        with self._lanes.hold(*_accounts(request)):
            if self._before is not None:
                self._before(request)
            reply = self._books.answer(request)
        self._tell_observer(request, reply)
        return reply

    def _tell_observer(self, request: Request, reply: Reply) -> None:
        try:
            self._after(request, reply)
        except Exception as error:  # noqa: BLE001 - who looks on must not cost an answer
            _log.error("who was to hear of an answer failed (%r); the bank goes on", error)

    def _send(self, back: channel, message: Reply | Frozen) -> bool:
        try:
            with timeout(REPLY_PATIENCE):
                back.send(message)
            return True
        except (NetError, ChannelClosed, Timeout, NotSendable, AttributeError) as error:
            # The ATM died, hung up, does not listen, or sent no channel. The journal has the answer.
            _log.info("%s found no taker (%s)", type(message).__name__, error)
            return False

    # -- what machines hear unasked (ATM-10)

    def _attach(self, attach: Attach) -> None:
        if not isinstance(attach.atm, str) or not isinstance(attach.news, channel):
            _log.error("a machine attached without a name or a channel; it will hear no news")
        elif attach.atm in self.attached or len(self.attached) < MOST_ATTACHED:
            self.attached[attach.atm] = attach.news  # after a cut the same machine comes with a new channel

    def _tell_all(self, account: str) -> None:
        for atm, news in list(self.attached.items()):
            tasklet(self._tell)(atm, news, Frozen(account))  # each alone: one that hangs delays no other

    def _tell(self, atm: str, news: channel, message: Frozen) -> None:
        if not self._send(news, message) and self.attached.get(atm) is news:
            del self.attached[atm]


def _accounts(request: Request) -> list[str]:
    """Name the accounts that an order works on; anything else in their place is the ledger's to refuse."""
    named = (getattr(request.order, "account", None), getattr(request.order, "to", None))
    return [name for name in named if isinstance(name, str)]
