"""A coordinator: holds the group's lock, and repairs what is out of order. Any number may stand by.

Every write of its scanner is conditional on the lock's fence, so one that was frozen and wakes up as a zombie
changes nothing. What is to be done is decided in `_decide`; here are the loops around it.
"""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import gevent
from gevent.event import Event as Flag

from cluster import _decide
from cluster._failpoints import fail_point
from cluster._identity import new_incarnation, new_member, new_name, opened
from cluster.errors import LeaseLost, NameTaken, StoreError
from cluster.healing import LOCK, Healer, read_bounds
from cluster.records import Guard, Member
from cluster.settings import Settings
from cluster.stores import Store
from net import values

log = logging.getLogger("cluster")

PURGE_EVERY = 20  # scans

_UNKNOWN = values.dumps(
    {
        "kind": "UnknownOperation",
        "message": "no member of the group knew its operation for too long",
        "traceback": "",
    }
)
_OVERDUE = values.dumps(
    {"kind": "DeadlineExceeded", "message": "it had not ended by its deadline", "traceback": ""}
)


class Leadership:
    """How many groups the coordinators of one process lead; it is published with each heartbeat, as `running`."""

    def __init__(self) -> None:
        self.count = 0
        self.quiet_until = 0.0  # one group at a time: until then the others have not heard of the last one


class Coordinator:
    """See above. `run` blocks until `stop`. Those of one process share a `leadership`, so that locks spread evenly."""

    def __init__(
        self,
        store: str | Store,
        group: str = "default",
        *,
        name: str | None = None,
        spawn_id: str = "",
        settings: Settings | None = None,
        healer: Healer | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.store = opened(store, group, self.settings)
        self.name = name or new_name("coordinator-")
        self._member = new_member(self.name, "coordinator", spawn_id=spawn_id)
        self._healer = healer or Healer(self.store, self.settings, self.name)
        self._leadership = leadership or Leadership()
        self._guard: Guard | None = None  # while it leads
        self._held_until = 0.0  # on our own clock
        self._stop = Flag()
        self._scans = 0

    def __repr__(self) -> str:
        return f"<Coordinator {self.name} {'leading' if self.leading else 'standby'}>"

    @property
    def leading(self) -> bool:
        """True while it holds the lock, by its own clock."""
        return self._guard is not None and monotonic() < self._held_until

    def run(self, *, signals: bool = False) -> None:
        """Stand by, lead, repair, until `stop`. Blocks. With `signals`, SIGTERM and SIGINT stop it."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                gevent.signal_handler(number, self.stop)
        self.store.join(self._member, self.settings.member_ttl)
        loops = [gevent.spawn(loop) for loop in (self._beat_loop, self._lead_loop)]
        try:
            self._stop.wait()
        finally:
            gevent.killall(loops)
            self._step_down("stopped")
            try:
                self.store.leave(self.name, self._member.incarnation, "stopped")
            except StoreError as error:
                log.warning("%s could not say goodbye: %s", self.name, error)

    def stop(self) -> None:
        """Hand the lock over and leave."""
        self._stop.set()

    def _beat_loop(self) -> None:
        listener = self.store.listen(f"node:{self.name}")  # somebody asks whether we live, or drains us
        try:
            while True:
                listener.wait(self.settings.heartbeat)
                self._beat()
        finally:
            listener.close()

    def _beat(self) -> None:
        self._member = replace(self._member, running=self._leadership.count)
        try:
            beat = self.store.renew(self._member, self.settings.member_ttl, self.settings.task_lease)
            if beat.state == "draining":
                self.stop()
        except LeaseLost:
            self._member = replace(self._member, incarnation=new_incarnation(), spawn_id="")
            try:
                self.store.join(self._member, self.settings.member_ttl)
            except (NameTaken, StoreError) as error:
                log.warning("%s cannot join again yet: %s", self.name, error)
        except StoreError as error:
            log.warning("%s cannot renew its membership: %s", self.name, error)

    # -- the lock ------------------------------------------------------------------------------------------

    def _lead_loop(self) -> None:
        listener = self.store.listen("lead", "ready")
        try:
            while True:
                try:
                    wait = self._lead_or_wait()
                except LeaseLost as error:
                    log.warning("%s does not lead any more: %s", self.name, error)
                    self._step_down("its lease was lost")
                    wait = 0.0
                except StoreError as error:
                    log.warning("%s: %s", self.name, error)
                    wait = self.settings.scan
                    if not self.leading:
                        self._forget_guard()
                # Hints shorten the wait of a standby; a leader's scans keep their period.
                if self._guard is None and wait > 0:
                    if listener.wait(wait):
                        gevent.sleep(self._courtesy())
                else:
                    gevent.sleep(wait)
        finally:
            listener.close()

    def _lead_or_wait(self) -> float:
        """Do one round; return how long to wait for the next."""
        lease = self.settings.coordinator_lease
        asked = monotonic()
        if self._guard is None:
            lock = self.store.acquire(LOCK, f"{self.name}#{self._member.incarnation}", lease)
            if lock.holder != f"{self.name}#{self._member.incarnation}":
                left = max(0.0, lock.lease_until - self.store.now())
                return left + 0.05 * lease * random.random()
            self._guard = Guard(LOCK, lock.fence)
            self._leadership.count += 1
            self._held_until = asked + lease
            log.info("%s leads with fence %d", self.name, lock.fence)
        elif self._held_until - asked < lease * 2 / 3:
            if not self.store.renew_lock(LOCK, self._guard.fence, lease):
                raise LeaseLost(f"the lock with fence {self._guard.fence} ran out")
            self._held_until = asked + lease
        if self._held_until - monotonic() > lease / 3:  # G-08
            members = self.scan(self._guard)
            if self._leaves_to_a_standby(members):
                self._step_down("another coordinator leads fewer groups")
        return self.settings.scan

    def _leaves_to_a_standby(self, members: Sequence[Member]) -> bool:
        mine = self._leadership
        standbys = (
            m.running for m in members if m.role == "coordinator" and m.state == "up" and m.node != self.name
        )
        if monotonic() < mine.quiet_until or not _decide.should_hand_over(mine.count, standbys):
            return False
        mine.quiet_until = monotonic() + 3 * self.settings.heartbeat
        return True

    def _courtesy(self) -> float:
        """Seconds to wait before taking a lock that has become free: who leads fewer groups goes first."""
        return min(0.1, 0.03 * self._leadership.count) * self.settings.coordinator_lease

    def _forget_guard(self) -> Guard | None:
        guard, self._guard = self._guard, None
        if guard is not None:
            self._leadership.count -= 1
        return guard

    def _step_down(self, why: str) -> None:
        guard = self._forget_guard()
        if guard is not None:
            try:
                self.store.release(LOCK, guard.fence)
                self.store.note("step-down", self.name, self.name, f"{guard.fence} {why}")
            except (StoreError, LeaseLost):
                pass  # it runs out

    def _in_time(self) -> bool:
        return self._held_until - monotonic() > self.settings.coordinator_lease / 3

    # -- the scanner ---------------------------------------------------------------------------------------

    def scan(self, guard: Guard) -> list[Member]:
        """One round of repairs; return who is there. Raises LeaseLost when somebody else leads by now."""
        batch = self.settings.batch
        while self.store.promote(batch, guard=guard) == batch and self._in_time():
            pass
        fail_point("coordinator-promoted")
        survey = self.store.survey(batch, unknown_after=self.settings.unknown_after)
        decided = _decide.repairs(survey, _UNKNOWN, _OVERDUE)
        fail_point("coordinator-surveyed")
        if decided and self._in_time():
            self.store.repair(decided, guard=guard)
        fail_point("coordinator-repaired")
        self._scans += 1
        if self._scans % PURGE_EVERY == 0:
            self._purge(guard)
        members = self.store.members()
        if self.store.get("dispatch") == "assign" and self._in_time():
            self._deal(members, guard)
        self._heal(members)
        return members

    def _purge(self, guard: Guard) -> None:
        batch, journal = self.settings.batch, self.settings.journal
        while self._in_time():
            if self.store.purge(self.settings.retention, batch, journal=journal, guard=guard) < batch:
                return

    def _deal(self, members: Sequence[Member], guard: Guard) -> None:
        ready = self.store.statistics().count("ready")
        if not ready:
            return
        held: dict[str, int] = {}
        for row in self.store.assignments():
            held[row.node] = held.get(row.node, 0) + 1
        workers = {m.node: m for m in members if m.role == "worker" and m.state == "up"}
        for node, count in _decide.deal(members, held, ready).items():
            member = workers[node]
            peers = [m.node for m in workers.values() if set(m.queues) & set(member.queues)]
            try:
                self.store.claim(
                    node,
                    member.incarnation,
                    count,
                    queues=member.queues,
                    ops=member.ops,
                    buckets=_decide.buckets_of(node, peers) if len(peers) > 1 else None,
                    lease=self.settings.task_lease,
                    by=self.name,
                    guard=guard,
                )
            except LeaseLost:
                pass  # that member's; were it the leader's own, the next guarded call would say so

    def _heal(self, members: Sequence[Member]) -> None:
        self._healer.check(members)
        bounds = read_bounds(self.store)
        if bounds is None:
            return
        backlog = _decide.backlog_of(members, self.store.statistics(), self.store.queues(), bounds)
        plan = _decide.plan_workers(members, bounds, backlog, self.store.now(), self.settings.idle_retire)
        for _ in range(plan.spawn):
            if not self._healer.spawn("worker", bounds.most):
                break
        for node in plan.retire:
            self.store.drain(node)
