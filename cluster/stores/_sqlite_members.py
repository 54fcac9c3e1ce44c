"""The members and locks of the SQLite engine: its calls of these sections of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import NameTaken
from cluster.records import Beat, Lock, Member
from cluster.stores._sqlite_calls import Calls
from cluster.stores._transaction import Transaction


class SqliteMembers(Calls):
    """See `cluster.stores.base.Store`."""

    # -- members -------------------------------------------------------------------------------------------

    def reserve(
        self, node: str, role: str, *, spawn_id: str, grace: float, limit: int, by: str = "", host: str = ""
    ) -> bool:
        def reserve(t: Transaction) -> bool:
            there = t.members()
            if any(m.spawn_id == spawn_id or m.node == node for m in there):
                return False
            if sum(m.role == role and m.state != "draining" for m in there) >= limit:
                return False
            t.put_member(Member(node, "", role, "joining", spawn_id=spawn_id, host=host, joined=t.now), grace)
            t.note("spawn", node, by, role)
            return True

        return self._call(reserve)

    def join(self, member: Member, ttl: float) -> None:
        def join(t: Transaction) -> None:
            for other in t.members():
                if other.spawn_id and other.spawn_id == member.spawn_id and other.state == "joining":
                    t.db.execute("DELETE FROM member WHERE grp = ? AND node = ?", (t.grp, other.node))
                elif other.node == member.node and other.incarnation != member.incarnation:
                    raise NameTaken(
                        f"a node named {member.node!r} is in group {t.grp!r} already (pid {other.pid} on "
                        f"{other.host}); choose another name, or wait {other.lease_until - t.now:.1f} s if it "
                        "has just died"
                    )
            t.declare()
            t.give_back(member.node, "its node joined anew")
            t.put_member(member, ttl, joined=t.now)
            t.note("join", member.node, detail=member.role)

        self._call(join)
        self.ring("lead")

    def renew(self, member: Member, ttl: float, lease: float, running: Sequence[str] = ()) -> Beat:
        def renew(t: Transaction) -> Beat:
            state = t.check_member(member.node, member.incarnation)
            row = t.db.execute(
                "SELECT joined FROM member WHERE grp = ? AND node = ?", (t.grp, member.node)
            ).fetchone()
            state = "draining" if "draining" in (state, member.state) else member.state
            t.put_member(member, ttl, joined=row[0], state=state)
            t.db.execute(
                "UPDATE assignment SET lease_until = ? WHERE grp = ? AND node = ?",
                (t.now + lease, t.grp, member.node),
            )
            held = t.db.execute(
                "SELECT task_id, fence, running FROM assignment WHERE grp = ? AND node = ?",
                (t.grp, member.node),
            ).fetchall()
            return Beat(t.now, tuple((i, f, bool(r)) for i, f, r in held), state)

        return self._call(renew)

    def leave(self, node: str, incarnation: str, reason: str = "") -> None:
        def leave(t: Transaction) -> None:
            gone = t.db.execute(
                "DELETE FROM member WHERE grp = ? AND node = ? AND incarnation = ?",
                (t.grp, node, incarnation),
            ).rowcount
            if gone:
                t.give_back(node, reason or "its node left")
                t.note("leave", node, detail=reason)

        self._call(leave)
        self.ring("lead")

    def drain(self, node: str) -> bool:
        def drain(t: Transaction) -> bool:
            changed = t.db.execute(
                "UPDATE member SET state = 'draining' WHERE grp = ? AND node = ? AND state <> 'draining'",
                (t.grp, node),
            ).rowcount
            if changed:
                t.note("retire", node)
            return bool(changed)

        changed = self._call(drain)
        self.ring(f"node:{node}")
        return changed

    def members(self) -> list[Member]:
        return self._call(lambda t: t.members(), writes=False)

    # -- locks ---------------------------------------------------------------------------------------------

    def acquire(self, name: str, holder: str, ttl: float) -> Lock:
        def acquire(t: Transaction) -> Lock:
            held = t.lock(name)
            if held is not None and held.lease_until > t.now:
                if held.holder != holder:
                    return held
                fence = held.fence
            else:
                if held is not None:
                    t.note("lock-expired", name, held.holder, str(held.fence))
                fence = t.draw("#fence")
                t.note("lock", name, holder, str(fence))
            t.db.execute(
                "INSERT OR REPLACE INTO lock VALUES (?, ?, ?, ?, ?)",
                (t.grp, name, holder, fence, t.now + ttl),
            )
            return Lock(name, holder, fence, t.now + ttl)

        return self._call(acquire)

    def renew_lock(self, name: str, fence: int, ttl: float) -> bool:
        return self._call(
            lambda t: bool(
                t.db.execute(
                    "UPDATE lock SET lease_until = ? WHERE grp = ? AND name = ? AND fence = ? AND lease_until > ?",
                    (t.now + ttl, t.grp, name, fence, t.now),
                ).rowcount
            )
        )

    def release(self, name: str, fence: int) -> bool:
        def release(t: Transaction) -> bool:
            held = t.lock(name)
            if held is None or held.fence != fence:
                return False
            t.db.execute("DELETE FROM lock WHERE grp = ? AND name = ?", (t.grp, name))
            t.note("unlock", name, held.holder, str(fence))
            return held.lease_until > t.now

        released = self._call(release)
        self.ring("lead")
        return released

    def lock(self, name: str) -> Lock | None:
        def read(t: Transaction) -> Lock | None:
            held = t.lock(name)
            return held if held is not None and held.lease_until > t.now else None

        return self._call(read, writes=False)
