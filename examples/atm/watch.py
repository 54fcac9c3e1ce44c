"""A page that shows the network while it works, served by the bank's own process: no build, nothing to install.

    watch = Watch(ledger)
    bank = Bank(ledger, watch.arrived, watch.answered)
    with watch.serve("127.0.0.1:8080", bank): ...

A browser gets what happened every TICK_SECONDS, as server-sent events: totals always, single orders up to MOST_SHOWN.
A slow or hanging browser costs its own connection's memory and nothing else. Pins and accounts are not shown.
"""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer

from examples.atm.bank import Bank
from examples.atm.ledger import Ledger
from examples.atm.messages import Deposit, Error, Ok, Reason, Reply, Request, Reverse, Withdraw
from examples.atm.money import format_amount
from net.addresses import TcpAddress, parse_address

TICK_SECONDS = 0.2
MOST_SHOWN = 40  # single orders in a tick
SEEN_SECONDS = 60.0  # a machine that was not heard for longer is not drawn any more
MOST_DRAWN = 400
MOST_WATCHERS = 50
REMEMBERED = 10_000  # txns
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
PAGE = Path(__file__).with_name("watch.html")
HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'self' 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
]


class CannotServe(Exception):
    """The page's address cannot be used; the message says why and what to do."""


class Watch:
    """Counts what passes the bank, and tells browsers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._held = ledger.books().customers
        self._began: dict[str, float] = {}  # txn -> when it arrived
        self._seen: dict[str, float] = {}  # machine -> when it was last heard
        self._outcomes: Counter[str] = Counter()
        self._paid: Counter[str] = Counter()  # in, out, reversed
        self._added: OrderedDict[str, None] = (
            OrderedDict()
        )  # txns in there: one that comes again moves nothing
        self._latest: deque[tuple[int, dict[str, Any]]] = deque(
            maxlen=MOST_SHOWN * 10
        )  # number of the answer, answer
        self._answered = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=11)  # when, answered until then
        self.watchers = 0

    # -- what the bank calls

    def arrived(self, request: Request) -> None:
        """Note that a request has come."""
        if len(self._began) < REMEMBERED and isinstance(request.txn, str):
            self._began[request.txn] = monotonic()

    def answered(self, request: Request, reply: Reply) -> None:
        """Note what it was answered."""
        now = monotonic()
        began = self._began.pop(reply.txn, now)
        outcome = "error" if isinstance(reply, Error) else getattr(reply, "reason", None) or "ok"
        outcome = outcome.value if isinstance(outcome, Reason) else outcome
        self._answered += 1
        self._outcomes[outcome] += 1
        if isinstance(request.atm, str):
            self._seen.pop(request.atm, None)
            self._seen[request.atm] = now  # the newest last
        if isinstance(reply, Ok) and reply.txn not in self._added:
            self._add_up(request, reply)
        shown = {
            "atm": str(request.atm)[:40],
            "kind": type(request.order).__name__,
            "outcome": outcome,
            "ok": outcome == "ok",
            "ms": round(1e3 * (now - began), 1),
        }
        self._latest.append((self._answered, shown))

    def _add_up(self, request: Request, reply: Ok) -> None:
        self._added[reply.txn] = None
        if len(self._added) > REMEMBERED:
            self._added.popitem(last=False)
        match request.order:
            case Deposit(amount=amount):
                self._paid["in"] += amount
            case Withdraw(amount=amount):
                self._paid["out"] += amount
            case Reverse():
                self._paid["reversed"] += 1

    # -- what browsers ask

    @contextmanager
    def serve(self, address: str, bank: Bank, *, insecure: bool = False) -> Iterator[str]:
        """Serve the page at "HOST:PORT" while the block runs; yields its URL. Raises CannotServe, BadAddress."""
        where = parse_address(f"tcp://{address}")
        if not isinstance(where, TcpAddress) or not (where.is_loopback or insecure):
            raise CannotServe(
                f"{address} can be reached from other machines, and whoever reaches the page can watch;"
                " use 127.0.0.1, or allow it with --insecure"
            )
        self._bank = bank
        self._insecure = insecure
        try:
            server = WSGIServer((where.host, where.port), self._application, log=None, error_log=None)
            server.start()
        except OSError as error:
            raise CannotServe(
                f"cannot serve the page at {address} ({error.strerror}); give another port, 0 takes a free one"
            ) from error
        counting = gevent.spawn(self._count)
        try:
            yield f"http://{address.rpartition(':')[0]}:{server.server_port}/"
        finally:
            counting.kill()
            server.stop(timeout=0)

    def _application(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        asked_for = environ.get("HTTP_HOST", "").rpartition(":")[0]
        if not self._insecure and asked_for not in LOCAL_NAMES:
            # A page elsewhere may give its own name our address, and would then be allowed to read what we answer.
            return _answer(
                start_response, "403 Forbidden", "text/plain", b"ask for it as 127.0.0.1 or localhost\n"
            )
        if environ["REQUEST_METHOD"] != "GET":
            return _answer(
                start_response, "405 Method Not Allowed", "text/plain", b"this page is only to be looked at\n"
            )
        if path == "/":
            return _answer(start_response, "200 OK", "text/html; charset=utf-8", PAGE.read_bytes())
        if path == "/events":
            if self.watchers >= MOST_WATCHERS:
                text = b"enough others are watching; close one of the pages\n"
                return _answer(start_response, "503 Service Unavailable", "text/plain", text)
            start_response("200 OK", [("Content-Type", "text/event-stream"), *HEADERS])
            return self._events()
        return _answer(start_response, "404 Not Found", "text/plain", b"there is only / here\n")

    def _events(self) -> Iterator[bytes]:
        self.watchers += 1
        try:
            last = self._answered
            while True:
                news = self.news(last)
                last = self._answered
                yield f"data: {json.dumps(news)}\n\n".encode()
                gevent.sleep(TICK_SECONDS)
        finally:
            self.watchers -= 1

    def news(self, last: int) -> dict[str, Any]:
        """Return what a page shows, with the orders answered since the `last` that it has seen."""
        now = monotonic()
        for name in [name for name, seen in self._seen.items() if now - seen > SEEN_SECONDS]:
            del self._seen[name]
        orders = [shown for number, shown in self._latest if number > last]
        return {
            "machines": sorted({name[:40] for name in list(self._seen)[-MOST_DRAWN:]}, key=_naturally),
            "orders": orders[-MOST_SHOWN:],
            "rate": self._rate(),
            "totals": self._totals(),
        }

    def _totals(self) -> list[list[str]]:
        return [
            ["machines attached", str(len(self._bank.attached))],
            ["orders answered", str(self._answered)],
            *([name, str(count)] for name, count in sorted(self._outcomes.items())),
            ["cash taken in", format_amount(self._paid["in"])],
            ["cash paid out", format_amount(self._paid["out"])],
            ["withdrawals booked back", str(self._paid["reversed"])],
            ["held when the bank opened", format_amount(self._held)],
        ]

    def _rate(self) -> int:
        if len(self._rates) < 2:
            return 0
        (began, first), (ended, last) = self._rates[0], self._rates[-1]
        return round((last - first) / max(ended - began, 1e-9))

    def _count(self) -> None:
        while True:
            self._rates.append((monotonic(), self._answered))
            gevent.sleep(TICK_SECONDS)


def _answer(start_response: Any, status: str, kind: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *HEADERS])
    return [body]


def _naturally(name: str) -> list[tuple[int, str]]:
    """Sort atm-2 before atm-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
