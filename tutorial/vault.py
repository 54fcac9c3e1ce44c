"""The bank of chapter 10: its words, its books in a file, and what runs in other processes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from uuid import uuid4

from net import PeerLost
from tasklets import Timeout, channel, message, timeout


@message
class Deposit:
    """Put money in."""

    account: str
    amount: int


@message
class Withdraw:
    """Take money out."""

    account: str
    amount: int


@message
class Request:
    """An order under its own name, and where the answer goes."""

    txn: str
    order: Deposit | Withdraw
    reply: channel


@message
class Ok:
    """Done, and in the books."""

    txn: str
    balance: int


@message
class Declined:
    """Not done, and nothing has changed."""

    txn: str
    reason: str


def decide(balance: int | None, order: Deposit | Withdraw) -> int | str:
    """The balance after the order; or a text, the reason why not."""
    if balance is None:
        return "unknown account"
    if not isinstance(order.amount, int) or order.amount <= 0:
        return "bad amount"
    if isinstance(order, Deposit):
        return balance + order.amount
    return balance - order.amount if order.amount <= balance else "not enough money"


# -- the bank, its books in a file ---------------------------------------------------------------------------


@contextmanager
def open_books(path: str) -> Iterator[sqlite3.Connection]:
    """The books: balances, and every answer that was ever given."""
    books = sqlite3.connect(path, isolation_level=None)
    # Quick, and safe against the death of a process. Against a power cut the last moments are not: that would cost
    # a write to the disk for each order.
    books.execute("pragma journal_mode = wal")
    books.execute("pragma synchronous = normal")
    books.execute("create table if not exists accounts (name primary key, balance)")
    books.execute("create table if not exists answers (txn primary key, is_ok, said)")
    try:
        yield books
    finally:
        books.close()


def answer(books: sqlite3.Connection, txn: str, order: Deposit | Withdraw) -> Ok | Declined:
    """Do an order once, however often it comes. Balance and answer are written together, or neither is."""
    books.execute("begin immediate")
    said = books.execute("select is_ok, said from answers where txn = ?", [txn]).fetchone()
    if said is None:
        found = books.execute("select balance from accounts where name = ?", [order.account]).fetchone()
        result = decide(found and found[0], order)
        if isinstance(result, int):
            books.execute("update accounts set balance = ? where name = ?", [result, order.account])
        said = isinstance(result, int), result
        books.execute("insert into answers values (?, ?, ?)", [txn, *said])
    books.execute("commit")
    return Ok(txn, said[1]) if said[0] else Declined(txn, said[1])


def serve_bank(requests: channel, path: str, pids: channel) -> None:
    """The bank as a tasklet. First it says in which process it lives, for those who want to end it."""
    pids.send(os.getpid())
    with open_books(path) as books:
        for request in requests:
            request.reply.send(answer(books, request.txn, request.order))


# -- a cash machine ------------------------------------------------------------------------------------------


def ask(requests: channel, order: Deposit | Withdraw, patience: float = 0.2) -> Ok | Declined:
    """Ask until there is an answer to this order, always under the same name."""
    txn, reply = uuid4().hex, channel(10)
    while True:
        try:
            with timeout(patience):
                requests.send(Request(txn, order, reply))
                return reply.receive()
        except (Timeout, PeerLost):
            pass  # the request or the answer is lost, or the bank is away or has died: ask again


def use_machine(number: int, customers: int, requests: channel, reports: channel) -> None:
    """Serve some customers, and report what went in and out of the machine's drawer."""
    dice, drawer = Random(number), 0
    for _ in range(customers):
        amount = dice.randrange(1, 60)
        order = dice.choice([Deposit, Withdraw])(dice.choice("abc"), amount)
        if isinstance(ask(requests, order), Ok):
            drawer += amount if isinstance(order, Deposit) else -amount
    reports.send(drawer)
