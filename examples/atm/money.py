"""Amounts: whole numbers of the smallest unit everywhere, text with two decimals only in front of a person.

>>> parse_amount("12.50"), format_amount(1250)
(1250, '12.50 EUR')
"""

from __future__ import annotations

import re
from typing import TypeGuard

CURRENCY = "EUR"
UNITS = 100  # smallest units in one of the currency
LIMIT = 1_000_000 * UNITS  # the most that one transaction moves
MOST = 10**15  # the most that one account holds or owes: far inside SQLite's 64 bits

_AMOUNT = re.compile(r"([+-]?)([0-9]{1,15})(?:\.([0-9]{1,2}))?")


def is_amount(value: object) -> TypeGuard[int]:
    """Say whether a transaction may move this much: an int, above 0, at most LIMIT. True is no amount."""
    return type(value) is int and 0 < value <= LIMIT


def parse_amount(text: str) -> int:
    """Read what a person typed; whether it may be moved is the bank's to say. Raises ValueError."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} is not an amount; type a number such as 20 or 12.50")
    sign, whole, hundredths = match.groups()
    amount = int(whole) * UNITS + int((hundredths or "").ljust(2, "0"))
    return -amount if sign == "-" else amount


def format_amount(amount: int) -> str:
    """Write an amount as people read it: `1 234.50 EUR`."""
    whole, hundredths = divmod(abs(amount), UNITS)
    return f"{'-' if amount < 0 else ''}{whole:,}.{hundredths:02d} {CURRENCY}".replace(",", " ")
