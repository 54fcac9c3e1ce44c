"""Tasklets and channels: Stackless Python's way of programming, on today's CPython.

    from tasklets import channel, run, tasklet

    def greet(names):
        for name in names:
            print("hello,", name)

    names = channel()
    tasklet(greet)(names)
    for name in ("moon", "sun"):
        names.send(name)

Not here: channels across processes and machines (package `net`).
"""

from pathlib import Path as _Path

from tasklets import _which_form

_which_form.choose("tasklets", _Path(__file__).resolve().parent, ["_core"], _which_form.CORE_SOURCES)

from tasklets import _core as _core
from tasklets._advice import Advice as _Advice
from tasklets._core import (
    bomb as bomb,
    channel as channel,
    getcurrent as getcurrent,
    getmain as getmain,
    getruncount as getruncount,
    run as run,
    schedule as schedule,
    schedule_remove as schedule_remove,
    tasklet as tasklet,
)
from tasklets._errors import (
    ChannelClosed as ChannelClosed,
    DeadlockError as DeadlockError,
    InternalError as InternalError,
    NotSendable as NotSendable,
    RemoteError as RemoteError,
    TaskletError as TaskletError,
    TaskletExit as TaskletExit,
    Timeout as Timeout,
)
from tasklets._late_gevent import watch_imports as _watch_imports
from tasklets.actor import Actor as Actor
from tasklets.clock import sleep as sleep, timeout as timeout
from tasklets.freezing import freeze as freeze
from tasklets.messages import message as message, register as register
from tasklets.nursery import nursery as nursery
from tasklets.select import select as select

__all__ = [
    "Actor",
    "ChannelClosed",
    "DeadlockError",
    "InternalError",
    "NotSendable",
    "RemoteError",
    "TaskletError",
    "TaskletExit",
    "Timeout",
    "bomb",
    "channel",
    "freeze",
    "getcurrent",
    "getmain",
    "getruncount",
    "message",
    "nursery",
    "register",
    "run",
    "schedule",
    "schedule_remove",
    "select",
    "sleep",
    "tasklet",
    "timeout",
]

_core.wording = _Advice()
_watch_imports()

for _public in map(globals().__getitem__, __all__):
    if _public.__module__ != "tasklets":
        _public.__module__ = (
            "tasklets"  # so that tracebacks, reprs and the documentation name the public path
        )
del _public
