"""The dialogue at the machine, with a person and with a script; bad input is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import pytest

from examples.atm.atm import Atm, Drawer, Jammed
from examples.atm.bank import Bank
from examples.atm.ledger import Ledger
from examples.atm.messages import Balance, Reason, Request
from examples.atm.person import SENTENCES, Dialogue
from examples.atm.terminal import Terminal
from net.errors import PeerLost, PeerUnreachable
from tasklets import channel, run, tasklet

Event = Callable[[], object]


class Switchboard:
    """The line to the bank, that can be cut and mended."""

    def __init__(self, bank: channel) -> None:
        self.bank: channel = bank
        self.is_up = True

    def cut(self) -> None:
        self.is_up = False

    def mend(self) -> None:
        self.is_up = True

    def dial(self) -> Switchboard:
        if not self.is_up:
            raise PeerUnreachable("down")
        return self

    def send(self, request: Request, /) -> None:
        if not self.is_up:
            raise PeerLost("down")
        self.bank.send(request)


class Keyboard(Terminal):
    """A person or a script whose answers are known beforehand; between them, things may happen."""

    def __init__(self, *answers: str | Event, is_person: bool = True) -> None:
        self.is_person = is_person
        self.answers = iter(answers)
        self.said: list[str] = []

    def ask(self, question: str, *, secret: bool = False) -> str:
        for answer in self.answers:
            if isinstance(answer, str):
                return answer
            answer()
        raise EOFError

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def bank(ledger: Ledger) -> Iterator[channel]:
    requests = channel(copy=True)
    tasklet(Bank(ledger).serve)(requests)
    yield requests
    requests.close()
    run()


@pytest.fixture
def board(bank: channel) -> Switchboard:
    return Switchboard(bank)


@pytest.fixture
def atm(board: Switchboard) -> Atm:
    return Atm("atm-1", board.dial, patience=0.1)


def use(atm: Atm, *answers: str | Event) -> list[str]:
    """Let a person give these answers after logging in; return what the machine said after that."""
    keyboard = Keyboard("alice", "1111", *answers)
    Dialogue(atm, keyboard).run()
    assert keyboard.said[0] == "Balance: 100.00 EUR"
    assert keyboard.said[-1] == "Goodbye."
    return keyboard.said[1:-1]


def test_a_person_does_everything_there_is(atm: Atm) -> None:
    said = use(atm, "deposit", "20", "w", "50.5", "t", "bob", "9.50", "balance", "s", "quit")

    assert said[:4] == [
        "Taken in 20.00 EUR. Balance: 120.00 EUR",
        "Here are 50.50 EUR. Balance: 69.50 EUR",
        "Moved 9.50 EUR to bob. Balance: 60.00 EUR",
        "Balance: 60.00 EUR",
    ]
    assert [line.split()[2:4] for line in said[4:-1]] == [
        ["Deposit", "100.00"],
        ["Deposit", "20.00"],
        ["Withdraw", "-50.50"],
        ["Transfer", "-9.50"],
    ]


def test_the_end_of_the_input_is_a_goodbye(atm: Atm) -> None:
    assert use(atm) == []


def test_a_person_is_asked_again_for_an_amount(atm: Atm) -> None:
    assert use(atm, "withdraw", "ten", "1.234", "10") == [
        "'ten' is not an amount; type a number such as 20 or 12.50",
        "'1.234' is not an amount; type a number such as 20 or 12.50",
        "Here are 10.00 EUR. Balance: 90.00 EUR",
    ]


def test_a_person_is_asked_again_what_to_do(atm: Atm) -> None:
    said = use(atm, "dance", "", "balance")

    assert said[0].startswith("'dance' is not on offer; type one of balance, deposit,")
    assert said[2] == "Balance: 100.00 EUR"


def test_what_the_bank_declines_is_said_in_words(atm: Atm) -> None:
    assert use(atm, "withdraw", "100.01", "deposit", "-5", "transfer", "mallory|", "1") == [
        "Declined: there is not enough in the account",
        "Declined: amounts go from 0.01 EUR to 1 000 000.00 EUR",
        "Declined: there is no such account",
    ]


def test_every_reason_has_a_sentence() -> None:
    assert SENTENCES.keys() == set(Reason)


def test_a_person_with_a_wrong_pin_tries_again(atm: Atm) -> None:
    keyboard = Keyboard("alice", "9", "", "", "alice", "1111")

    Dialogue(atm, keyboard).run()

    assert keyboard.said[0] == "Declined: the pin is wrong"
    assert keyboard.said[1] == "The bank did not take it: account must be text of 1 to 200 characters"
    assert keyboard.said[2] == "Balance: 100.00 EUR"


def test_a_jam_is_said_and_booked_back(atm: Atm) -> None:  # ATM-04
    atm.drawer = Jamming()

    assert use(atm, "withdraw", "10", "balance") == ["the notes did not come out", "Balance: 100.00 EUR"]


class Jamming(Drawer):
    def pay_out(self, amount: int) -> None:
        raise Jammed("the notes did not come out")


def test_a_bank_away_is_one_line_and_the_person_goes_on(board: Switchboard, atm: Atm) -> None:  # ATM-09
    said = use(atm, board.cut, "withdraw", "10", board.mend, "balance", board.cut, "deposit", "5", board.mend)

    assert said == [
        # The first order broke the line while it was sent, the other found nobody to send it to.
        "the bank is away, no answer within 0.1 s (down); nothing was paid out; "
        "if it was booked, that is undone when the bank is back",
        "Balance: 100.00 EUR",
        "the bank is away, no answer within 0.1 s (down); your cash is kept and booked when the bank is back",
    ]


def test_who_logs_in_while_the_bank_is_away_is_asked_again(board: Switchboard, atm: Atm) -> None:  # ATM-09
    board.cut()
    keyboard = Keyboard("alice", "1111", board.mend, "alice", "1111")

    Dialogue(atm, keyboard).run()

    assert keyboard.said == [
        "the bank is away, no answer within 0.1 s (down); nothing was done; try again later",
        "Balance: 100.00 EUR",
        "Goodbye.",
    ]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["alice", "9999"], "Declined: the pin is wrong"),
        (["alice", "1111", "withdraw", "ten"], "'ten' is not an amount; type a number such as 20 or 12.50"),
        (["alice", "1111", "dance"], "'dance' is not on offer"),
    ],
)
def test_a_script_ends_with_one_line_at_its_first_mistake(atm: Atm, answers: list[str], error: str) -> None:
    with pytest.raises(click.ClickException) as raised:
        Dialogue(atm, Keyboard(*answers, is_person=False)).run()

    assert raised.value.message.startswith(error)
    assert "\n" not in raised.value.message


def test_a_script_goes_on_after_declined(atm: Atm) -> None:
    keyboard = Keyboard("alice", "1111", "withdraw", "1000", "withdraw", "10", is_person=False)

    Dialogue(atm, keyboard).run()

    assert keyboard.said[1:] == [
        "Declined: there is not enough in the account",
        "Here are 10.00 EUR. Balance: 90.00 EUR",
        "Goodbye.",
    ]


def test_who_leaves_while_the_bank_is_away_hears_what_is_open(board: Switchboard, atm: Atm) -> None:  # ATM-09
    keyboard = Keyboard("alice", "1111", board.cut, "deposit", "10", is_person=False)

    with pytest.raises(click.ClickException) as raised:
        Dialogue(atm, keyboard).run()

    assert (
        "your cash is kept and booked when the bank is back; but this machine ends now, with Deposit open"
        in raised.value.message
    )


def test_a_person_is_stopped_when_the_account_is_locked_elsewhere(bank: channel) -> None:  # ATM-10
    other = Atm("atm-2", lambda: bank)
    waiting = channel()

    class Slow(Keyboard):
        def ask(self, question: str, *, secret: bool = False) -> str:
            answer = next(self.answers)
            return waiting.receive() if callable(answer) else answer

    keyboard = Slow("alice", "1111", lambda: None)
    atm = Atm("atm-1", lambda: bank, on_frozen=lambda account: dialogue.on_frozen(account))
    dialogue = Dialogue(atm, keyboard)
    person = tasklet(dialogue.run)()
    run()
    for pin in ("0000", "0001", "0002"):
        other.ask(Balance("bob", pin))
    run()
    assert person.alive, "somebody else's account"
    for pin in ("0000", "0001", "0002"):
        other.ask(Balance("alice", pin))
    run()

    assert not person.alive
    assert keyboard.said[1:] == ["Account alice has just been locked by the bank; ask there.", "Goodbye."]
