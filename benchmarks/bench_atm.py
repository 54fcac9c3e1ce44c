"""How much one bank does for 200 ATMs, beside a minimal bank that speaks HTTP and JSON.

    python benchmarks/bench_atm.py                 three rounds, about a minute and a half
    python benchmarks/bench_atm.py --rounds 5 --save

Every form is one process that keeps the books, and four processes with 50 ATMs each, over TCP on the loopback
interface. Each ATM asks, waits for the answer, and asks again: 40 % deposits, 40 % withdrawals, 20 % transfers,
each under a txn of its own, between a thousand accounts. All forms use the very same ledger, so they check the
same pins and write the same rows; what differs is how a request comes in, and how it gets to the disk:

    net        the ATM network: examples.atm.bank, its group commit, examples.atm.atm
    gunicorn   a WSGI application under gunicorn, one worker with 8 threads, one commit for each request
    sync       the same under gunicorn as it comes: a worker of the kind "sync", which closes each connection
    pywsgi     the same application under gevent's own server

An HTTP bank can have one worker only, as the books belong to one process. Its clients keep their connections where
the server does, as machines that ask all day would; with requests.post() for each order every bank is as slow as
"sync". On a busy machine look at the bank's CPU for each transaction rather than at rates.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple

from measuring import (
    ROOT,
    Missing,
    Target,
    machine,
    ratio,
    record_of,
    rotated,
    save,
    show_targets,
    spread,
    write_json,
)

FORMS = (
    "net NORMAL",
    "net FULL",
    "gunicorn NORMAL",
    "gunicorn FULL",
    "sync NORMAL",
    "pywsgi NORMAL",
    "pywsgi FULL",
)
PROCESSES = 4
ACCOUNTS = 1000
PIN = "1111"
WARM_SECONDS = 0.5
KINDS = ("Deposit", "Withdraw", "Transfer")


class Figures(NamedTuple):
    """What one measurement gave."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the bank's process, for each transaction


# ------------------------------------------------------------------------------------ the banks, a process each


def open_bench_ledger(where: str, level: Any) -> Any:
    from examples.atm.ledger import open_ledger
    from examples.atm.messages import Balance

    # Pins that hash quickly, and were asked for once: every bank remembers them, and that is not what is measured here.
    opened = open_ledger(where, synchronous=level, pin_cost=16)
    ledger = opened.__enter__()  # open for as long as the process lives
    ledger.database.execute(
        "PRAGMA synchronous = OFF"
    )  # the disk is waited for when it is measured, not before
    for number in range(ACCOUNTS):
        ledger.open_account(f"a{number}", PIN, 10_000)
        ledger.answer(f"warm {number}", "the bank", datetime.now(UTC), Balance(f"a{number}", PIN))
    ledger.database.execute(f"PRAGMA synchronous = {level}")
    return opened, ledger


def be_net_bank(where: str, level: str) -> None:
    import net
    from examples.atm.bank import Bank
    from tasklets import channel

    _opened, ledger = open_bench_ledger(where, level)
    requests = channel(1024, "requests to the bank", copy=True)
    with net.serve("tcp://127.0.0.1:0", bank=requests) as server:
        print(server.url("bank"), flush=True)
        Bank(ledger).serve(requests)


def make_application(ledger: Any) -> Any:
    """Make the WSGI application: one JSON object in, one out."""
    import threading

    from examples.atm import messages

    lock = threading.Lock()
    ledger.database.execute(
        "PRAGMA wal_autocheckpoint = 1000"
    )  # as SQLite does unless told not to; net does it itself

    def application(environ: Any, start_response: Any) -> list[bytes]:
        asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        order = getattr(messages, asked["kind"])(**asked["order"])
        with lock:
            reply = ledger.answer(asked["txn"], asked["atm"], datetime.fromisoformat(asked["at"]), order)
        reason = getattr(reply, "reason", None)
        said = {"txn": reply.txn, "balance": reply.balance, "reason": reason and reason.value}
        body = json.dumps(said).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def be_gunicorn(where: str, level: str, worker: str = "gthread") -> None:
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):
        def load_config(self) -> None:
            self.cfg.set("bind", "127.0.0.1:0")
            self.cfg.set("worker_class", worker)
            if worker == "gthread":
                self.cfg.set("threads", 8)
                self.cfg.set("keepalive", 60)
            self.cfg.set("worker_connections", 1000)
            self.cfg.set("loglevel", "error")
            self.cfg.set(
                "when_ready", lambda arbiter: setattr(self, "port", arbiter.LISTENERS[0].getsockname()[1])
            )
            self.cfg.set("post_worker_init", lambda worker: print(f"{self.port} {os.getpid()}", flush=True))

        def load(self) -> Any:  # in the worker: SQLite does not survive a fork
            self.opened, ledger = open_bench_ledger(where, level)
            return make_application(ledger)

    Server().run()


def be_sync_gunicorn(where: str, level: str) -> None:
    be_gunicorn(where, level, "sync")


def be_pywsgi(where: str, level: str) -> None:
    from gevent.pywsgi import WSGIServer

    _opened, ledger = open_bench_ledger(where, level)
    server = WSGIServer(("127.0.0.1", 0), make_application(ledger), log=None, backlog=1000)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


# ------------------------------------------------------------------------------- fifty ATMs, a process of them


def draw_order(dice: random.Random) -> tuple[str, dict[str, Any]]:
    kind = dice.choices(KINDS, [40, 40, 20])[0]
    order: dict[str, Any] = {"account": f"a{dice.randrange(ACCOUNTS)}", "amount": 5}
    if kind != "Deposit":
        order["pin"] = PIN
    if kind == "Transfer":
        order["to"] = f"a{dice.randrange(ACCOUNTS)}"
    return kind, order


def be_net_atms(url: str, atms: int, seconds: float, seed: str) -> list[float]:
    from examples.atm import messages
    from examples.atm.atm import Atm, dial
    from tasklets import channel, tasklet

    took: list[float] = []
    done = channel(atms)

    def work(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        atm = Atm(f"atm-{seed}-{number}", dial(url), patience=60, ask_again=30)
        atm.connect()
        begin = monotonic() + WARM_SECONDS
        while (asked := monotonic()) < begin + seconds:
            kind, order = draw_order(dice)
            atm.ask(getattr(messages, kind)(**order))
            answered = monotonic()
            if begin <= answered < begin + seconds:
                took.append(answered - asked)
        done.send(None)

    for number in range(atms):
        tasklet(work)(number)
    for _ in range(atms):
        done.receive()
    return took


def be_http_atms(port: str, atms: int, seconds: float, seed: str) -> list[float]:
    from gevent import monkey

    monkey.patch_all()
    import http.client

    import gevent

    from examples.atm.atm import make_txn

    took: list[float] = []

    def work(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        line = http.client.HTTPConnection(
            "127.0.0.1", int(port)
        )  # connects, with TCP_NODELAY, whenever it has to
        begin = monotonic() + WARM_SECONDS
        while (asked := monotonic()) < begin + seconds:
            kind, order = draw_order(dice)
            at = datetime.now(UTC).isoformat()
            request = {
                "txn": make_txn(),
                "atm": f"atm-{seed}-{number}",
                "at": at,
                "kind": kind,
                "order": order,
            }
            line.request("POST", "/", json.dumps(request))
            json.loads(line.getresponse().read())
            answered = monotonic()
            if begin <= answered < begin + seconds:
                took.append(answered - asked)

    gevent.joinall([gevent.spawn(work, number) for number in range(atms)], raise_error=True)
    return took


BANKS = {"net": be_net_bank, "gunicorn": be_gunicorn, "sync": be_sync_gunicorn, "pywsgi": be_pywsgi}
ATMS = {"net": be_net_atms, "gunicorn": be_http_atms, "sync": be_http_atms, "pywsgi": be_http_atms}


# --------------------------------------------------------------------------------------------- one measurement


def measure(form: str, atms: int, seconds: float) -> Figures:
    """Start a bank and its ATMs, and let them work for `seconds`. Raises Missing."""
    kind, level = form.split()
    with TemporaryDirectory(prefix="bench-atm-") as folder:
        bank = start("--bank", kind, "--where", f"{folder}/bank.sqlite", "--level", level)
        try:
            assert bank.stdout is not None
            said = bank.stdout.readline().split()
            if not said or said[0] == "missing":
                raise Missing(" ".join(said[1:]) or f"{kind} did not start, see above")
            where, pid = said[0], int(said[-1]) if len(said) > 1 else bank.pid
            share = [atms // PROCESSES + (number < atms % PROCESSES) for number in range(PROCESSES)]
            before = cpu_seconds(pid)
            crews = [
                start(
                    "--atms-of",
                    kind,
                    "--where",
                    where,
                    "--atms",
                    str(count),
                    "--seconds",
                    str(seconds),
                    "--seed",
                    str(number),
                )
                for number, count in enumerate(share)
                if count
            ]
            each = [json.loads(crew.communicate()[0]) for crew in crews]
            spent = cpu_seconds(pid) - before
        finally:
            bank.terminate()
            bank.communicate()
    took = sorted(one for crew in each for one in crew)
    if not took:
        raise Missing(f"nothing was answered within {seconds:g} s; give more with --seconds")
    # What is done before and after the window costs the bank too.
    work = len(took) * (seconds + WARM_SECONDS) / seconds
    return Figures(
        len(took) / seconds,
        took[len(took) // 2] * 1e3,
        took[len(took) * 99 // 100] * 1e3,
        spent / work * 1e6,
    )


def start(*arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def cpu_seconds(pid: int) -> float:
    """How much the process has computed so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------------- all of them, in rounds


def run_rounds(
    forms: list[str], rounds: int, atms: int, seconds: float
) -> tuple[dict[str, list[Figures]], dict[str, str]]:
    """Measure every form in each round; return the figures, and why some could not be measured."""
    figures: dict[str, list[Figures]] = {form: [] for form in forms}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for form in rotated(forms, number):
            if form in missing:
                continue
            try:
                one = measure(form, atms, seconds)
            except Missing as reason:
                missing[form] = str(reason)
                continue
            figures[form].append(one)
            print(f"  round {number + 1} of {rounds}: {form:16} {one.per_second:7.0f}/s", file=sys.stderr)
    return {form: each for form, each in figures.items() if each}, missing


def judge(figures: dict[str, list[Figures]]) -> list[Target]:
    """Compare with what is promised."""

    def rate(form: str) -> list[float]:
        return [one.per_second for one in figures.get(form, [])]

    ours = rate("net NORMAL")

    def cost(form: str) -> list[float]:
        return [one.cpu_us for one in figures.get(form, [])]

    return [
        Target("net NORMAL, transactions/s", statistics.median(ours) if ours else None, 2000, True),
        Target("net NORMAL against gunicorn NORMAL", ratio(ours, rate("gunicorn NORMAL")), 5.0, True),
        Target("net NORMAL against sync NORMAL", ratio(ours, rate("sync NORMAL")), 5.0, True),
        Target(
            "CPU of the banks, gunicorn NORMAL against net NORMAL",
            ratio(cost("gunicorn NORMAL"), cost("net NORMAL")),
            5.0,
            True,
        ),
        Target("net FULL against gunicorn FULL", ratio(rate("net FULL"), rate("gunicorn FULL")), 5.0, True),
    ]


def show(figures: dict[str, list[Figures]], missing: dict[str, str], targets: list[Target]) -> None:
    """Print the medians, and the ratios."""
    print(f"{'form':16} {'tx/s':>8} {'p50':>9} {'p99':>9} {'bank CPU':>10}   tx/s, least to most")
    for form, each in figures.items():
        rate, p50, p99, cpu = (statistics.median(column) for column in zip(*each, strict=True))
        span = f"{min(one.per_second for one in each):.0f} .. {max(one.per_second for one in each):.0f}"
        print(f"{form:16} {rate:8.0f} {p50:6.1f} ms {p99:6.1f} ms {cpu:7.0f} us   {span}")
    for form, reason in missing.items():
        print(f"not measured: {form}: {reason}")
    show_targets(targets)


def main() -> None:
    """Read the options, measure, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each form is measured (default 3)")
    parser.add_argument("--atms", type=int, default=200, help="machines (default 200)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a measurement (default 3)")
    parser.add_argument(
        "--only", action="append", choices=sorted(BANKS), help="measure these; may be repeated"
    )
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    for hidden in ("--bank", "--atms-of", "--where", "--level", "--seed"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bank:
        try:
            BANKS[options.bank](options.where, options.level)
        except ImportError as error:
            print("missing", error, flush=True)
        return
    if options.atms_of:
        print(json.dumps(ATMS[options.atms_of](options.where, options.atms, options.seconds, options.seed)))
        return
    if options.rounds < 1 or options.atms < 1 or options.seconds <= 0:
        parser.error("nothing is measured so; give at least 1 round, 1 ATM and some seconds")
    forms = [form for form in FORMS if not options.only or form.split()[0] in options.only]
    figures, missing = run_rounds(forms, options.rounds, options.atms, options.seconds)
    targets = judge(figures)
    show(figures, missing, targets)
    record = {
        "atms": options.atms,
        "machine": machine(),
        "forms": {
            form: {name: spread([getattr(one, name) for one in each]) for name in Figures._fields}
            for form, each in figures.items()
        },
        "missing": missing,
        "targets": record_of(targets),
    }
    if options.save:
        print(f"saved: {save(record, 'atm').relative_to(ROOT)}")
    if options.json:
        write_json(record, options.json)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
