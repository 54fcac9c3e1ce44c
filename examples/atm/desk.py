"""The desk of the bank: takes requests from one channel, answers each over the request's own reply channel.

Who knows the answer is not its business: a ledger (bank.py), or the jobs of a cluster (job_bank.py). Nothing that an
ATM sends or does not do ends the desk or stops the others (ATM-12, ATM-13).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from examples.atm.messages import Attach, Error, Frozen, Reply, Request
from net.errors import NetError
from tasklets import ChannelClosed, NotSendable, Timeout, channel, tasklet, timeout

MOST_AT_ONCE = 1000  # requests in work; further ones wait in the channel, and their ATMs notice
MOST_ATTACHED = 100_000  # machines that hear of locked accounts
REPLY_PATIENCE = 5.0  # seconds for an ATM to take its answer; it may ask again under the same txn

_log = logging.getLogger("atm.bank")


class Desk:
    """Takes requests, has them answered by `_answer`, each in a tasklet of its own, and sends the answers."""

    def __init__(self) -> None:
        self.attached: dict[str, channel] = {}  # machine -> where it hears of locked accounts
        self._room = channel(MOST_AT_ONCE, "room in the bank")  # holds one None for each request in work

    def serve(self, requests: channel) -> None:
        """Serve until `requests` is closed, then finish what was begun. Blocks."""
        for request in requests:
            self._room.send(None)
            self._take(request)
        for _ in range(MOST_AT_ONCE):
            self._room.send(None)

    def _take(self, request: object) -> None:
        tasklet(self._handle)(request)

    def _answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def _handle(self, request: object) -> None:
        with self._one_request():
            if isinstance(request, Attach):
                self._attach(request)
                return
            if isinstance(request, Request):
                reply = self._answer(request)
            else:
                kind = type(request).__name__
                reply = Error("", f"{kind} is not a request; send examples.atm.messages.Request")
            # A message of the wrong type may still bring a way to say so.
            back = getattr(request, "reply", None)
            if back is not None:
                self._send(back, reply)

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
