"""Group commit: one write to the disk for all the requests that wait, each answered after it (ATM-06, ATM-11).

While one group is being written, on another thread, the next one gathers. So the busier the bank, the fewer
writes each request pays for, and the loop that talks to the ATMs never waits for a disk.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent.threadpool

from examples.atm.ledger import Ledger
from examples.atm.messages import Audit, Declined, Reason, Reply, Request
from examples.atm.pins import NotHashedYet
from tasklets import channel, sleep, tasklet

MOST_TOGETHER = 100  # requests in a group: some 5 ms of the loop's time
MANY = 5  # requests in a group; after one of so many
GATHER_SECONDS = 0.001  # the next one waits so long for more, as an answer to many takes longer anyway
MAINTAIN_AFTER = 1000  # requests; the log has some 10 MB then
HASHERS = 2  # pins hashed at the same time

_log = logging.getLogger("atm.bank")


class GroupCommit:
    """Takes requests into a ledger in groups. `on_locked` hears of each account that was locked, once it is.

    `apart` calls a function where it holds up nobody, and waits for what it returns: on another thread, unless a test
    wants everything in one.
    """

    def __init__(
        self,
        ledger: Ledger,
        on_locked: Callable[[str], None] = lambda account: None,
        apart: Callable[..., Any] | None = None,
    ) -> None:
        self._ledger = ledger
        self._on_locked = on_locked
        self._waiting: deque[tuple[Request, Callable[[Any], object]]] = (
            deque()
        )  # with who is told what came of it
        self._working = False  # whether a tasklet is there for those that wait
        self._count = 0  # requests in the last group
        self._threads = None if apart else gevent.threadpool.ThreadPool(1 + HASHERS)
        self._apart = apart or self._threads.apply  # type: ignore[union-attr]
        self._hashers = channel(HASHERS, "pins being hashed")  # holds one None for each
        self._until_maintenance = MAINTAIN_AFTER
        self.groups = 0  # that were committed

    def answer(self, request: Request) -> Reply:
        """Have the request done, and return its answer once that is on the disk. Blocks.

        When the books cannot be written, that is Declined(UNAVAILABLE), and nothing has happened.
        """
        asked = channel(1)
        while True:
            self.put(request, asked.send)
            outcome = asked.receive()
            if isinstance(outcome, NotHashedYet):
                self._hash(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                return outcome  # type: ignore[no-any-return]

    def put(self, request: Request, tell: Callable[[Reply | Exception], object]) -> None:
        """Have the request done with the next group, and call `tell`, which must not block, with what came of it.

        That is the answer, or an exception: NotHashedYet when answer() is to be called instead, as it can wait.
        """
        self._waiting.append((request, tell))
        if not self._working:
            self._working = True
            tasklet(self._work)()

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.kill()

    def _hash(self, wanted: NotHashedYet) -> None:
        self._hashers.send(None)
        try:
            self._apart(wanted.work)
        finally:
            self._hashers.receive()

    def _work(self) -> None:
        """Do one group after the other until nobody waits."""
        try:
            while self._waiting:
                # One turn of the loop: what has arrived on the other lines joins the group. Where many ask, more are
                # on their way.
                sleep(GATHER_SECONDS if self._count >= MANY else 0)
                self._count = min(len(self._waiting), MOST_TOGETHER)
                group = [self._waiting.popleft() for _ in range(self._count)]
                outcomes = self._do_together([request for request, _ in group])
                for (_, tell), outcome in zip(group, outcomes, strict=True):
                    tell(outcome)
        finally:
            self._working = False

    def _do_together(self, requests: list[Request]) -> list[Any]:
        try:
            return self._commit(requests)
        except Exception as error:  # noqa: BLE001 - whatever it was, it must hit only whose it was
            self._apart(self._ledger.rollback)
            if len(requests) > 1:
                # One of them, or none: each alone finds out, and the others are done.
                return [outcome for request in requests for outcome in self._do_together([request])]
            return [self._explain(requests[0], error)]

    def _commit(self, requests: list[Request]) -> list[Any]:
        if self._ledger.database.is_remote:
            outcomes = self._apart(self._take_and_commit, (requests,))
        else:
            outcomes = self._take(requests)
            if self._ledger.database.commit_waits:
                self._apart(self._ledger.commit)
            else:
                self._ledger.commit()  # to cross to a thread and back would take longer
        self.groups += 1
        self._until_maintenance -= len(requests)
        if self._until_maintenance <= 0:
            self._apart(self._ledger.database.maintain)
            self._until_maintenance = MAINTAIN_AFTER
        for account in self._ledger.locked:
            self._on_locked(account)
        return [self._apart(outcome) if callable(outcome) else outcome for outcome in outcomes]

    def _take_and_commit(self, requests: list[Request]) -> list[Any]:
        outcomes = self._take(requests)
        self._ledger.commit()
        return outcomes

    def _take(self, requests: list[Request]) -> list[Any]:
        """Open a transaction and take the requests into it; return what is to be said about each."""
        self._ledger.begin()
        return [self._take_one(request) for request in requests]

    def _take_one(self, request: Request) -> Any:
        if isinstance(request.order, Audit):
            return lambda: self._ledger.books(request.txn)  # after the commit: it reads everything
        try:
            return self._ledger.take(request.txn, request.atm, request.at, request.order)
        except NotHashedYet as wanted:
            return wanted

    def _explain(self, request: Request, error: Exception) -> Reply | Exception:
        if not isinstance(error, self._ledger.database.error):
            return error
        _log.error("the books cannot be written (%s); nothing was booked", error)
        return Declined(request.txn, Reason.UNAVAILABLE, None)
