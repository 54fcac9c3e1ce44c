"""What the parts of the SQLite engine need of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from cluster.stores._transaction import Transaction

T = TypeVar("T")


class Calls(ABC):
    """How a call of the contract is made."""

    @abstractmethod
    def _call(self, function: Callable[[Transaction], T], *, writes: bool = True) -> T:
        """Call a function in a transaction, and then give the hints that it gathered."""

    @abstractmethod
    def ring(self, topic: str) -> None:
        """Give a hint."""
