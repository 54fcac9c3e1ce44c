"""The commands `tasklets cluster ...`."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

import click

from cluster import _decide
from cluster.errors import ClusterError
from cluster.settings import Settings, explain_settings, read_settings
from net import values
from tasklets import TaskletError

DEFAULT_STORE = "sqlite:///cluster.db"
SIGINT_EXIT = 130


class _Command(click.Command):
    """A command whose failures are one line for the person who typed it."""

    def invoke(self, context: click.Context) -> Any:
        level = logging.DEBUG if context.params.pop("debug", False) else logging.WARNING
        if context.info_name in ("worker", "coordinator") and level != logging.DEBUG:
            level = logging.INFO
        logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s")
        try:
            return super().invoke(context)
        except TaskletError as error:
            if level == logging.DEBUG:
                raise
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            sys.exit(SIGINT_EXIT)
        except BrokenPipeError:  # `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


class _Group(click.Group):
    command_class = _Command


_store = click.option(
    "--store",
    envvar="CLUSTER_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URL",
    help='Where the group\'s state is: "sqlite:///FILE" or "redis://HOST:PORT/DB". Also CLUSTER_STORE.',
)
_group = click.option(
    "--group",
    envvar="CLUSTER_GROUP",
    default="default",
    show_default=True,
    help="Which group. Also CLUSTER_GROUP.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
_debug = click.option("--debug", is_flag=True, help="Show tracebacks and what goes on inside.")
_watch = click.option(
    "--watch",
    type=float,
    is_flag=False,
    flag_value=1.0,
    metavar="SECONDS",
    help="Show it again every second, or so.",
)
_set = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting, such as heartbeat=0.5; see: tasklets cluster config.",
)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    return _store(_group(_debug(command)))


def _settings(sets: tuple[str, ...]) -> Settings:
    pairs = {}
    for one in sets:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--set {one}: write --set NAME=VALUE, such as --set heartbeat=0.5")
        pairs[name] = value
    return read_settings(pairs)


@contextmanager
def _client(store: str, group: str) -> Iterator[Any]:
    from cluster.client import Client

    client = Client(store, group, settings=read_settings())
    try:
        yield client
    finally:
        client.close()


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=None, default=str, ensure_ascii=False))


def _again(watch: float | None, show: Callable[[], None]) -> None:
    while True:
        if watch:
            click.clear()
        show()
        if not watch:
            return
        time.sleep(watch)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Tasks that finish although processes die.

    \b
    In a folder with a module myops.py that has @operation functions:
        tasklets cluster up --import myops          start a coordinator and workers, and come back
        tasklets cluster submit myops:fib 30 --wait
        tasklets cluster status
        tasklets cluster down
    """


# ------------------------------------------------------------------------------------------------ nodes

_imports = click.option(
    "--import", "imports", multiple=True, metavar="MODULE", help="A module with operations."
)
_queues = click.option(
    "--queue",
    "queues",
    multiple=True,
    default=("default",),
    metavar="NAME[=WEIGHT]",
    help="A queue to serve; several may be.",
)
_slots = click.option(
    "--slots", type=click.IntRange(1), help="Tasks at a time; the number of cores if not said."
)


@cluster.command()
@_store
@click.option(
    "--group", "groups", multiple=True, envvar="CLUSTER_GROUP", help="A group to join; several may be."
)
@_imports
@_queues
@_slots
@click.option("--label", "labels", multiple=True, help="Something to be known by.")
@click.option("--name", help="How it is called in the group.")
@click.option(
    "--prefetch",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Tasks claimed beyond the free slots.",
)
@click.option("--spawn-id", default="", hidden=True)
@click.option("--heal/--no-heal", default=True, help="Start a coordinator when there is none.")
@_set
@_debug
def worker(
    store: str,
    groups: tuple[str, ...],
    imports: tuple[str, ...],
    queues: tuple[str, ...],
    slots: int | None,
    labels: tuple[str, ...],
    name: str | None,
    prefetch: int,
    spawn_id: str,
    heal: bool,
    sets: tuple[str, ...],
) -> None:
    """Run a worker until SIGTERM or Ctrl-C, which let it finish what it runs; a second one ends it at once."""
    from cluster.healing import Healer
    from cluster.stores import open_store
    from cluster.worker import Worker, run_workers

    settings = _settings(sets)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    weights = {}
    for queue in queues:
        title, _, weight = queue.partition("=")
        weights[title] = int(weight or 1)
    workers = []
    for group in groups or ("default",):
        handle = open_store(store, group, patience=settings.store_patience)
        chosen = name or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(2).hex()}"
        made = Worker(
            handle,
            imports=imports,
            slots=slots,
            queues=weights,
            labels=labels,
            name=chosen,
            spawn_id=spawn_id,
            prefetch=prefetch,
            dispatch=handle.get("dispatch") or "pull",
            settings=settings,
            healer=Healer(handle, settings, chosen) if heal else None,
        )
        workers.append(made)
    run_workers(workers)


@cluster.command()
@_store
@click.option(
    "--group", "groups", multiple=True, envvar="CLUSTER_GROUP", help="A group to look after; several may be."
)
@click.option("--name", help="How it is called in the group.")
@click.option("--spawn-id", default="", hidden=True)
@_set
@_debug
def coordinator(
    store: str, groups: tuple[str, ...], name: str | None, spawn_id: str, sets: tuple[str, ...]
) -> None:
    """Run a coordinator until SIGTERM or Ctrl-C. Any number may run; one leads each group, the others stand by."""
    import gevent

    from cluster.coordinator import Coordinator

    settings = _settings(sets)
    nodes = [
        Coordinator(store, group, name=name, spawn_id=spawn_id, settings=settings)
        for group in groups or ("default",)
    ]

    def stop() -> None:
        for node in nodes:
            node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    gevent.joinall([gevent.spawn(node.run) for node in nodes], raise_error=True)


@cluster.command()
@_common
@_imports
@_queues
@_slots
@click.option(
    "--min", "least", type=click.IntRange(0), default=1, show_default=True, help="Workers at least."
)
@click.option(
    "--max", "most", type=click.IntRange(1), help="Workers at most; as many as at least if not said."
)
@click.option("--host", default="", help="Start the workers there, by ssh; this machine if not said.")
@click.option("--dispatch", type=click.Choice(["pull", "assign"]), default="pull", show_default=True,
              help="Whether workers take tasks or the coordinator deals them.")  # fmt: skip
@click.option(
    "--wait", type=float, default=20.0, show_default=True, help="Seconds to wait until they are there."
)
@_set
def up(
    store: str,
    group: str,
    imports: tuple[str, ...],
    queues: tuple[str, ...],
    slots: int | None,
    least: int,
    most: int | None,
    host: str,
    dispatch: str,
    wait: float,
    sets: tuple[str, ...],
) -> None:
    """Start a coordinator, which starts the workers, and come back.

    It leaves in the store how nodes are started, so that whoever notices that one is missing can start it. Said
    again, it changes the numbers.
    """
    from cluster._decide import Bounds
    from cluster.healing import Healer, write_bounds
    from cluster.provision import NodeTemplate

    settings = _settings(sets)
    environ = {
        key: value
        for key, value in os.environ.items()
        if key.startswith("CLUSTER_") and key != "CLUSTER_FAIL"
    }
    shared = [word for one in sets for word in ("--set", one)]
    options = [*shared]
    for word, many in (("--import", imports), ("--queue", queues)):
        options.extend(piece for one in many for piece in (word, one))
    count = slots or os.cpu_count() or 1
    options.extend(["--slots", str(count)])
    with _client(store, group) as client:
        where = _absolute(store)
        common: dict[str, Any] = {"store": where, "group": group, "folder": os.getcwd(), "environ": environ}
        client.store.put(
            "template:worker", NodeTemplate("worker", options=tuple(options), host=host, **common).dumps()
        )
        client.store.put(
            "template:coordinator", NodeTemplate("coordinator", options=tuple(shared), **common).dumps()
        )
        client.store.put("dispatch", dispatch)
        write_bounds(client.store, Bounds(least, max(least, most or least), count))
        healer = Healer(client.store, settings, f"cluster up on {socket.gethostname()}")
        healer.spawn("coordinator", 1)
        deadline = time.monotonic() + wait
        while True:
            members = client.members()
            healer.check(members)
            workers = [m for m in members if m.role == "worker" and m.state == "up"]
            leads = any(m.role == "coordinator" and m.state == "up" for m in members)
            if leads and len(workers) >= least:
                click.echo(
                    f"group {group!r} is up: {len(workers)} workers with {sum(m.slots for m in workers)} slots"
                )
                return
            if time.monotonic() > deadline:
                failures = [event for event in client.events(limit=100_000) if event.kind == "spawn-failed"]
                why = f"; the last start failed: {failures[-1].detail}" if failures else ""
                raise ClusterError(f"after {wait:g} s there are {len(workers)} of {least} workers{why}")
            time.sleep(0.05)


def _absolute(store: str) -> str:
    if store.startswith("sqlite:///"):
        return "sqlite:///" + os.path.abspath(store.removeprefix("sqlite:///"))
    return store


@cluster.command()
@_common
@click.option(
    "--wait", type=float, default=30.0, show_default=True, help="Seconds to wait until all are gone."
)
def down(store: str, group: str, wait: float) -> None:
    """Let all nodes of the group finish what they run, and leave. Waiting tasks stay in the store."""
    with _client(store, group) as client:
        client.store.put("bounds", "")  # nobody starts anything any more
        text = {role: client.store.get(f"template:{role}") for role in ("worker", "coordinator")}
        client.store.put("template:coordinator", "")
        try:
            for member in client.members():
                client.store.drain(member.node)
            deadline = time.monotonic() + wait
            while members := client.members():
                for member in members:
                    if member.state == "joining":
                        client.store.leave(member.node, "", "the group goes down")
                    elif member.state != "draining":
                        client.store.drain(member.node)
                if time.monotonic() > deadline:
                    names = ", ".join(f"{m.node} (pid {m.pid} on {m.host})" for m in members)
                    raise ClusterError(f"still there after {wait:g} s: {names}")
                time.sleep(0.05)
        finally:
            client.store.put("template:coordinator", text["coordinator"])
        click.echo(f"group {group!r} is down; {client.stats().waiting()} tasks wait in it")


# ------------------------------------------------------------------------------------------------ looking


@cluster.command()
@click.argument("task_id", required=False)
@_common
@_json
@_watch
def status(task_id: str | None, store: str, group: str, as_json: bool, watch: float | None) -> None:
    """Show how the group is; of a task, why it does not run."""
    with _client(store, group) as client:
        if task_id:
            _again(watch, lambda: _task_status(client, task_id, as_json))
        else:
            _again(watch, lambda: _group_status(client, as_json))


def _task_status(client: Any, task_id: str, as_json: bool) -> None:
    task = client.task(task_id)
    stats = client.stats()
    why = _decide.why_waiting(
        task, client.members(), client.store.queues(), client.store.now(), stats.count("ready", task.queue)
    )
    row = _task_row(client, task)
    if as_json:
        _print_json({**row, "why": why})
        return
    table = _table("", "")
    for name, value in row.items():
        if value not in (None, "", 0):
            table.add_row(name, str(value))
    table.add_row("why", why)
    _show(table)


def _group_status(client: Any, as_json: bool) -> None:
    stats, members = client.stats(), client.members()
    lock = client.store.lock("coordinator")
    leader = lock.holder.split("#")[0] if lock else None
    workers = [m for m in members if m.role == "worker"]
    remarks = list(_remarks(client, stats, members, leader))
    if as_json:
        _print_json(
            {
                "group": client.store.group,
                "leader": leader,
                "fence": lock.fence if lock else None,
                "workers": len(workers),
                "slots": sum(m.slots for m in workers),
                "running": sum(m.running for m in workers),
                "tasks": stats.tasks,
                "oldest_ready": stats.oldest_ready,
                "counters": stats.counters,
                "remarks": remarks,
            }
        )
        return
    click.echo(
        f"group {client.store.group!r}: {len(workers)} workers, {sum(m.slots for m in workers)} slots, "
        f"{'led by ' + leader if leader else 'nobody leads'}"
    )
    states = ("ready", "scheduled", "blocked", "assigned", "done", "dead", "cancelled")
    table = _table("queue", *states, "waits since")
    for queue, counts in sorted(stats.tasks.items()):
        age = stats.oldest_ready.get(queue)
        table.add_row(queue, *(str(counts.get(s, 0)) for s in states), "" if age is None else f"{age:.1f} s")
    _show(table)
    for remark in remarks:
        click.echo(f"! {remark}")


def _remarks(client: Any, stats: Any, members: list[Any], leader: str | None) -> Iterator[str]:
    """What a person should know: why things stand still, and what failed lately."""
    up = [m for m in members if m.role == "worker" and m.state == "up"]
    if not up and stats.waiting():
        yield f"{stats.waiting()} tasks wait and there is no worker; start some with: tasklets cluster up"
    if up and leader is None:
        yield "nobody leads: what a lost worker had is not given back yet"
    for queue, settings in client.store.queues().items():
        if settings["paused"]:
            yield f"queue {queue!r} is paused"
    served = {queue for m in up for queue in m.queues}
    for queue in stats.tasks:
        if up and queue not in served and stats.waiting(queue):
            yield f"no worker serves queue {queue!r}, where {stats.waiting(queue)} tasks wait"
    known = {op for m in up for op in m.ops}
    strange = {t.op for t in client.store.tasks(state="ready", limit=100) if t.op not in known}
    if known and strange:
        yield f"no worker knows {', '.join(sorted(strange))}"
    if stats.count("dead"):
        yield f"{stats.count('dead')} dead letters; see: tasklets cluster dead"
    failed = [e for e in client.events(limit=100_000) if e.kind == "spawn-failed"]
    if failed and failed[-1].at > client.store.now() - 60:
        yield f"{failed[-1].subject} did not start: {failed[-1].detail.strip()}"


@cluster.command()
@_common
@_json
@_watch
def members(store: str, group: str, as_json: bool, watch: float | None) -> None:
    """List the nodes of the group."""

    def show() -> None:
        rows = client.members()
        if as_json:
            _print_json([asdict(m) for m in rows])
            return
        now = client.store.now()
        table = _table(
            "node", "role", "state", "slots", "running", "queues", "host", "pid", "version", "lease"
        )
        for m in rows:
            table.add_row(
                m.node, m.role, m.state, str(m.slots), str(m.running), " ".join(m.queues), m.host, str(m.pid),
                m.version, f"{m.lease_until - now:.1f} s",
            )  # fmt: skip
        _show(table)

    with _client(store, group) as client:
        _again(watch, show)


def _task_row(client: Any, task: Any) -> dict[str, Any]:
    row = {
        "task": task.task_id,
        "operation": task.op,
        "queue": task.queue,
        "state": task.state.value,
        "priority": task.priority,
        "attempts": task.attempts,
        "losses": task.losses,
        "step": task.step,
        "worker": task.worker,
        "age": round(client.store.now() - task.created, 3),
    }
    if task.error:
        error = values.loads(task.error)
        row["error"] = f"{error['kind']}: {error['message']}"
    if task.result is not None:
        row["result"] = repr(values.loads(task.result))
    return row


@cluster.command()
@_common
@click.option("--state", help="Only those in this state.")
@click.option("--queue", help="Only those of this queue.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--after", default="", help="Those whose id comes after this one.")
@_json
@_watch
def tasks(
    store: str,
    group: str,
    state: str | None,
    queue: str | None,
    limit: int,
    after: str,
    as_json: bool,
    watch: float | None,
) -> None:
    """List tasks, by id, which is by age."""

    def show() -> None:
        rows = [
            _task_row(client, t)
            for t in client.store.tasks(state=state, queue=queue, limit=limit, after=after)
        ]
        _rows(
            rows, as_json, ("task", "operation", "queue", "state", "priority", "attempts", "worker", "error")
        )

    with _client(store, group) as client:
        _again(watch, show)


def _rows(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        _print_json(rows)
        return
    table = _table(*columns)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    _show(table)


@cluster.command()
@_common
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--traceback", is_flag=True, help="Show where each one failed.")
@_json
def dead(store: str, group: str, limit: int, traceback: bool, as_json: bool) -> None:
    """List the dead letters: tasks that failed for good."""
    with _client(store, group) as client:
        letters = list(client.dead(limit))
        rows = [_task_row(client, task) for task in letters]
        for row, task in zip(rows, letters, strict=True):
            error = values.loads(task.error) if task.error else {}
            row["traceback"] = error.get("traceback", "")
            row["worker"] = error.get("worker", "") or row["worker"]
        _rows(rows, as_json, ("task", "operation", "attempts", "losses", "worker", "error"))
        if traceback and not as_json:
            for row in rows:
                click.echo(f"\n{row['task']}\n{row['traceback']}")


@cluster.command()
@click.argument("task_ids", nargs=-1)
@_common
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
def replay(task_ids: tuple[str, ...], store: str, group: str, everything: bool) -> None:
    """Make dead letters ready again."""
    if bool(task_ids) == everything:
        raise click.UsageError("name the tasks, or say --all")
    with _client(store, group) as client:
        count = client.replay([task.task_id for task in client.dead()] if everything else task_ids)
        click.echo(f"{count} tasks are ready again")
        if count == 0 and task_ids:
            raise ClusterError(f"none of {', '.join(task_ids)} is a dead letter")


@cluster.command()
@click.argument("operation")
@click.argument("arguments", nargs=-1)
@_common
@click.option("--queue", help="Another queue than the operation's own; it is known here only with --import.")
@_imports
@click.option("--priority", type=int, default=0)
@click.option("--delay", type=float, default=0.0, help="Seconds until it may start.")
@click.option("--id", "task_id", help="Submitting the same id again changes nothing.")
@click.option(
    "--wait",
    is_flag=False,
    flag_value=60.0,
    type=float,
    metavar="SECONDS",
    help="Wait for the result and print it.",
)
@_json
def submit(
    operation: str,
    arguments: tuple[str, ...],
    store: str,
    group: str,
    queue: str | None,
    imports: tuple[str, ...],
    priority: int,
    delay: float,
    task_id: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Submit a task. Arguments are JSON where they can be read so (30, "a", [1,2]), and text otherwise."""
    import importlib

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in imports:
        importlib.import_module(module)
    options: dict[str, Any] = {"priority": priority, "delay": delay, "id": task_id}
    if queue is not None:
        options["queue"] = queue
    with _client(store, group) as client:
        handle = client.with_options(**options).submit(operation, *map(_argument, arguments))
        if wait is None:
            _print_json({"task": handle.task_id}) if as_json else click.echo(handle.task_id)
            return
        result = handle.result(wait)
        _print_json({"task": handle.task_id, "result": result}) if as_json else click.echo(repr(result))


def _argument(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@cluster.command()
@_common
@click.option("--follow", is_flag=True, help="Go on as they happen.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="Only these: join leave expire spawn lock assign revoke done dead ...",
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many.")
@_json
def events(store: str, group: str, follow: bool, kinds: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the journal: who joined, left, led, and what became of tasks."""
    with _client(store, group) as client:
        found: list[Any] = []
        after = ""
        while page := client.events(after=after, limit=1000):
            after = page[-1].seq
            found = [*found, *(e for e in page if not kinds or e.kind in kinds)][-limit:]
        for event in found:
            _print_event(event, as_json)
        while follow:
            page = client.events(after=after)
            for event in page:
                after = event.seq
                if not kinds or event.kind in kinds:
                    _print_event(event, as_json)
            sys.stdout.flush()
            if not page:
                time.sleep(0.2)


def _print_event(event: Any, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(event))
    else:
        moment = time.strftime("%H:%M:%S", time.localtime(event.at)) + f"{event.at % 1:.3f}"[1:]
        click.echo(
            f"{moment} {event.kind:12} {event.subject} {event.by and 'by ' + event.by} {event.detail}".rstrip()
        )


@cluster.command()
@_common
@click.option("--pause", metavar="QUEUE", help="Start no more tasks of this queue.")
@click.option("--resume", metavar="QUEUE", help="Go on with it.")
@click.option(
    "--max-waiting", metavar="QUEUE=N", help="Let submitters wait while so many tasks wait; 0 is no limit."
)
@_set
@_json
def config(
    store: str,
    group: str,
    pause: str | None,
    resume: str | None,
    max_waiting: str | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the settings and where each comes from (argument > CLUSTER_* > file > default); change queues."""
    pairs = dict(one.partition("=")[::2] for one in sets)
    if pause or resume or max_waiting:
        with _client(store, group) as client:
            if pause:
                client.store.configure_queue(pause, paused=True)
            if resume:
                client.store.configure_queue(resume, paused=False)
            if max_waiting:
                queue, _, number = max_waiting.partition("=")
                if not number.isdigit():
                    raise click.UsageError("write --max-waiting QUEUE=N")
                client.store.configure_queue(queue, max_waiting=int(number))
            for name, values_of in client.store.queues().items():
                click.echo(
                    f"queue {name!r}: " + ", ".join(f"{key}={value}" for key, value in values_of.items())
                )
        return
    found = explain_settings(pairs)
    if as_json:
        _print_json({name: {"value": value, "from": source} for name, (value, source) in found.items()})
        return
    table = _table("setting", "value", "from")
    for one in fields(Settings):
        value, source = found[one.name]
        table.add_row(one.name, str(value), source)
    _show(table)
