"""The desk in front of a bank of jobs: no state of its own, so any number of them may stand before the same accounts.

    with Client("sqlite:///bank.db") as client:
        open_bank(client)
        open_account(client, "alice", "1111", 500_00)
        JobBank(client).serve(requests)                # until requests is closed

What the accounts do is in account_job.py. Here an order becomes a signal, and the pin in it a key: no pin is in the
store.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import gevent

from cluster import Client, JobHandle, Reply as Outcome, StoreUnavailable
from cluster.jobs import split_data
from cluster.records import Job
from examples.atm.account_job import (
    OFFICE,
    Account,
    Answer,
    Instruction,
    Office,
    account_of,
    job_id_of,
    job_name_of,
)
from examples.atm.checking import BadRequest, check, fingerprint_of, is_text
from examples.atm.desk import Desk
from examples.atm.messages import (
    Audit,
    Balance,
    Books,
    Declined,
    Error,
    Open,
    Opened,
    Order,
    Reason,
    Reply,
    Request,
    Statement,
    Transfer,
    Withdraw,
)
from examples.atm.money import MOST, is_amount
from examples.atm.pins import COST, is_pin

ANSWER_SECONDS = 5.0  # to wait for a worker; then the machine asks again, under the same txn
AUDIT_SECONDS = 10.0  # to wait for a moment in which no money is under way

_log = logging.getLogger("atm.bank")


def open_bank(client: Client) -> bool:
    """Found the bank; False when it is there already."""
    office: JobHandle = client.start(Office, id=OFFICE, name=OFFICE)
    return office.started == "new"


def open_account(client: Client, name: str, pin: str, amount: int = 0, *, overdraft: int = 0) -> None:
    """Open an account under a name of our choice, with an amount paid in. Raises ValueError."""
    if not is_text(name) or name.isdigit() or not is_pin(pin):
        raise ValueError(
            f"account {name!r} cannot be opened; give a name that is not a number, and a pin of 4 to 12 digits"
        )
    if (amount and not is_amount(amount)) or not 0 <= overdraft <= MOST:
        raise ValueError(f"account {name!r} cannot be opened with {amount}; give 0 or an amount in range")
    if _start_account(client, name, key_of(name, pin), amount, overdraft) != "new":
        raise ValueError(f"account {name!r} exists already; choose another name")


class JobBank(Desk):
    """Answers requests by signals to the accounts' jobs; one that takes longer than `patience` is to be asked again."""

    def __init__(self, client: Client, *, patience: float = ANSWER_SECONDS) -> None:
        super().__init__()
        self._client = client
        self._patience = patience

    def _answer(self, request: Request) -> Reply:
        txn, order = request.txn, request.order
        try:
            check(txn, request.atm, request.at, order)
            if txn.startswith("."):  # as the ids that accounts use among themselves do
                raise BadRequest("a txn begins with no dot")
            return audit(self._client, txn) if isinstance(order, Audit) else self._carry_out(request)
        except BadRequest as error:
            return Error(txn if isinstance(txn, str) else "", str(error))
        except StoreUnavailable as error:
            _log.error("a request could not be taken (%s); its machine will ask again", error)
            return Declined(txn, Reason.UNAVAILABLE, None)

    def _carry_out(self, request: Request) -> Reply:
        order = request.order
        if isinstance(order, Open):
            answer = self._signal(OFFICE, request, replace(order, pin="-"))
            if isinstance(answer, Opened):  # perhaps once more: an account's id is taken once, too
                _start_account(self._client, answer.account, _key_apart(answer.account, order.pin))
        else:
            account: str = order.account  # type: ignore[union-attr]  # an Audit never comes here
            if isinstance(order, Balance | Withdraw | Transfer | Statement):
                order = replace(order, pin=_key_apart(account, order.pin))
            answer = self._signal(job_id_of(account), request, order) or self._signal(OFFICE, request, order)
        return answer or Declined(request.txn, Reason.UNAVAILABLE, None)

    def _signal(self, job_id: str, request: Request, order: Order) -> Reply | None:
        """Have a job answer, under the request's txn; None when there is no such job."""
        told = Instruction(request.atm, request.at, order)
        outcome: Outcome = self._client.signal(job_id, told, id=request.txn, timeout=self._patience)
        if outcome.status == "not_found":
            return None
        if outcome.status != "ok":
            _log.error("%s did not answer: %s %s", job_id, outcome.status, outcome.error or "")
            return Declined(request.txn, Reason.UNAVAILABLE, None)
        answer: Answer = outcome.value
        if answer.fingerprint != fingerprint_of(request.atm, order):
            return Declined(request.txn, Reason.TXN_CONFLICT, None)
        if answer.locked:
            self._tell_all(account_of(job_id))
        reply: Reply = answer.reply
        return reply


def audit(client: Client, txn: str = "") -> Books:
    """Add everything up, once no money is under way and nothing moves. Blocks. Raises BadRequest: that never came."""
    deadline = monotonic() + AUDIT_SECONDS
    jobs: list[Job] = []
    while monotonic() < deadline:
        before, jobs = jobs, list(_jobs_of_the_bank(client))
        accounts = [_data_of(job) for job in jobs if job.job_id != OFFICE]
        at_rest = not any(account["under_way"] for account in accounts)
        if at_rest and [job.version for job in jobs] == [job.version for job in before]:
            return _add_up(txn, accounts, [_data_of(job) for job in jobs])
        gevent.sleep(0.05)
    raise BadRequest(
        f"the bank was not at rest for {AUDIT_SECONDS:g} s; ask for the books when less is going on"
    )


def _add_up(txn: str, accounts: list[dict[str, Any]], everybody: list[dict[str, Any]]) -> Books:
    customers, cash = (sum(account[what] for account in accounts) for what in ("balance", "cash"))
    ok: Counter[str] = Counter()
    declined: Counter[str] = Counter()
    for data in everybody:
        ok.update(data["ok"])
        declined.update(data["declined"])
    faults = () if customers == cash else (f"the accounts hold {customers}, and {cash} was paid in",)
    return Books(txn, customers, cash, ok, declined, 0, faults)


def _jobs_of_the_bank(client: Client) -> Iterator[Job]:
    after = ""
    while page := client.jobs(after=after):
        after = page[-1].job_id
        yield from (job for job in page if job.job_id == OFFICE or job.job_id.startswith(job_id_of("")))


def _data_of(job: Job) -> dict[str, Any]:
    return split_data(job.data)[0]


def _start_account(client: Client, name: str, key: str, amount: int = 0, overdraft: int = 0) -> str:
    params = {"key": key, "balance": amount, "overdraft": overdraft}
    account: JobHandle = client.start(Account, params, id=job_id_of(name), name=job_name_of(name))
    return account.started


def key_of(account: str, pin: str) -> str:
    """Make a pin the key that an account knows. Takes milliseconds, so that a pin is not found by trying."""
    return hashlib.scrypt(pin.encode(), salt=account.encode(), n=COST, r=8, p=1, dklen=32).hex()


def _key_apart(account: str, pin: str) -> str:
    """The same on another thread, where it holds up nobody."""
    return gevent.get_hub().threadpool.apply(key_of, (account, pin))
