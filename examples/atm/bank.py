"""The bank: takes requests from one channel, answers each over the request's own reply channel.

    serve_bank(requests, "bank.sqlite")    # until requests is closed

Where the channel comes from is the caller's to say: made here, from a place, or published with
net.serve. Requests of different accounts are handled side by side.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from examples.atm.desk import Desk
from examples.atm.group_commit import GroupCommit
from examples.atm.lanes import Lanes
from examples.atm.ledger import Ledger, open_ledger
from examples.atm.messages import Reply, Request
from tasklets import channel, select, tasklet

_log = logging.getLogger("atm.bank")


def serve_bank(requests: channel, where: str) -> None:
    """Open the ledger at `where` and serve `requests` until that channel is closed. Blocks."""
    with open_ledger(where) as ledger:
        Bank(ledger).serve(requests)


class Bank(Desk):
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
        super().__init__()
        self._books = GroupCommit(ledger, self._tell_all, apart)
        self._before = before
        self._after = after
        self._lanes = Lanes()

    def serve(self, requests: channel) -> None:
        """Serve until `requests` is closed, then finish what was begun. Blocks."""
        super().serve(requests)
        self._books.close()

    def _take(self, request: object) -> None:
        if isinstance(request, Request) and not self._has_to_wait(request):
            self._books.put(request, partial(self._finish, request))
        else:
            super()._take(request)

    def _has_to_wait(self, request: Request) -> bool:
        """Say whether there is something to wait for before the books; else it costs no tasklet (ATM-11)."""
        return self._before is not None or not self._lanes.are_free(_accounts(request))

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

    def _answer(self, request: Request) -> Reply:
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


def _accounts(request: Request) -> list[str]:
    """Name the accounts that an order works on; anything else in their place is the ledger's to refuse."""
    named = (getattr(request.order, "account", None), getattr(request.order, "to", None))
    return [name for name in named if isinstance(name, str)]
