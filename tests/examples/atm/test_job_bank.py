"""The bank as jobs, with two workers of which one is killed again and again; ATM-01..05, 07, 08, 10, 12, 14."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import Client, Signal
from cluster.testing import FAST, NodeProcess, Nodes, all_events, check_journal
from examples.atm.account_job import OFFICE, job_id_of
from examples.atm.atm import Atm, dial
from examples.atm.customers import BadLine, WornDrawer, serve_one
from examples.atm.job_bank import JobBank, audit, open_account, open_bank
from examples.atm.ledger import Ledger
from examples.atm.messages import (
    Balance,
    Declined,
    Deposit,
    Error,
    Extract,
    Ok,
    Open,
    Opened,
    Order,
    Reason,
    Reply,
    Request,
    Reverse,
    Statement,
    Transfer,
    Withdraw,
)
from tasklets import channel, sleep, tasklet
from tests.cluster.redis_server import RedisServer
from tests.examples.atm.conftest import NOON
from tests.examples.atm.processes import running

pytestmark = pytest.mark.real


@pytest.fixture
def full_size() -> bool:
    """Whether to repeat as often as the requirements say, and not as often as the suite has time for."""
    return os.environ.get("TASKLETS_FULL") == "1"


IMPORTS = ["examples.atm.account_job"]
FOREVER = 60.0  # seconds that a machine is patient here: on a busy machine the bank is slow, not wrong


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the accounts are."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis").url)
    return f"sqlite:///{tmp_path_factory.mktemp('bank')}/bank.db"


class Network:
    """A bank of jobs, two workers that do its work, and a desk in this process."""

    def __init__(self, store: str, nodes: Nodes) -> None:
        self.nodes = nodes
        self.client = Client(store, nodes.group, settings=nodes.settings)
        self.workers = [self.start_worker() for _ in range(2)]
        self.requests = channel(64, "requests to the bank", copy=True)
        self.bank = JobBank(self.client, patience=FOREVER)
        self.desk = tasklet(self.bank.serve)(self.requests)
        self.teller = self.atm("teller")

    def start_worker(self) -> Any:
        return self.nodes.worker("--no-heal", slots=2)

    def open(self, *names: str, amount: int = 0) -> None:
        for name in names:
            open_account(self.client, name, "1111", amount)

    def atm(self, name: str, **options: Any) -> Atm:
        return Atm(name, lambda: self.requests, patience=FOREVER, ask_again=FOREVER, **options)

    def ask(self, order: Order, *, txn: str | None = None, atm: str = "atm-1") -> Reply:
        """Hand one order in, under a new txn unless one is given."""
        if txn is None:
            return self.teller.ask(order)
        reply = channel(1, copy=True)
        self.requests.send(Request(txn, atm, NOON, order, reply))
        return reply.receive()  # type: ignore[no-any-return]

    def balance(self, name: str) -> int:
        reply = self.ask(Balance(name, "1111"))
        assert isinstance(reply, Ok)
        return reply.balance


@contextmanager
def open_network(store: str, group: str) -> Iterator[Network]:
    with Nodes(store, group, imports=IMPORTS, settings=FAST) as nodes:
        nodes.coordinator()
        network = Network(store, nodes)
        open_bank(network.client)
        yield network
        network.desk.kill()
        network.client.close()


@pytest.fixture(scope="module")
def network(store: str) -> Iterator[Network]:
    """One for all tests that kill nothing."""
    with open_network(store, "quiet") as network:
        yield network


@pytest.fixture
def own_network(store: str) -> Iterator[Network]:
    """One in which processes may be killed, and others started."""
    with open_network(store, "unlucky") as network:
        yield network


def test_orders_are_answered_as_the_ledger_answers_them(network: Network) -> None:  # ATM-01, 03, 04, 10
    network.open("alice", "bob", amount=100_00)

    assert network.ask(Deposit("alice", 500), txn="d") == Ok("d", 10_500)
    assert network.ask(Deposit("alice", 500), txn="d") == Ok("d", 10_500)
    assert network.ask(Deposit("alice", 501), txn="d") == Declined("d", Reason.TXN_CONFLICT, None)
    assert network.ask(Withdraw("alice", "1111", 10_501), txn="w") == Declined(
        "w", Reason.INSUFFICIENT_FUNDS, 10_500
    )
    assert network.ask(Withdraw("alice", "1111", 10_500), txn="all") == Ok("all", 0)
    assert network.ask(Reverse("alice", "all"), txn="other", atm="atm-2") == Declined(
        "other", Reason.UNKNOWN_TXN, None
    )
    assert network.ask(Reverse("alice", "all"), txn="back") == Ok("back", 10_500)
    assert network.ask(Reverse("alice", "all"), txn="twice") == Declined(
        "twice", Reason.ALREADY_REVERSED, None
    )
    for number, amount in enumerate((0, -5, 10**9)):
        assert network.ask(Deposit("alice", amount), txn=f"bad {number}") == Declined(
            f"bad {number}", Reason.BAD_AMOUNT, None
        )
    extract = network.ask(Statement("alice", "1111", None), txn="s")
    assert isinstance(extract, Extract)
    assert [(line.kind, line.amount) for line in extract.lines] == [
        ("Deposit", 500),
        ("Withdraw", -10_500),
        ("Reverse", 10_500),
    ]


def test_random_orders_get_the_answers_of_the_ledger(
    network: Network, ledger: Ledger, full_size: bool
) -> None:  # ATM-01..05, 08, 10
    """But for what a statement lists, where money that was put back shows, and the order of two reasons to decline."""
    dice = random.Random(3)
    names = ["rita", "rob", "n\u00e9|\u00e0\n"]
    for name in names:
        ledger.open_account(name, "1111", 100_00)
        network.open(name, amount=100_00)
    orders: list[Order] = []
    seen: set[str] = set()
    for number in range(600 if full_size else 100):
        if orders and dice.random() < 0.1:
            number = dice.randrange(len(orders))  # the same again
        else:
            orders.append(draw_order(dice, names, orders))
            number = len(orders) - 1
        txn, order = f"r{number}", orders[number]
        theirs = ledger.answer(txn, "atm-1", NOON, order)
        ours = network.ask(order, txn=txn)
        if isinstance(ours, Extract) and isinstance(theirs, Extract):
            assert ours.balance == theirs.balance
        else:
            assert ours == theirs, f"{number}: {order}"
        seen.add(f"{type(order).__name__} {ours.reason.value if isinstance(ours, Declined) else 'done'}")
    assert {"Deposit done", "Withdraw done", "Transfer done", "Reverse done", "Statement done"} <= seen
    assert {"Withdraw insufficient-funds", "Transfer unknown-account", "Reverse unknown-txn"} <= seen


def draw_order(dice: random.Random, names: list[str], before: list[Order]) -> Order:
    name, amount = dice.choice([*names, "nobody"]), dice.choice([-1, 0, 5, 70, 4000, 20_000, 10**9])
    pin = dice.choice(["1111"] * 29 + ["0000"])
    to = dice.choice([*names, "nobody"] if amount < 100 else names)
    withdrawals = [(name, "never")]
    withdrawals += [
        (one.account, f"r{number}") for number, one in enumerate(before) if isinstance(one, Withdraw)
    ]
    return dice.choice(
        [
            Deposit(name, amount),
            Withdraw(name, pin, amount),
            Transfer(name, pin, to, amount),
            Balance(name, pin),
            Statement(name, pin, None),
            Reverse(*dice.choice(withdrawals)),
        ]
    )


def test_transfers_move_money_once_or_not_at_all(network: Network) -> None:  # ATM-08
    network.open("tia", "tom", amount=100_00)
    network.open("full", amount=0)

    assert network.ask(Transfer("tia", "1111", "tom", 30_00), txn="t") == Ok("t", 70_00)
    assert network.ask(Transfer("tia", "1111", "tom", 30_00), txn="t") == Ok("t", 70_00)
    assert network.balance("tom") == 130_00
    assert network.ask(Transfer("tia", "1111", "tia", 5_00), txn="self") == Ok("self", 70_00)
    assert network.ask(Transfer("tia", "1111", "nobody", 5_00), txn="n") == Declined(
        "n", Reason.UNKNOWN_ACCOUNT, None
    )
    assert network.ask(Transfer("tia", "1111", "TOM", 5_00), txn="case") == Declined(
        "case", Reason.UNKNOWN_ACCOUNT, None
    )
    assert network.ask(Deposit("TIA", 5_00), txn="CASE") == Declined("CASE", Reason.UNKNOWN_ACCOUNT, None)
    network.client.signal("account tom", Signal("freeze"), timeout=FOREVER)
    assert network.ask(Transfer("tia", "1111", "tom", 5_00), txn="f") == Declined("f", Reason.FROZEN, None)
    assert network.balance("tia") == 70_00

    extract = network.ask(Statement("tia", "1111", None))
    assert isinstance(extract, Extract)
    assert [line.amount for line in extract.lines] == [-30_00, *[-5_00, 5_00] * 3], "put back three times"


def test_transfers_in_both_directions_at_once_end_and_conserve_money(network: Network) -> None:  # ATM-08
    network.open("there", "back", amount=100_00)
    replies = []
    for number in range(20):
        source, target = ("there", "back") if number % 2 else ("back", "there")
        reply = channel(1, copy=True)
        network.requests.send(
            Request(f"both {number}", "atm-1", NOON, Transfer(source, "1111", target, 7_00), reply)
        )
        replies.append(reply)

    assert {type(reply.receive()) for reply in replies} == {Ok}
    assert (network.balance("there"), network.balance("back")) == (100_00, 100_00)


def test_ten_machines_at_one_account_get_exactly_what_is_there(network: Network) -> None:  # ATM-07
    network.open("shared", amount=100_00)
    answers: list[Reply] = []

    def withdraw(number: int) -> None:
        answers.append(network.atm(f"atm-{number}").withdraw("shared", "1111", 20_00))

    waiting = [tasklet(withdraw)(number) for number in range(10)]
    while any(one.alive for one in waiting):
        sleep(0.01)

    assert sorted(answer.balance for answer in answers if isinstance(answer, Ok)) == [
        0,
        2000,
        4000,
        6000,
        8000,
    ]
    assert [one.reason for one in answers if isinstance(one, Declined)] == [Reason.INSUFFICIENT_FUNDS] * 5


def test_three_wrong_pins_lock_the_account_and_every_machine_hears_it(network: Network) -> None:  # ATM-10
    network.open("locked", amount=5_00)
    heard: list[str] = []
    network.atm("listener", on_frozen=heard.append).connect()

    for txn in ("1", "2", "3"):
        assert network.ask(Balance("locked", "0000"), txn=f"pin {txn}") == Declined(
            f"pin {txn}", Reason.WRONG_PIN, None
        )
    assert network.ask(Balance("locked", "1111"), txn="pin 4") == Declined("pin 4", Reason.LOCKED, None)
    while not heard:
        sleep(0.01)
    assert heard == ["locked"]


def test_accounts_are_opened_at_machines_under_names_of_the_banks(network: Network) -> None:  # ATM-02
    opened = [
        network.ask(Open(owner, "4711", "EUR"), txn=txn)
        for owner, txn in (("Ann | line\n", "o1"), ("Bob", "o2"), ("Ann | line\n", "o1"))
    ]

    first, second, again = opened
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert again == first
    assert first.account != second.account
    assert network.ask(Deposit(first.account, 5), txn="o3") == Ok("o3", 5)
    assert network.ask(Balance(first.account, "4711"), txn="o4") == Ok("o4", 5)
    assert network.ask(Deposit("nobody", 5), txn="o5") == Declined("o5", Reason.UNKNOWN_ACCOUNT, None)


def test_no_pin_is_in_the_store(network: Network) -> None:
    network.open("secret")
    network.ask(Balance("secret", "271828"))

    kept = [
        row for job in network.client.jobs(limit=1000) for row in (job.params, job.data, job.result or b"")
    ]
    if network.client.store.url.startswith("sqlite"):
        path = network.client.store.url.removeprefix("sqlite:///")
        kept += [file.read_bytes() for file in Path(path).parent.iterdir()]
    assert kept
    assert not any(b"271828" in row for row in kept)


@pytest.mark.parametrize("txn", ["", ".arriving t", "x" * 201])
def test_what_is_no_request_is_an_error_and_changes_nothing(network: Network, txn: str) -> None:  # ATM-12
    assert isinstance(network.ask(Deposit("alice", 5), txn=txn), Error)


# -- workers that are killed


@pytest.mark.timeout(300)
def test_killed_workers_lose_no_answer_double_no_effect_and_conserve_money(
    own_network: Network, full_size: bool
) -> None:  # ATM-05, 06, 14
    """Machines with lost answers, doubled requests and jams; a worker of the two is killed again and again."""
    network = own_network
    kills, transactions = (20, 100) if full_size else (4, 15)
    pins = dict.fromkeys(("amy", "ben", "cat"), "1111")
    network.open(*pins, amount=250_00)
    dice = random.Random(14)
    seen: list[tuple[Order, Reply]] = []

    def customers(atm: Atm, people: random.Random) -> None:
        for _ in range(transactions):
            serve_one(atm, people, pins)
        while atm.unsettled:
            atm.settle()

    machines = []
    for number in range(4):
        luck = random.Random(number)
        line = BadLine(network.requests, luck)
        machines.append(
            Atm(
                f"machine {number}",
                lambda line=line: line,
                WornDrawer(luck),
                on_answer=lambda order, reply: seen.append((order, reply)),
                patience=FOREVER,
                ask_again=1.0,
            )
        )
    working = [tasklet(customers)(atm, random.Random(atm.name)) for atm in machines]
    for _ in range(kills):
        goal = len(seen) + dice.randint(1, max(1, 4 * transactions // (kills + 1)))
        while len(seen) < goal and any(one.alive for one in working):
            sleep(0.01)
        sleep(dice.uniform(0, 0.05))  # anywhere in a turn, a post, a report
        unlucky = network.workers.pop(dice.randrange(2))
        unlucky.kill()
        network.workers.append(network.start_worker())
    while any(one.alive for one in working):
        sleep(0.05)

    books = audit(network.client)
    taken_in, paid_out = (
        sum(getattr(atm.drawer, what) for atm in machines) for what in ("taken_in", "paid_out")
    )
    assert books.faults == ()
    assert books.customers == 750_00 + taken_in - paid_out
    assert taken_in > 0 < paid_out
    check_journal(all_events(network.client.store))
    for order, reply in seen:  # each answer is what the bank has written under its txn
        assert not isinstance(reply, Error), order
        account: str = order.account  # type: ignore[union-attr]  # nobody opens an account here
        job_id = job_id_of(account) if account in pins else OFFICE
        written = network.client.reply(job_id, reply.txn)
        assert written is not None
        assert written.value.reply == reply


@pytest.mark.parametrize(
    ("point", "some"), [("worker-executed", 3), ("worker-before-finish", 2), ("worker-after-finish", 4)]
)
@pytest.mark.timeout(300)
def test_a_transfer_is_done_once_wherever_its_worker_is_killed(
    tmp_path: Path, point: str, some: int, full_size: bool
) -> None:  # ATM-08, 14
    """It takes five executions: two turns of one account, one of the other, two posts. Each is killed at this point."""
    store = f"sqlite:///{tmp_path}/bank.db"
    with Nodes(store, imports=IMPORTS, settings=FAST) as nodes, Client(store, settings=FAST) as client:
        open_bank(client)
        for name in ("from", "to"):
            open_account(client, name, "1111", 100_00)
        nodes.coordinator()
        desk = JobBank(client, patience=FOREVER)

        def answered(request: Request, *workers: NodeProcess) -> Reply:
            replies: list[Reply] = []
            asking = tasklet(lambda: replies.append(desk._answer(request)))()
            while asking.alive and all(worker.alive for worker in workers):
                sleep(0.01)
            asking.kill()
            return replies[0] if replies else None  # type: ignore[return-value]

        counts = range(1, 6) if full_size else (some,)
        for count in counts:
            healthy = nodes.worker("--no-heal", slots=1)
            assert isinstance(answered(request_of(f"b{count}", Balance("to", "1111"))), Ok)
            assert isinstance(answered(request_of(f"c{count}", Balance("from", "1111"))), Ok)
            healthy.kill()

            transfer = request_of(f"t{count}", Transfer("from", "1111", "to", 5_00))
            doomed = nodes.worker("--no-heal", slots=1, fail=f"{point}:{count}")
            while doomed.alive:
                answered(transfer, doomed)
            healthy = nodes.worker("--no-heal", slots=1)

            moved = 5_00 * (1 + list(counts).index(count))
            assert answered(transfer) == Ok(f"t{count}", 100_00 - moved)
            books = audit(client)
            assert (books.faults, books.customers) == ((), 200_00)
            assert answered(request_of(f"a{count}", Balance("to", "1111"))) == Ok(f"a{count}", 100_00 + moved)
            healthy.kill()
        check_journal(all_events(client.store))


def request_of(txn: str, order: Order) -> Request:
    return Request(txn, "atm-1", NOON, order, channel(1))


# -- the program


def test_a_desk_that_is_killed_is_replaced_and_the_books_balance(tmp_path: Path) -> None:  # ATM-05, 14
    store = f"sqlite:///{tmp_path}/bank.db"
    bank = ("examples.atm", "bank", "--jobs", store, "--listen")
    with Nodes(store, imports=IMPORTS, settings=FAST) as nodes, Client(store) as client:
        for _ in range(2):
            nodes.worker("--no-heal", slots=1)
        with running(*bank, "tcp://127.0.0.1:0", cwd=tmp_path) as desk:
            assert desk.wait_for_line("Opened account alice") == "with pin 1111 and 500.00 EUR."
            where = desk.wait_for_line("The bank listens at ").partition(";")[0]
            atm = Atm("atm-1", dial(where), patience=FOREVER, ask_again=1)
            request = atm._request(Transfer("alice", "1111", "carol", 7_00))
            assert atm._deliver(request) == Ok(request.txn, 493_00)
            desk.kill()
            desk.wait()
        with running(*bank, where.rpartition("/")[0], cwd=tmp_path) as desk:
            assert desk.wait_for_line("The bank listens at ").startswith(where)
            assert atm._deliver(request) == Ok(request.txn, 493_00)
            assert atm.ask(Balance("carol", "3333")).balance == 7_00  # type: ignore[union-attr]
        assert audit(client).customers == 750_00
