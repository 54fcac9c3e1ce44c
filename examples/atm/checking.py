"""What a request must look like before the ledger takes it up, and how a repeat of it is recognised."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from datetime import datetime
from typing import get_args

from examples.atm.messages import Open, Order
from examples.atm.money import CURRENCY, MOST
from examples.atm.pins import is_pin

# kind of order -> the names of its fields; dataclasses.fields() is too slow to ask for each request
FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in get_args(Order)}

LONGEST_TEXT = 200  # characters of a name, a txn, a pin: enough for people, too little to fill a disk with


class BadRequest(Exception):
    """The request makes no sense; nothing was journalled."""


def check(txn: object, atm: object, at: object, order: object) -> None:
    """Refuse what no ATM of ours sends. Raises BadRequest.

    Bad amounts pass: they get an answer of their own (ATM-01).
    """
    if type(order) not in FIELDS:
        raise BadRequest(f"{type(order).__name__} is not an order; send one of examples.atm.messages.Order")
    texts = {"txn": txn, "atm": atm}
    moments = {"at": at}
    for field in FIELDS[type(order)]:
        if field == "since":
            since = getattr(order, field)
            moments[field] = at if since is None else since
        elif field != "amount":
            texts[field] = getattr(order, field)
    for name, text in texts.items():
        if not is_text(text):
            raise BadRequest(f"{name} must be text of 1 to {LONGEST_TEXT} characters")
    for name, moment in moments.items():
        # The first and last hours of time cannot be told in every time zone.
        if not isinstance(moment, datetime) or not moment.tzinfo or not 1 < moment.year < 9999:
            raise BadRequest(f"{name} must be a datetime with a time zone")
    if isinstance(order, Open) and not is_pin(order.pin):
        raise BadRequest("a pin has 4 to 12 digits")
    if isinstance(order, Open) and order.currency != CURRENCY:
        raise BadRequest(f"this bank keeps accounts in {CURRENCY}, not in {order.currency}")


def is_text(value: object) -> bool:
    """Say whether this may be a name, a txn or a pin: any characters, but some, and not too many (ATM-02)."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: SQLite could not keep it
        return False
    return True


def fingerprint_of(atm: str, order: Order) -> bytes:
    """Digest what is asked. Without the pin: ten thousand guesses would find it here."""
    said = {field: getattr(order, field) for field in FIELDS[type(order)] if field != "pin"}
    if "amount" in said and not (type(said["amount"]) is int and abs(said["amount"]) <= MOST):
        said["amount"] = "bad"  # of any type and size
    return hashlib.blake2b(repr((atm, type(order).__name__, said)).encode(), digest_size=16).digest()
