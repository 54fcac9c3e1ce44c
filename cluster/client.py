"""The client: submits tasks, waits for their results, looks after a group.

client = Client("sqlite:///work.db")
print(client.submit(fib, 30).result(timeout=5))

Its part about tasks is in `_task_handle`, that about jobs in `_job_handle`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from weakref import WeakSet

import gevent

from cluster._identity import new_name
from cluster._job_handle import JobClient, JobHandle
from cluster._task_handle import TaskHandle
from cluster.directives import durable
from cluster.directives.session import Session
from cluster.directives.stream import Directive
from cluster.errors import LeaseLost, ResultTimeout
from cluster.healing import Healer
from cluster.records import Event, Guard, Lock, Member, Statistics
from cluster.settings import Settings
from cluster.stores import Store, open_store


class Lease:
    """A lock that is held. Call `check` before each write that depends on it, or pass `guard` along."""

    def __init__(self, store: Store, lock: Lock, ttl: float) -> None:
        self._store = store
        self._ttl = ttl
        self.name = lock.name
        self.fence = lock.fence

    @property
    def guard(self) -> Guard:
        """What makes a write conditional: `client.submit_all(tasks, guard=lease.guard)`."""
        return Guard(self.name, self.fence)

    def check(self) -> None:
        """Hold it for another `ttl`. Raises LeaseLost when somebody else may have it."""
        if not self._store.renew_lock(self.name, self.fence, self._ttl):
            raise LeaseLost(
                f"the lock {self.name!r} (fence {self.fence}) was not renewed within {self._ttl:g} s and is lost; "
                "what follows must not be written"
            )


class Client(JobClient):
    """A handle on one group. With `ensure=True` it has a coordinator before anything else: see `revive`."""

    def __init__(
        self,
        store: str | Store,
        group: str = "default",
        *,
        workers: int = 0,
        ensure: bool = False,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        url = f"memory:{os.urandom(6).hex()}" if store == "memory:" else store
        self.store = (
            open_store(url, group, patience=self.settings.store_patience) if isinstance(url, str) else url
        )
        self._known = group == "default"
        self._running: list[Any] = []
        self.evaluations: WeakSet[durable.Run] = WeakSet()
        self._inline: list[Any] = []
        if workers:
            self._start_inline(url if isinstance(url, str) else self.store, workers)
        if ensure:
            self.revive()

    def __repr__(self) -> str:
        return f"<Client {self.store.url} group={self.store.group!r}>"

    def _start_inline(self, store: str | Store, count: int) -> None:
        from cluster.coordinator import Coordinator
        from cluster.worker import Worker

        group = self.store.group
        self._inline = [
            Worker(store, group, slots=1, inline=True, name=f"inline-{n}", settings=self.settings)
            for n in range(count)
        ]
        self._inline.append(Coordinator(store, group, settings=self.settings))
        self._running = [gevent.spawn(node.run) for node in self._inline]

    def close(self) -> None:
        """End the directives that it runs and the workers that it was made with, and give its connections back."""
        for evaluation in list(self.evaluations):
            evaluation.cancel("its client was closed")
        for node in self._inline:
            node.stop()
        gevent.joinall(self._running)
        for node in self._inline:
            node.store.close()
        self._inline, self._running = [], []
        self.store.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def revive(self) -> bool:
        """Start a coordinator if none is alive, as `tasklets cluster up` has left it; that one starts the rest. Blocks.

        True: it was started, and has joined. Where the members were killed a moment ago, this waits until it is known:
        `member_ttl` at most. That nothing could be started is in the log.
        """
        healer = Healer(self.store, self.settings, f"client-{socket.gethostname()}-{os.getpid()}")
        return healer.revive()

    # -- directives ----------------------------------------------------------------------------------------

    def run(self, what: Any, params: Any = None, **options: Any) -> Any:
        """Run a directive, or a job of a class, and return what comes of it; what is interrupted is ended. Blocks.

        The options of a directive are those of `cluster.directives.Options`. Raises OperationError, JobTimeout, and
        what `start` raises.
        """
        if isinstance(what, Directive):
            return what.run(self, **options)
        return super().run(what, params, **options)

    def start(self, what: Any, params: Any = None, **options: Any) -> Any:
        """Start a job of a class, see `JobClient.start`; or a directive, which goes on when this process ends."""
        if isinstance(what, Directive):
            return what.start(self, **options)
        return super().start(what, params, **options)

    def session(self, *, id: str | None = None, ttl: float | None = None) -> Session:
        """A sender of tasks and a receiver of what comes of them, which are nobody else's; see `Session`.

        With an `id` that is known, the session is taken up again: what was not acknowledged is delivered again.
        """
        return Session(self, id=id, ttl=ttl)

    def attach(self, id: str, *, inputs: Iterable[Any] | None = None) -> Any:
        """A handle on what somebody submitted or started, by its id: a task, a job, a directive.

        A directive whose inputs had no known number goes on being fed if they are given: all of them, from the first
        one on. Raises TaskNotFound.
        """
        job = self.store.job(id)
        if job is None:
            self.task(id)
            return TaskHandle(self, id)
        return durable.attach(self, id, inputs) if durable.is_directive(job) else JobHandle(self, id)

    # -- the group -----------------------------------------------------------------------------------------

    def stats(self) -> Statistics:
        """Counts of tasks by queue and state, and of what happened."""
        return self.store.statistics()

    def members(self) -> list[Member]:
        """Who is in the group."""
        return self.store.members()

    def events(self, after: str = "", limit: int = 1000) -> list[Event]:
        """The journal from `after` on."""
        return self.store.events(after=after, limit=limit)

    @contextmanager
    def lock(self, name: str, *, ttl: float = 10.0, timeout: float | None = None) -> Iterator[Lease]:
        """Hold a lock of the whole group: `with client.lock("month-end", ttl=2) as lease: ... lease.check()`.

        It is lost when it is not checked for `ttl` seconds. Blocks; raises ResultTimeout when it is not free within
        `timeout`.
        """
        holder = f"{new_name()}-{os.urandom(4).hex()}"
        deadline = None if timeout is None else monotonic() + timeout
        listener = self.store.listen("lead")
        try:
            while True:
                lock = self.store.acquire(f"user:{name}", holder, ttl)
                if lock.holder == holder:
                    break
                if deadline is not None and monotonic() >= deadline:
                    raise ResultTimeout(
                        f"the lock {name!r} was not free within {timeout:g} s; {lock.holder} holds it"
                    )
                wait = max(0.01, lock.lease_until - self.store.now())
                listener.wait(min(wait, 1.0) if deadline is None else min(wait, 1.0, deadline - monotonic()))
        finally:
            listener.close()
        try:
            yield Lease(self.store, lock, ttl)
        finally:
            self.store.release(lock.name, lock.fence)
