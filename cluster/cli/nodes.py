"""Commands that start and end nodes: worker, coordinator, up, down."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

import click

from cluster.cli._common import (
    cluster,
    common_options,
    debug_option,
    imports_option,
    include_this_folder,
    open_client,
    set_option,
    settings_of,
    store_option,
)
from cluster.errors import ClusterError

# ------------------------------------------------------------------------------------------------ nodes

queues_option = click.option(
    "--queue",
    "queues",
    multiple=True,
    default=("default",),
    metavar="NAME[=WEIGHT]",
    help="A queue to serve; several may be.",
)
shell_option = click.option(
    "--allow-shell",
    is_flag=True,
    help="Run scripts that come as templates by HTTP: whoever reaches a gateway that takes them can run any program.",
)
slots_option = click.option(
    "--slots", type=click.IntRange(1), help="Tasks at a time; the number of cores if not said."
)


@cluster.command()
@store_option
@click.option(
    "--group", "groups", multiple=True, envvar="CLUSTER_GROUP", help="A group to join; several may be."
)
@imports_option
@queues_option
@slots_option
@shell_option
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
@set_option
@debug_option
def worker(
    store: str,
    groups: tuple[str, ...],
    imports: tuple[str, ...],
    queues: tuple[str, ...],
    slots: int | None,
    allow_shell: bool,
    labels: tuple[str, ...],
    name: str | None,
    prefetch: int,
    spawn_id: str,
    heal: bool,
    sets: tuple[str, ...],
) -> None:
    """Run a worker until SIGTERM or Ctrl-C, which let it finish what it runs; a second one ends it at once."""
    from cluster._identity import new_name
    from cluster.healing import Healer
    from cluster.stores import open_store
    from cluster.worker import Worker, run_workers

    settings = settings_of(sets)
    include_this_folder()
    weights = {}
    for queue in queues:
        title, _, weight = queue.partition("=")
        weights[title] = int(weight or 1)
    # For operations that need a client: executors inherit it.
    os.environ["CLUSTER_STORE"] = store
    if len(groups) == 1:
        os.environ["CLUSTER_GROUP"] = groups[0]
    workers = []
    for group in groups or ("default",):
        handle = open_store(store, group, patience=settings.store_patience)
        chosen = name or new_name()
        made = Worker(
            handle,
            imports=(*imports, "cluster.shell") if allow_shell else imports,
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
@store_option
@click.option(
    "--group", "groups", multiple=True, envvar="CLUSTER_GROUP", help="A group to look after; several may be."
)
@click.option("--name", help="How it is called in the group.")
@click.option("--spawn-id", default="", hidden=True)
@set_option
@debug_option
def coordinator(
    store: str, groups: tuple[str, ...], name: str | None, spawn_id: str, sets: tuple[str, ...]
) -> None:
    """Run a coordinator until SIGTERM or Ctrl-C. Any number may run; one leads each group, the others stand by."""
    import gevent

    from cluster.coordinator import Coordinator, Leadership

    settings = settings_of(sets)
    leadership = Leadership()
    nodes = [
        Coordinator(store, group, name=name, spawn_id=spawn_id, settings=settings, leadership=leadership)
        for group in groups or ("default",)
    ]

    def stop() -> None:
        for node in nodes:
            node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    gevent.joinall([gevent.spawn(node.run) for node in nodes], raise_error=True)


@cluster.command()
@common_options
@imports_option
@queues_option
@slots_option
@shell_option
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
@set_option
def up(
    store: str,
    group: str,
    imports: tuple[str, ...],
    queues: tuple[str, ...],
    slots: int | None,
    allow_shell: bool,
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

    settings = settings_of(sets)
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
    if allow_shell:
        options.append("--allow-shell")
    with open_client(store, group) as client:
        where = _absolute(store)
        common: dict[str, Any] = {"store": where, "group": group, "folder": os.getcwd(), "environ": environ}
        client.store.put(
            "template:worker", NodeTemplate("worker", options=tuple(options), host=host, **common).dumps()
        )
        client.store.put(
            "template:coordinator", NodeTemplate("coordinator", options=tuple(shared), **common).dumps()
        )
        client.store.put("dispatch", dispatch)
        write_bounds(
            client.store,
            Bounds(
                least,
                max(least, most or least),
                count,
                queues=[queue.partition("=")[0] for queue in queues],
                patience=settings.backlog_wait,
            ),
        )
        healer = Healer(client.store, settings, f"cluster up on {socket.gethostname()}")
        deadline = time.monotonic() + wait
        # Of those that are there some may have been killed a moment ago. Who lives renews its lease.
        doubtful = {(m.node, m.lease_until) for m in client.members()}
        healer.revive()
        while True:
            members = client.members()
            healer.check(members)
            workers = [
                m
                for m in members
                if m.role == "worker" and m.state == "up" and (m.node, m.lease_until) not in doubtful
            ]
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
@common_options
@click.option(
    "--wait", type=float, default=30.0, show_default=True, help="Seconds to wait until all are gone."
)
def down(store: str, group: str, wait: float) -> None:
    """Let all nodes of the group finish what they run, and leave. Waiting tasks stay in the store."""
    with open_client(store, group) as client:
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
