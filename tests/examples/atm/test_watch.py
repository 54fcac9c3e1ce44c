"""The page that shows the network: what it is told, who may look, and what a real browser makes of it (ATM-10)."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from examples.atm.atm import Atm, dial
from examples.atm.bank import Bank
from examples.atm.ledger import Ledger
from examples.atm.messages import Declined, Deposit, Error, Ok, Order, Reason, Reply, Request, Withdraw
from examples.atm.watch import MOST_SHOWN, CannotServe, Watch
from tasklets import channel
from tests.examples.atm.browser import open_browser
from tests.examples.atm.conftest import NOON
from tests.examples.atm.processes import run, running
from tests.machine import here


def pass_by(watch: Watch, order: Order, reply: Reply, atm: Any = "atm-1") -> None:
    request = Request(reply.txn, atm, NOON, order, channel(1))
    watch.arrived(request)
    watch.answered(request, reply)


@pytest.fixture
def watch(ledger: Ledger) -> Watch:
    watch = Watch(ledger)
    watch._bank = Bank(ledger)
    return watch


def totals(watch: Watch) -> dict[str, str]:
    return dict(watch.news(0)["totals"])


def test_orders_are_told_once_with_their_outcome(watch: Watch) -> None:
    pass_by(watch, Deposit("alice", 500), Ok("a", 10500))
    pass_by(watch, Withdraw("alice", "0000", 5), Declined("b", Reason.WRONG_PIN, None), "atm-2")
    pass_by(watch, Deposit("alice", 5), Error("c", "nonsense"), "atm-10")
    first, later = watch.news(0), watch.news(3)

    assert [(order["atm"], order["kind"], order["outcome"], order["ok"]) for order in first["orders"]] == [
        ("atm-1", "Deposit", "ok", True),
        ("atm-2", "Withdraw", "wrong-pin", False),
        ("atm-10", "Deposit", "error", False),
    ]
    assert first["machines"] == ["atm-1", "atm-2", "atm-10"]
    assert later["orders"] == []
    assert totals(watch)["orders answered"] == "3"


def test_a_repeated_answer_is_counted_and_its_money_is_not(watch: Watch) -> None:
    for _ in range(3):
        pass_by(watch, Deposit("alice", 500), Ok("a", 10500))
        pass_by(watch, Withdraw("alice", "1111", 300), Ok("b", 10200))

    assert totals(watch)["cash taken in"] == "5.00 EUR"
    assert totals(watch)["cash paid out"] == "3.00 EUR"
    assert totals(watch)["ok"] == "6"


def test_a_busy_tick_tells_some_and_nothing_grows(watch: Watch) -> None:
    for number in range(20_000):
        pass_by(watch, Deposit("alice", 1), Ok(f"t{number}", 1), f"atm-{number}")
    news = watch.news(0)

    assert len(news["orders"]) == MOST_SHOWN
    assert len(news["machines"]) <= 400
    assert len(watch._added) <= 10_000
    assert watch._began == {}


def test_pins_and_accounts_are_not_told(watch: Watch) -> None:
    pass_by(watch, Withdraw("alice", "918273", 5), Ok("a", 1))

    assert "918273" not in str(watch.news(0))
    assert "alice" not in str(watch.news(0))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:80"])
def test_the_page_is_for_this_machine_unless_allowed(ledger: Ledger, address: str) -> None:
    with pytest.raises(CannotServe, match="whoever reaches the page can watch"):
        Watch(ledger).serve(address, Bank(ledger)).__enter__()


@pytest.mark.real
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:99999", "unix:///tmp/x"])
def test_a_senseless_address_is_one_line(tmp_path: Path, address: str) -> None:
    code, _, notes = run("watch", "--http", address, "--listen", "tcp://127.0.0.1:0", cwd=tmp_path)

    assert code == 1
    assert notes.startswith("error: ")
    assert len(notes.splitlines()) == 1


# -- the program, and a browser


def fetch(url: str, method: str = "GET", host: str | None = None) -> int:
    request = urllib.request.Request(url, method=method, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_until(browser: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    return WebDriverWait(browser, 20, 0.05).until(condition)


def text_of(browser: Chrome, css: str) -> str:
    return browser.find_element("css selector", css).text


@pytest.mark.real
@pytest.mark.timeout(120)
def test_a_browser_sees_machines_orders_and_totals(tmp_path: Path) -> None:
    arguments = ("watch", "--http", "127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--atms", "6")
    with running("examples.atm", *arguments, cwd=tmp_path) as bank:
        bank_url = bank.wait_for_line("The bank listens at ").rstrip(".")
        page = bank.wait_for_line("Watch it at ").partition(" ")[0]
        assert fetch(page) == 200
        assert fetch(page + "nothing") == 404
        assert fetch(page, "POST") == 405
        assert fetch(page, host="evil.example:80") == 403

        strange = "<b>é|\U0001f4b0</b>"
        atm = Atm(strange, dial(bank_url), on_frozen=lambda account: None)
        with open_browser(tmp_path / "profile") as browser:
            browser.get(page)
            wait_until(browser, lambda b: re.match(r"[1-9][0-9]* machines, ", text_of(b, "#state")))
            wait_until(browser, lambda b: len(b.find_elements("css selector", "[data-atm]")) == 6)
            wait_until(browser, lambda b: b.find_elements("css selector", ".dot"))  # an order travels

            assert isinstance(atm.deposit("alice", 12345), Ok)
            wait_until(browser, lambda b: strange in text_of(b, "#latest"))
            assert browser.find_elements("css selector", "#latest b, #map b") == [], (
                "a name is text, not a page"
            )
            wait_until(browser, lambda b: b.find_elements("css selector", ".dot.ok"))
            wait_until(browser, lambda b: "machines attached 7" in text_of(b, "#totals"))
            answered = re.search(r"orders answered (\d+)", text_of(browser, "#totals"))
            assert answered
            assert int(answered[1]) > 1
            severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
            assert [entry for entry in severe if "favicon" not in entry["message"]] == []

            code, _, seconds = bank.interrupt(signal.SIGINT)
            assert code == 130
            assert seconds < here(2), "an open page does not hold the bank up"
            wait_until(browser, lambda b: "the bank is away" in text_of(b, "#state"))
        assert bank.survivors() == []
