"""Healing in both directions: a worker that sees no coordinator starts one, a coordinator that sees too few workers
starts some. Whoever starts a node first notes it in the store, which refuses when there are enough: so of many
that notice at once one acts, and there are never more than allowed.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import gevent

from cluster import _decide
from cluster._decide import Bounds
from cluster.errors import ClusterError, SpawnFailed, StoreError
from cluster.provision import NodeTemplate, Provisioner, Started, known_fields, provisioner_for
from cluster.records import Member, Repair
from cluster.settings import Settings
from cluster.stores import Store

log = logging.getLogger("cluster")

LOCK = "coordinator"  # of whoever leads
SILENCE = 1.0  # seconds without an answer until it is seen to those that are dead, and said that a lease is waited for


@dataclass(frozen=True, slots=True)
class _Spawn:
    node: str
    role: str
    started: Started
    deadline: float


def read_bounds(store: Store) -> Bounds | None:
    """How many workers the group is to have; None when nobody has said."""
    text = store.get("bounds")
    return Bounds(**known_fields(Bounds, json.loads(text))) if text else None


def write_bounds(store: Store, bounds: Bounds) -> None:
    """Say how many workers the group is to have."""
    if not 0 <= bounds.least <= bounds.most:
        raise ClusterError(
            f"at least {bounds.least} and at most {bounds.most} workers cannot be; give least <= most"
        )
    store.put("bounds", json.dumps(asdict(bounds)))


class Healer:
    """Starts nodes from the group's templates, and keeps account of those that it has started."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        by: str,
        *,
        find_provisioner: Callable[[NodeTemplate], Provisioner] = provisioner_for,
    ) -> None:
        self.store = store
        self.settings = settings
        self.by = by
        self._find_provisioner = find_provisioner
        self._spawns: list[_Spawn] = []
        self._failures: dict[str, int] = {}  # role -> starts in a row that failed
        self._not_before: dict[str, float] = {}
        self._missing_since: float | None = None
        self._patience = 0.0

    def revive(self) -> bool:
        """See to it that there is a coordinator; True when this call has started it. Blocks.

        Of one whose lease runs nobody knows whether it lives: it is asked, and answers at once. If it does not, it is
        removed where it was a process of this machine that is not there any more. Else its lease is waited for, so
        this takes `member_ttl` at most, and the start of a process (`spawn_grace` at most). What could not be done is
        in the log.
        """
        while not self._one_answers():
            if self.spawn("coordinator", 1):
                return self._has_joined()
            if self._failures.get("coordinator"):
                return False
            if not self.store.get("template:coordinator"):
                log.warning(
                    "group %r has no coordinator, and nobody has left how to start one: tasklets cluster up",
                    self.store.group,
                )
                return False
        return False

    def _one_answers(self) -> bool:
        """Whether a coordinator is alive; False when the leases of all are over. Blocks until one or the other."""
        before: dict[tuple[str, str], float] | None = None  # node, incarnation -> its lease when it was asked
        asked, pause, told = monotonic(), 0.01, False
        while there := [m for m in self.store.members() if _decide.may_lead(m)]:
            leases = {(m.node, m.incarnation): m.lease_until for m in there if m.state == "up"}
            if before is None:
                before = leases
            elif any(before.get(key) != lease for key, lease in leases.items()):
                return True
            for member in there:  # each time, for a hint may be lost
                self.store.ring(f"node:{member.node}")
            if not told and monotonic() - asked > SILENCE:
                told = True
                self._bury()
                there = [m for m in self.store.members() if _decide.may_lead(m)]
                if not there:
                    return False
                left = max(m.lease_until for m in there) - self.store.now()
                names = ", ".join(m.node for m in there)
                log.warning(
                    "no answer from %s; another is started when its lease is over, in %.1f s", names, left
                )
            gevent.sleep(pause)
            pause = min(0.1, pause * 1.5)
        return False

    def _bury(self) -> None:
        """Remove the members of this machine whose process is gone, so that nobody waits for their leases.

        For groups only where nobody leads. Where two pid namespaces have one host name, somebody who lives may be
        taken for dead: that one joins again, and what it ran is run again.
        """
        lock = self.store.lock(LOCK)
        for member in self.store.members():
            if not _is_gone(member):
                continue
            lost = [
                row for row in self.store.assignments(member.node) if row.incarnation == member.incarnation
            ]
            self.store.repair(
                [
                    Repair("revoke", row.task_id, row.node, row.fence, loss=True, reason="its worker is gone")
                    for row in lost
                ]
            )
            self.store.leave(member.node, member.incarnation, "its process is gone")
            if lock is not None and lock.holder == f"{member.node}#{member.incarnation}":
                self.store.release(LOCK, lock.fence)

    def _has_joined(self) -> bool:
        """Whether what was started joins. Blocks until it does, or has failed."""
        while any(spawn.deadline < float("inf") for spawn in self._spawns):
            gevent.sleep(0.02)
            self.check(self.store.members())
        return not self._failures.get("coordinator")

    def look_for_coordinator(self, members: Sequence[Member]) -> None:
        """Start a coordinator when none has been there for long enough. Called with each heartbeat."""
        self.check(members)
        if not _decide.lacks_coordinator(members):
            self._missing_since = None
            return
        now = monotonic()
        if self._missing_since is None:
            self._missing_since = now
            jitter = self.settings.coordinator_jitter * random.random()
            self._patience = self.settings.coordinator_missing + jitter
        elif now - self._missing_since >= self._patience:
            self._missing_since = None
            self.spawn("coordinator", 1)

    def spawn(self, role: str, limit: int, *, node: str = "") -> bool:
        """Start a node of a role, unless there are `limit` already, or a start failed a moment ago."""
        if monotonic() < self._not_before.get(role, 0.0):
            return False
        text = self.store.get(f"template:{role}")
        if not text:
            return False
        template = NodeTemplate.loads(text)
        spawn_id = os.urandom(6).hex()
        node = node or f"{role}-{spawn_id}"
        grace = self.settings.spawn_grace
        host = template.host or socket.gethostname()
        if not self.store.reserve(
            node, role, spawn_id=spawn_id, grace=grace, limit=limit, by=self.by, host=host
        ):
            return False
        try:
            started = self._find_provisioner(template).start(template, node, spawn_id)
        except SpawnFailed as error:
            self._failed(node, role, str(error))
            return False
        self._spawns.append(_Spawn(node, role, started, monotonic() + grace))
        return True

    def check(self, members: Sequence[Member]) -> None:
        """Look after those that were started: did they join, or end, or do neither for too long?"""
        up = {m.node for m in members if m.state != "joining"}
        left = []
        for spawn in self._spawns:
            code = spawn.started.poll()
            if spawn.node in up:
                self._failures[spawn.role] = 0
                if code is None:
                    left.append(_Spawn(spawn.node, spawn.role, spawn.started, float("inf")))  # to be reaped
            elif spawn.deadline == float("inf"):
                if code is None:
                    left.append(spawn)
            elif code is not None:
                self._failed(
                    spawn.node, spawn.role, f"it ended with exit code {code}: {spawn.started.tail()}"
                )
            elif monotonic() > spawn.deadline:
                spawn.started.stop()
                text = f"it did not join within {self.settings.spawn_grace:g} s: {spawn.started.tail()}"
                self._failed(spawn.node, spawn.role, text)
            else:
                left.append(spawn)
        self._spawns = left

    def _failed(self, node: str, role: str, why: str) -> None:
        failures = self._failures[role] = self._failures.get(role, 0) + 1
        pause = _decide.spawn_pause(failures)
        self._not_before[role] = monotonic() + pause
        log.warning("%s did not start (%d in a row, next try in %.1f s): %s", node, failures, pause, why)
        try:
            self.store.leave(node, "", "its start failed")
            self.store.note("spawn-failed", node, self.by, why[-1500:])
        except StoreError:
            pass  # the note runs out by itself


def _is_gone(member: Member) -> bool:
    """Whether a member was a process of this machine that has ended. One whose pid somebody else has now was not."""
    if not member.pid or member.host != socket.gethostname():
        return False
    try:
        os.kill(member.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    try:  # where nobody waits for it, as in many containers, it is there still: as a zombie
        return Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):  # only Linux has it; or it has just gone
        return False
