"""Commands that look at a group and its tasks, and change them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import click

from cluster import _decide
from cluster.cli._common import (
    argument_of,
    cluster,
    common_options,
    import_modules,
    imports_option,
    json_option,
    open_client,
    print_json,
    print_record,
    print_rows,
    repeat,
    set_option,
    show_table,
    text_of,
    wait_option,
    watch_option,
)
from cluster.errors import ClusterError
from cluster.healing import read_bounds
from cluster.settings import Settings, explain_settings
from net import values

# ------------------------------------------------------------------------------------------------ looking


@cluster.command()
@click.argument("task_id", required=False)
@common_options
@json_option
@watch_option
def status(task_id: str | None, store: str, group: str, as_json: bool, watch: float | None) -> None:
    """Show how the group is; of a task, why it does not run."""
    with open_client(store, group) as client:
        if task_id:
            repeat(watch, lambda: _task_status(client, task_id, as_json))
        else:
            repeat(watch, lambda: _group_status(client, as_json))


def _task_status(client: Any, task_id: str, as_json: bool) -> None:
    task = client.task(task_id)
    stats = client.stats()
    why = _decide.why_waiting(
        task, client.members(), client.store.queues(), client.store.now(), stats.count("ready", task.queue)
    )
    row = _task_row(client, task)
    print_record({**row, "why": why}, as_json, without=(None, "", 0))


def _group_status(client: Any, as_json: bool) -> None:
    stats, members = client.stats(), client.members()
    lock = client.store.lock("coordinator")
    leader = lock.holder.split("#")[0] if lock else None
    workers = [m for m in members if m.role == "worker"]
    bounds = read_bounds(client.store)
    wanted = None
    if bounds is not None:
        backlog = _decide.backlog_of(members, stats, client.store.queues(), bounds)
        wanted = _decide.desired_workers(bounds, backlog)
    remarks = list(_remarks(client, stats, members, leader))
    if as_json:
        print_json(
            {
                "group": client.store.group,
                "leader": leader,
                "fence": lock.fence if lock else None,
                "workers": len(workers),
                "wanted": wanted,
                "bounds": bounds and [bounds.least, bounds.most],
                "slots": sum(m.slots for m in workers),
                "running": sum(m.running for m in workers),
                "tasks": stats.tasks,
                "oldest_ready": stats.oldest_ready,
                "counters": stats.counters,
                "remarks": remarks,
            }
        )
        return
    limits = f" ({wanted} wanted, {bounds.least} to {bounds.most} allowed)" if bounds else ""
    click.echo(
        f"group {client.store.group!r}: {len(workers)} workers{limits}, {sum(m.slots for m in workers)} slots, "
        f"{'led by ' + leader if leader else 'nobody leads'}"
    )
    everywhere = {state for counts in stats.tasks.values() for state, count in counts.items() if count}
    rare = [state for state in ("scheduled", "blocked", "held", "idle", "cancelled") if state in everywhere]
    states = ("ready", "assigned", "done", "dead", *rare)  # as many as fit into a terminal beside each other
    rows = []
    for queue, counts in sorted(stats.tasks.items()):
        age = stats.oldest_ready.get(queue)
        rows.append((queue, *(str(counts.get(s, 0)) for s in states), "" if age is None else f"{age:.1f} s"))
    show_table(("queue", *states, "waits since"), rows)
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
@common_options
@json_option
@watch_option
def members(store: str, group: str, as_json: bool, watch: float | None) -> None:
    """List the nodes of the group."""

    def shown() -> None:
        rows = client.members()
        if as_json:
            print_json([asdict(m) for m in rows])
            return
        now = client.store.now()
        mixed = len({m.version for m in rows if m.version}) > 1
        show_table(
            ("node", "role", "state", "busy", "queues", "pid on host", "version", "lease"),
            [
                (
                    m.node, m.role, m.state, f"{m.running}/{m.slots}" if m.slots else "", " ".join(m.queues),
                    f"{m.pid} on {m.host}" if m.pid else m.host, m.version if mixed else "",
                    f"{m.lease_until - now:.1f} s",
                )
                for m in rows
            ],
        )  # fmt: skip

    with open_client(store, group) as client:
        repeat(watch, shown)


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
        row["result"] = text_of(task.result)
    return row


@cluster.command()
@common_options
@click.option("--state", help="Only those in this state.")
@click.option("--queue", help="Only those of this queue.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--after", default="", help="Those whose id comes after this one.")
@json_option
@watch_option
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

    def shown() -> None:
        rows = [
            _task_row(client, t)
            for t in client.store.tasks(state=state, queue=queue, limit=limit, after=after)
        ]
        print_rows(
            rows, as_json, ("task", "operation", "queue", "state", "priority", "attempts", "worker", "error")
        )

    with open_client(store, group) as client:
        repeat(watch, shown)


@cluster.command()
@common_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--traceback", is_flag=True, help="Show where each one failed.")
@json_option
def dead(store: str, group: str, limit: int, traceback: bool, as_json: bool) -> None:
    """List the dead letters: tasks that failed for good."""
    with open_client(store, group) as client:
        letters = list(client.dead(limit))
        rows = [_task_row(client, task) for task in letters]
        for row, task in zip(rows, letters, strict=True):
            error = values.loads(task.error) if task.error else {}
            row["traceback"] = error.get("traceback", "")
            row["worker"] = error.get("worker", "") or row["worker"]
        print_rows(rows, as_json, ("task", "operation", "attempts", "losses", "worker", "error"))
        if traceback and not as_json:
            for row in rows:
                click.echo(f"\n{row['task']}\n{row['traceback']}")


@cluster.command()
@click.argument("task_ids", nargs=-1)
@common_options
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
def replay(task_ids: tuple[str, ...], store: str, group: str, everything: bool) -> None:
    """Make dead letters ready again."""
    if bool(task_ids) == everything:
        raise click.UsageError("name the tasks, or say --all")
    with open_client(store, group) as client:
        count = client.replay([task.task_id for task in client.dead()] if everything else task_ids)
        click.echo(f"{count} tasks are ready again")
        if count == 0 and task_ids:
            raise ClusterError(f"none of {', '.join(task_ids)} is a dead letter")


@cluster.command()
@click.argument("operation")
@click.argument("arguments", nargs=-1)
@common_options
@click.option("--queue", help="Another queue than the operation's own; it is known here only with --import.")
@imports_option
@click.option("--priority", type=int, default=0)
@click.option("--delay", type=float, default=0.0, help="Seconds until it may start.")
@click.option("--id", "task_id", help="Submitting the same id again changes nothing.")
@wait_option
@json_option
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
    import_modules(imports)
    options: dict[str, Any] = {"priority": priority, "delay": delay, "id": task_id}
    if queue is not None:
        options["queue"] = queue
    with open_client(store, group) as client:
        handle = client.with_options(**options).submit(operation, *map(argument_of, arguments))
        if wait is None:
            print_json({"task": handle.task_id}) if as_json else click.echo(handle.task_id)
            return
        result = handle.result(wait)
        print_json({"task": handle.task_id, "result": result}) if as_json else click.echo(repr(result))


@cluster.command()
@common_options
@click.option("--follow", is_flag=True, help="Go on as they happen.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="Only these: join leave expire spawn lock assign revoke done dead ...",
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many.")
@json_option
def events(store: str, group: str, follow: bool, kinds: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the journal: who joined, left, led, and what became of tasks."""
    with open_client(store, group) as client:
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
        print_json(asdict(event))
    else:
        moment = time.strftime("%H:%M:%S", time.localtime(event.at)) + f"{event.at % 1:.3f}"[1:]
        click.echo(
            f"{moment} {event.kind:12} {event.subject} {event.by and 'by ' + event.by} {event.detail}".rstrip()
        )


@cluster.command()
@common_options
@click.option("--pause", metavar="QUEUE", help="Start no more tasks of this queue.")
@click.option("--resume", metavar="QUEUE", help="Go on with it.")
@click.option(
    "--max-waiting", metavar="QUEUE=N", help="Let submitters wait while so many tasks wait; 0 is no limit."
)
@set_option
@json_option
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
        with open_client(store, group) as client:
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
        print_json({name: {"value": value, "from": source} for name, (value, source) in found.items()})
        return
    rows = [(one.name, *found[one.name]) for one in fields(Settings)]
    show_table(("setting", "value", "from"), [[str(cell) for cell in row] for row in rows])
