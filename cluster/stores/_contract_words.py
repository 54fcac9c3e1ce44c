"""The words that the tests of the contract are written in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.records import Assignment, Claim, Ending, Finish, Member, NewTask
from cluster.stores.base import Store

OP = "test:work"


class Words:
    """A store with two members, and short names for what is done with it."""

    def open(self, group: str = "default") -> Store:
        """Return a handle on the store under test."""
        raise NotImplementedError

    @pytest.fixture
    def place(self) -> None:
        """Override to prepare where the stores of one test are."""

    @pytest.fixture(autouse=True)
    def _opened(self, place: None) -> Iterator[None]:
        self._handles: list[Store] = []
        self.store = self.again()
        self.join("w1")
        self.join("w2")
        yield
        for handle in self._handles:
            handle.wipe()
        for handle in self._handles:
            handle.close()
        del self.store, self._handles  # pytest keeps the object of each test

    def again(self, group: str = "default") -> Store:
        handle = self.open(group)
        self._handles.append(handle)
        return handle

    def join(self, node: str, ttl: float = 60.0, **more: Any) -> Member:
        member = Member(node, f"{node}-1", more.pop("role", "worker"), ops=(OP,), slots=4, **more)
        self.store.join(member, ttl)
        return member

    def submit(self, count: int = 1, **fields: Any) -> list[str]:
        tasks = [NewTask(OP, b"%d" % i, **fields) for i in range(count)]
        self.store.submit(tasks)
        return [task.task_id for task in tasks]

    def claim(self, count: int = 1, node: str = "w1", **more: Any) -> list[Claim]:
        options: dict[str, Any] = {"queues": ["default"], "ops": [OP], "lease": 30.0, **more}
        return self.store.claim(node, f"{node}-1", count, **options)[0]

    def finish(self, claim: Claim, ending: Ending = Ending.DONE, node: str = "w1", **more: Any) -> bool:
        return self.store.finish(node, [Finish(claim.task.task_id, claim.fence, ending, **more)])[0]

    def state(self, task_id: str) -> str:
        task = self.store.task(task_id)
        assert task is not None
        return task.state

    def rows(self, task_id: str) -> list[Assignment]:
        return [row for row in self.store.assignments() if row.task_id == task_id]
