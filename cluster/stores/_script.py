"""The Redis engine's script, cut to what one call needs.

A script makes all of its functions anew each time it runs: of the 60 us that the server computed for a small call, that
was 50. So each call has a script of its own, of the pieces that it needs, by the names that they define and use.

A piece begins with `local` or `function` in the first column. What is used under no name of its own, and only what some
call needs, is left out: so whoever has a function called later names it where that is decided.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

_BEGINS: Final = re.compile(r"^(?=(?:local|function) )", re.MULTILINE)
_DEFINES: Final = re.compile(r"(?:local )?function ([\w.]+)|local ([\w, ]+)")
_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?")
_COMMENT: Final = re.compile(r"--.*")


def _read(name: str) -> str:
    return _COMMENT.sub("", (files("cluster.stores") / name).read_text(encoding="utf-8"))


def _defined(piece: str) -> list[str]:
    found = _DEFINES.match(piece)
    return re.findall(r"[\w.]+", found[1] or found[2]) if found else []


def _used(piece: str) -> set[str]:
    names = set(_NAME.findall(piece))
    return names | {name.partition(".")[0] for name in names}


PIECES: Final = tuple(_BEGINS.split(_read("redis.lua") + _read("redis_jobs.lua")))
_END: Final = _read("redis_call.lua")
_PLACES: Final = {name: place for place, piece in enumerate(PIECES) for name in _defined(piece)}
CALLS: Final = tuple(sorted(name.removeprefix("calls.") for name in _PLACES if name.startswith("calls.")))


@cache
def needed_by(call: str) -> tuple[int, ...]:
    """The places of the pieces that a call needs, in their order."""
    found: set[int] = set()
    names = {f"calls.{call}", *_used(_END)}
    while names:
        place = _PLACES.get(names.pop())
        if place is not None and place not in found:
            found.add(place)
            names |= _used(PIECES[place])
    return tuple(sorted(found))


@cache
def script_of(call: str) -> str:
    """The script of a call."""
    return "".join([*(PIECES[place] for place in needed_by(call)), _END])
