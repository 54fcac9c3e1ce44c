"""Every period and limit of the cluster, in one record.

    Settings(heartbeat=0.5)                  in a program
    CLUSTER_HEARTBEAT=0.5                    in the environment; processes that a node starts inherit it

An argument wins over the environment, that over a file, that over the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are seconds."""

    heartbeat: float = 2.0  # how often a member renews its lease
    member_ttl: float = 8.0  # a member that was not heard of for so long is gone
    task_lease: float = 30.0  # renewed by each heartbeat; has nothing to do with how long a task takes
    coordinator_lease: float = 10.0  # renewed at a third of it
    scan: float = 1.0  # how often the coordinator looks for what is out of order
    poll: float = 1.0  # how often a worker looks for work when no hint came
    coordinator_missing: float = 15.0  # a worker that sees none for so long starts one ...
    coordinator_jitter: float = 5.0  # ... after a random share of this
    spawn_grace: float = 30.0  # a started process that has not joined by then has failed
    backlog_wait: float = 5.0  # a backlog that has waited for so long wants a slot for each task, up to --max
    idle_retire: float = 30.0  # a worker above the minimum that has had nothing to do for so long goes
    grace: float = 10.0  # for a task that was told to stop, and for a drain, before it is killed
    feed_lease: float = (
        3600.0  # a directive that is run, and whose inputs nobody hands on for so long, is ended
    )
    retention: float = 86_400.0  # ended tasks, their results and their ids are kept for so long
    unknown_after: float = 600.0  # a task whose operation no member knows is dead after this
    journal: int = 100_000  # events kept
    max_losses: int = 3  # a task that killed so many workers is dead
    max_payload: int = 1024 * 1024  # bytes of a task's arguments, and of a result
    store_patience: float = 10.0  # a call repeats for so long while the store is busy or away
    submit_attempts: int = 10  # of a submission while the store is away, each with `store_patience`
    batch: int = 500  # rows that one transaction of the scanner touches


def read_settings(
    arguments: Mapping[str, Any] | None = None,
    *,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings of this process: arguments over `CLUSTER_*` over the file's `[cluster]` table.

    Raises ClusterError for a name that is no setting or a value that is no number.
    """
    return replace(
        Settings(), **{name: value for name, (value, _) in explain_settings(arguments, file, environ).items()}
    )


def explain_settings(
    arguments: Mapping[str, Any] | None = None,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, tuple[Any, str]]:
    """Return for each setting its value and where that came from."""
    file = file or environ.get("CLUSTER_CONFIG")
    table: dict[str, Any] = {}
    if file:
        try:
            table = tomllib.loads(Path(file).read_text(encoding="utf-8")).get("cluster", {})
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ClusterError(f"the settings in {file} cannot be read: {error}") from error
    known = {one.name: one for one in fields(Settings)}
    for name in [*(arguments or {}), *table]:
        if name not in known and name not in ("store", "group"):
            raise ClusterError(f"{name!r} is no setting; the settings are: {', '.join(known)}")
    found = {}
    for name, one in known.items():
        variable = f"CLUSTER_{name.upper()}"
        if arguments and name in arguments:
            value, source = arguments[name], "argument"
        elif variable in environ:
            value, source = environ[variable], variable
        elif name in table:
            value, source = table[name], str(file)
        else:
            value, source = one.default, "default"
        kind: Any = type(one.default)
        try:
            found[name] = (kind(value), source)
        except (TypeError, ValueError):
            raise ClusterError(f"{name} is {kind.__name__}, and {source} says {value!r}") from None
    return found
