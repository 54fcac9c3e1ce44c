"""Membership for programs that are no workers: who is there, and which part of a work is mine.

with Membership("sqlite:///work.db", "indexers") as me:
    for number in me.my_share(1000): ...
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gevent

from cluster import _decide
from cluster._identity import new_incarnation, new_member, new_name, opened
from cluster.errors import LeaseLost, NameTaken, StoreError
from cluster.settings import Settings
from cluster.stores import Store


class Membership:
    """A process's place in a group, renewed while tasklets run and with each call."""

    def __init__(
        self,
        store: str | Store,
        group: str = "default",
        *,
        name: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.store = opened(store, group, self.settings)
        self.name = name or new_name()
        self._member = new_member(self.name, "member")
        self._beats: Any = None

    def __enter__(self) -> Membership:
        self.store.join(self._member, self.settings.member_ttl)
        self._beats = gevent.spawn(self._beat)
        return self

    def __exit__(self, *_: object) -> None:
        if self._beats is not None:
            self._beats.kill()
        self.store.leave(self.name, self._member.incarnation)

    def _beat(self) -> None:
        while True:
            gevent.sleep(self.settings.heartbeat)
            try:
                self.renew()
            except (StoreError, NameTaken):
                pass  # the next beat tries again

    def renew(self) -> None:
        """Renew the lease; after it has run out, join again as a new incarnation."""
        try:
            self.store.renew(self._member, self.settings.member_ttl, self.settings.task_lease)
        except LeaseLost:
            self._member = replace(self._member, incarnation=new_incarnation())
            self.store.join(self._member, self.settings.member_ttl)

    def my_share(self, total: int) -> range:
        """My part of 0..total-1. All members' parts together are all of it, once they see the same members."""
        self.renew()
        names = sorted(m.node for m in self.store.members() if m.role == "member")
        return _decide.share(total, names.index(self.name), len(names))
