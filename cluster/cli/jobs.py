"""Commands about jobs: look at them, start, signal and end them, and see what happened in one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

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
    show_table,
    text_of,
    wait_option,
    watch_option,
)
from cluster.records import JOB_ENDED
from net import values

_PAGE = 500


@cluster.command()
@common_options
@click.option(
    "--state", help="Only those in this state: created running paused suspended finished failed ..."
)
@click.option("--name", help="Only those with this name.")
@click.option(
    "--since", type=float, metavar="SECONDS", help="Only those started so many seconds ago, or less."
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--after", default="", help="Those whose id comes after this one.")
@json_option
@watch_option
def jobs(
    store: str,
    group: str,
    state: str | None,
    name: str | None,
    since: float | None,
    limit: int,
    after: str,
    as_json: bool,
    watch: float | None,
) -> None:
    """List jobs, by id, which is by age."""

    def shown() -> None:
        now = client.store.now()
        begin = None if since is None else now - since
        found = client.jobs(state=state, name=name, since=begin, limit=limit, after=after)
        rows = [_job_row(job, now) for job in found]
        for row in () if as_json else rows:
            row["done"] = f"{row['done']}/{row['total']}" if row["total"] else ""
            row["failed"] = row["failed"] or ""
        print_rows(rows, as_json, ("job", "name", "class", "state", "done", "failed", "age", "reason"))

    with open_client(store, group) as client:
        repeat(watch, shown)


def _job_row(job: Any, now: float) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "name": job.name,
        "class": job.cls,
        "state": job.state.value,
        "done": job.done,
        "failed": job.failed,
        "total": job.total,
        "age": round(now - job.created, 3),
        "by": job.by,
        "reason": job.reason,
    }


@cluster.command()
@click.argument("job_id", metavar="JOB")
@common_options
@json_option
@watch_option
def job(job_id: str, store: str, group: str, as_json: bool, watch: float | None) -> None:
    """Show a job, by its id or its name: where it is, what it keeps, what it waits for."""
    with open_client(store, group) as client:
        repeat(watch, lambda: _show_job(client, job_id, as_json))


def _show_job(client: Any, job_id: str, as_json: bool) -> None:
    job = client.job(job_id)
    row = _job_row(job, client.store.now())
    row.update(
        description=job.description, queue=job.queue, created=_clock(job.created), updated=_clock(job.updated)
    )
    if job.ended is not None:
        row["ended"] = _clock(job.ended)
    if job.params:
        row["params"] = text_of(job.params)
    if job.data:
        row["data"] = text_of(job.data)
    if job.result is not None:
        row["result"] = text_of(job.result)
    if job.error:
        error = values.loads(job.error)
        row["error"] = f"{error['kind']}: {error['message']}"
        row["traceback"] = error.get("traceback", "")
    turn = client.store.task(job.job_id) if job.cls and job.state not in JOB_ENDED else None
    if turn is not None:
        row["turn"] = turn.state.value + (f", {turn.attempts} failed attempts" if turn.attempts else "")
        if turn.state == "idle" and turn.due:
            row["wakes in"] = f"{max(0.0, turn.due - client.store.now()):.1f} s"
    print_record(row, as_json)


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="milliseconds")


@cluster.command()
@click.argument("class_name", metavar="CLASS")
@click.argument("params", required=False)
@common_options
@imports_option
@click.option("--name", help="A living job with this name is told, instead of starting another.")
@click.option("--id", "job_id", help="Starting the same id again changes nothing.")
@click.option("--queue", help="Another queue than the class's own; that is known here only with --import.")
@wait_option
@json_option
def start(
    class_name: str,
    params: str | None,
    store: str,
    group: str,
    imports: tuple[str, ...],
    name: str | None,
    job_id: str | None,
    queue: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Start a job of a class ("module:Class"). PARAMS is JSON where it can be read so, and text otherwise."""
    import_modules(imports)
    with open_client(store, group) as client:
        given = None if params is None else argument_of(params)
        handle = client.start(class_name, given, name=name, id=job_id, queue=queue)
        if wait is None:
            print_json({"job": handle.job_id, "started": handle.started}) if as_json else click.echo(
                handle.job_id
            )
            return
        result = handle.result(wait)
        print_json({"job": handle.job_id, "result": result}) if as_json else click.echo(repr(result))


@cluster.command()
@click.argument("job_id", metavar="JOB")
@click.argument("name")
@click.argument("body", required=False)
@common_options
@imports_option
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds to wait for the reply.")
@click.option("--id", "signal_id", help="A job takes a signal id once, however often it is sent.")
@json_option
def signal(
    job_id: str,
    name: str,
    body: str | None,
    store: str,
    group: str,
    imports: tuple[str, ...],
    timeout: float,
    signal_id: str | None,
    as_json: bool,
) -> None:
    """Send a signal to a job, and print its reply.

    \b
    cancel, finish, terminate, finalize, pause, suspend, resume    what every job knows; BODY is the reason
    AddFunds '{"amount": 5}'                                      any other, with a body in JSON
    """
    from cluster.signals import BY_NAME, Finalize, Signal

    import_modules(imports)
    known = BY_NAME.get(name.lower())
    if known is None:
        sent: Any = Signal(name, None if body is None else argument_of(body))
    else:
        sent = known() if body is None or known is Finalize else known(body)  # type: ignore[call-arg]
    with open_client(store, group) as client:
        reply = client.signal(job_id, sent, timeout=timeout, id=signal_id)
    error = f"{reply.error['kind']}: {reply.error['message']}" if reply.error else ""
    if as_json:
        state = reply.job.state.value if reply.job else None
        print_json(
            {
                "status": reply.status,
                "value": reply.value,
                "error": error,
                "signal": reply.signal_id,
                "state": state,
            }
        )
    elif reply.status == "ok":
        click.echo("ok" if reply.value is None else repr(reply.value))
    else:
        click.echo(f"{reply.status}{': ' + error if error else ''}", err=True)
    if reply.status != "ok":
        sys.exit(1)


@cluster.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB]...")
@common_options
@click.option("--all", "everything", is_flag=True, help="All jobs of the group that have not ended.")
@click.option("--now", is_flag=True, help="Terminate: ask nobody, and kill what runs.")
@click.option("--reason", default="aborted", show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask whether all is meant.")
@json_option
def abort(
    job_ids: tuple[str, ...],
    store: str,
    group: str,
    everything: bool,
    now: bool,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """End jobs: cancel them, and terminate those that have not ended within the grace.

    Their operations see it in ctx.cancelled(); those that go on are killed after the grace, and the workers live on.
    """
    if bool(job_ids) == everything:
        raise click.UsageError("name the jobs, or say --all")
    with open_client(store, group) as client:
        if everything:
            job_ids = tuple(job.job_id for job in _living(client))
            if job_ids and not yes:
                click.confirm(f"Abort all {len(job_ids)} jobs of group {group!r} in {store}?", abort=True)
        handles = [client.attach_job(one) for one in job_ids]
        deadline = time.monotonic() + client.settings.grace
        if not now:
            for handle in handles:
                handle.cancel(reason, timeout=0)
        found = []
        for handle in handles:
            left = 0.0 if now else max(0.05, deadline - time.monotonic())
            found.append(handle.wait_or_terminate(left, reason))
        rows = [_job_row(one, client.store.now()) for one in found]
        if as_json:
            print_json(rows)
        else:
            for row in rows:
                click.echo(f"{row['job']} {row['state']}")


def _living(client: Any) -> Iterator[Any]:
    for state in ("created", "running", "paused", "suspended"):
        after = ""
        while page := client.jobs(state=state, limit=_PAGE, after=after):
            yield from page
            after = page[-1].job_id


# ------------------------------------------------------------------------------------------------ trace


@cluster.command()
@click.argument("job_id", metavar="JOB")
@common_options
@json_option
def trace(job_id: str, store: str, group: str, as_json: bool) -> None:
    """Print what happened in a job, in order: its changes, turns and signals, and its tasks."""
    with open_client(store, group) as client:
        job = client.job(job_id)
        rows = list(timeline(client, job))
        if as_json:
            print_json(rows)
            return
        click.echo(f"job {job.job_id} ({job.cls or 'no class'}) {job.state}, started {_clock(job.created)}")
        columns = ("what", "task", "operation", "by", "detail")
        show_table(
            ("after", *columns), [(f"{row['after']:.3f} s", *(row[name] for name in columns)) for row in rows]
        )


def timeline(client: Any, job: Any) -> Iterator[dict[str, Any]]:
    """The lines of the journal that are about a job or its tasks. The journal is bounded: old ones may be missing."""
    operations = {job.job_id: ""}
    after = ""
    while page := client.store.tasks(job_id=job.job_id, limit=_PAGE, after=after):
        operations.update((task.task_id, task.op) for task in page if task.task_id != job.job_id)
        after = page[-1].task_id
    last = ""
    while events := client.events(after=last, limit=1000):
        for event in events:
            if event.subject in operations:
                is_task = event.subject != job.job_id
                yield {
                    "at": event.at,
                    "after": round(event.at - job.created, 6),
                    "job": job.job_id,
                    "what": event.kind,
                    "task": event.subject if is_task else "",
                    "operation": operations[event.subject] if is_task else "",
                    "by": event.by,
                    "detail": event.detail,
                }
        last = events[-1].seq
