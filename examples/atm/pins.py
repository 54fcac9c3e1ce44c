"""Pins: kept as scrypt hashes, checked quickly the second time.

Hashing takes milliseconds, which is meant, and which nobody else should wait for. So nothing here hashes
while the books are open: `check` and `hash` raise NotHashedYet, whoever asked calls its `work()` where it
hurts nobody (in a thread: scrypt lets other threads run), and asks again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Callable

# 2**10 rounds take 2 to 3 ms. More would not help: a pin of four digits has 10 000 possibilities. What protects
# an account is that it locks after a few wrong ones; the hash keeps pins from being read out of a copied ledger.
COST = 2**10
_REMEMBERED = 100_000  # some 20 MB
_PIN = re.compile(r"[0-9]{4,12}")


def is_pin(value: object) -> bool:
    """Say whether this may be the pin of a new account: 4 to 12 digits."""
    return isinstance(value, str) and _PIN.fullmatch(value) is not None


class NotHashedYet(Exception):
    """A pin has to be hashed first: call `work()`, which takes milliseconds, then ask again."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__("a pin has to be hashed first; call work(), then ask again")
        self.work = work


class Pins:
    """Hashes pins and checks them; remembers verdicts, so that 2000 transactions/s cost no 2000 scrypts.

    What is remembered is a keyed digest under a key that exists only in this process.
    """

    def __init__(self, cost: int = COST) -> None:
        self._cost = cost
        self._key = os.urandom(32)
        self._verdicts: OrderedDict[bytes, bool] = (
            OrderedDict()
        )  # digest of (hash, pin) -> right?, oldest first
        self._made: dict[
            bytes, bytes
        ] = {}  # digest of (txn, pin) -> hash for a new account, until it is taken

    def hash(self, txn: str, pin: str) -> bytes:
        """Take the salted hash that is kept for the account that `txn` opens. Raises NotHashedYet.

        Its cost travels with it and may be raised later.
        """
        name = self._digest(txn.encode(), pin)
        if name not in self._made:
            raise NotHashedYet(lambda: self._made.update({name: self._hash(pin)}))
        return self._made.pop(name)

    def check(self, pin: str, kept: bytes) -> bool:
        """Say whether `kept` was made of this pin. Raises NotHashedYet."""
        name = self._digest(kept, pin)
        verdict = self._verdicts.get(name)
        if verdict is None:
            raise NotHashedYet(lambda: self._judge(name, pin, kept))
        return verdict

    def _judge(self, name: bytes, pin: str, kept: bytes) -> None:
        cost, _, rest = kept.partition(b"$")
        self._verdicts[name] = hmac.compare_digest(_scrypt(pin, rest[:16], int(cost)), rest[16:])
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)

    def _hash(self, pin: str) -> bytes:
        salt = os.urandom(16)
        return b"%d$" % self._cost + salt + _scrypt(pin, salt, self._cost)

    def _digest(self, context: bytes, pin: str) -> bytes:
        return hmac.digest(self._key, context + b"\0" + pin.encode(), "sha256")


def _scrypt(pin: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=cost, r=8, p=1, dklen=32)
