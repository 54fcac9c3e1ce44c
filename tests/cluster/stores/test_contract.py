"""The contract of a store, on the three engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.stores import Store, open_store
from cluster.stores.contract import StoreContract
from tests.cluster.conftest import shared_redis


class TestMemory(StoreContract):
    @pytest.fixture
    def place(self, request: pytest.FixtureRequest) -> None:
        self.url = f"memory:{request.node.name}"

    def open(self, group: str = "default") -> Store:
        return open_store(self.url, group)


class TestSqlite(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/work.db"

    def open(self, group: str = "default") -> Store:
        return open_store(self.url, group)


class TestRedis(StoreContract):
    @pytest.fixture
    def place(self) -> None:
        self.url = shared_redis().url

    def open(self, group: str = "default") -> Store:
        return open_store(self.url, group)


class _Foreign:
    """An engine as somebody else would write it: it has what the contract says, and the three methods for tests."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        if name not in {*dir(Store), "url", "group", "plant", "unassign", "inventory"} or name.startswith(
            "_"
        ):
            raise AttributeError(f"the contract has no {name}")
        return getattr(self._inner, name)


class TestForeign(StoreContract):  # P-32: the suite asks an engine for nothing but the contract
    @pytest.fixture
    def place(self, request: pytest.FixtureRequest) -> None:
        self.url = f"memory:foreign {request.node.name}"

    def open(self, group: str = "default") -> Store:
        return _Foreign(open_store(self.url, group))  # type: ignore[return-value]
