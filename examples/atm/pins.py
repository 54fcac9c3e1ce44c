"""Pins: kept as scrypt hashes, checked quickly the second time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import OrderedDict

# 2**10 rounds take 3 ms. More would not help: a pin of four digits has 10 000 possibilities. What protects an
# account is that it locks after a few wrong ones; the hash keeps pins from being read out of a copied ledger.
COST = 2**10
_REMEMBERED = 10_000
_PIN = re.compile(r"[0-9]{4,12}")


def is_pin(value: object) -> bool:
    """Say whether this may be the pin of a new account: 4 to 12 digits."""
    return isinstance(value, str) and _PIN.fullmatch(value) is not None


class Pins:
    """Hashes pins and checks them; remembers right ones, so that 2000 transactions/s cost no 2000 scrypts.

    What is remembered is a keyed digest under a key that exists only in this process.
    """

    def __init__(self, cost: int = COST) -> None:
        self._cost = cost
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()  # digest of (hash, pin), oldest first

    def hash(self, pin: str) -> bytes:
        """Make the salted hash that is kept; its cost travels with it and may be raised later."""
        salt = os.urandom(16)
        return b"%d$" % self._cost + salt + _scrypt(pin, salt, self._cost)

    def check(self, pin: str, kept: bytes) -> bool:
        """Say whether `kept` was made of this pin."""
        seen = hmac.digest(self._key, kept + pin.encode(), "sha256")
        if seen in self._right:
            return True
        cost, _, rest = kept.partition(b"$")
        right = hmac.compare_digest(_scrypt(pin, rest[:16], int(cost)), rest[16:])
        if right:
            self._right[seen] = None
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        return right


def _scrypt(pin: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=cost, r=8, p=1, dklen=32)
