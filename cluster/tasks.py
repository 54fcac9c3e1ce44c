"""Tasks: calls that are to be stored, made from an operation, or from the name of one that need not be known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster import codecs
from cluster.errors import InvalidArguments
from cluster.records import NewTask, make_id
from cluster.registry import operations
from tasklets import NotSendable


def task_of(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> NewTask:
    """Make the task of a call of an operation, of one made with values, or of one known by name only."""
    if isinstance(op, str):
        known = operations().get(op)
        if known is None:
            return make_task(op, args, kwargs, **options)
        op = known
    if not hasattr(op, "make_task"):
        raise TypeError(f"{op!r} is no operation; decorate it with @operation, or give an operation's name")
    task: NewTask = op.make_task(args, kwargs, **options)
    return task


def make_task(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    made_with: Mapping[str, Any] | None = None,
    **fields: Any,
) -> NewTask:
    """Return the task of a call of an operation that need not be known here."""
    try:
        data = codecs.encode((args, dict(kwargs), dict(made_with or {})), fields.pop("codec", ""))
    except NotSendable as error:
        raise InvalidArguments(f"the arguments of {name} cannot travel: {error}") from error
    if isinstance(fields.get("meta"), str):
        fields["meta"] = fields["meta"].encode()
    task_id = fields.pop("id", None)
    return NewTask(name, data, task_id=task_id or make_id(), **fields)
