"""select: wait on several sends and receives; the first that can happen does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasklets._core import Entry, Wait, _defuse, channel, get_scheduler
from tasklets._errors import Timeout
from tasklets.clock import timeout as limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasklets._core import Scheduler, tasklet

_NO_DEFAULT: Any = object()


def select(
    cases: Sequence[channel | tuple[channel, Any]], timeout: float | None = None, default: Any = _NO_DEFAULT
) -> tuple[int, Any]:
    """Wait until one of several channel operations can happen, and do that one. Blocks.

    A case is a channel (receive from it) or a pair (channel, value) (send to it). Returns `(index, value)`:
    which case it was, and the message received (None for a send). Of several that are ready the first in the
    list wins. Exactly one operation happens; the others leave no trace.

    Raises Timeout after `timeout` seconds. With `default` it never waits: it returns `(-1, default)` when no
    case is ready. Raises ChannelClosed when the case that is ready is one on a closed channel.
    """
    parsed = [_parse(case) for case in cases]
    _check_directions(parsed)
    if not parsed and timeout is None and default is _NO_DEFAULT:
        raise ValueError("select() without a case and without a timeout would wait for ever")
    limited = limit(timeout)
    try:
        with limited:
            while True:
                for index, (where, sending, value) in enumerate(parsed):
                    if _is_ready(where, sending):
                        if not sending:
                            return index, where.receive()
                        where.send(value)
                        return index, None
                if default is not _NO_DEFAULT:
                    return (-1, default)
                selection = _Selection(parsed)
                if selection.enter():
                    return selection.wait()
    except Timeout as error:
        if not limited.raised(error):
            raise  # somebody else's: of an outer block, or sent as a message
        raise Timeout(f"none of {len(parsed)} cases became ready within {timeout:g} s") from None


def _parse(case: Any) -> tuple[channel, bool, Any]:
    if isinstance(case, channel):
        return case, False, None
    if isinstance(case, tuple) and len(case) == 2 and isinstance(case[0], channel):
        return case[0], True, case[1]
    raise TypeError(
        f"a case of select() is a channel (receive) or a pair (channel, value) (send), not {case!r}.\n"
        "    select([orders, (log, 'idle')])"
    )


def _check_directions(parsed: list[tuple[channel, bool, Any]]) -> None:
    """A channel's queue holds senders or receivers, never both."""
    sent_to = {id(_behind(where)) for where, sending, _ in parsed if sending}
    for where, sending, _ in parsed if sent_to else ():
        if not sending and id(_behind(where)) in sent_to:
            raise ValueError(
                f"select() cannot both send to and receive from {where!r}, it would be its own partner; "
                "use two channels, or two tasklets"
            )


def _behind(where: channel) -> channel:
    """The channel whose queue it is: what `net` restricts (`send_only`) has a `target`."""
    target: channel = getattr(where, "target", where)
    return target


def _is_ready(where: channel, sending: bool) -> bool:
    """True when the operation would not have to wait: somebody waits for it, there is room, or it fails at
    once.
    """
    return where._send_is_ready() if sending else where._receive_is_ready()


class _Case(Entry):
    """One case in the queue of its channel."""

    __slots__ = ("_channel", "index", "queued", "selection", "sending")

    def __init__(self, selection: _Selection, index: int, where: channel, sending: bool, value: Any) -> None:
        super().__init__()
        self.selection = selection
        self._channel = where
        self.index = index
        self.sending = sending
        self.tempval = value
        self.queued = False

    @property
    def owner(self) -> Scheduler:
        return self.selection.owner

    @property
    def waiter(self) -> tasklet | None:
        return self.selection.waiting.tasklet

    def take(self, value: Any) -> None:
        """A partner has taken it out of its queue: this case happens."""
        self.queued = False
        self.selection.happen(self.index, None if self.sending else value)


class _Selection:
    """All cases of one waiting select: the first partner that takes a case withdraws the others."""

    def __init__(self, parsed: list[tuple[channel, bool, Any]]) -> None:
        self.owner = get_scheduler()
        self.waiting = Wait(
            "select on " + ", ".join(repr(where) for where, _, _ in parsed),
            cancel=self._withdraw,
            # A reference to a channel elsewhere enters cases in its own way. For local ones run() need not wait.
            outside=any(type(where)._enter_case is not channel._enter_case for where, _, _ in parsed),
        )
        self.cases = [_Case(self, index, *each) for index, each in enumerate(parsed)]

    def enter(self) -> bool:
        """Queue the cases. False: nothing is queued, the world has changed; look again what is ready."""
        for case in self.cases:
            if case.sending and case._channel._freeze is not None:
                case.tempval = case._channel._freeze(case.tempval)
        try:
            for case in self.cases:
                # Entering a case elsewhere may have let others run.
                if self.waiting.over:
                    self._withdraw()
                    break
                if _is_ready(case._channel, case.sending):
                    self._withdraw()
                    return False
                case._channel._enter_case(case)
        except BaseException as error:  # a channel elsewhere may be out of reach
            self._withdraw()
            if not (self.waiting.over and isinstance(error, Exception)):  # else one case has happened already
                raise
        return True

    def wait(self) -> tuple[int, Any]:
        index, value = self.waiting.park()
        return index, _defuse(value)

    def happen(self, index: int, value: Any) -> None:
        """The case of this index happens, and the others are withdrawn."""
        self._withdraw()
        self.waiting.wake((index, value))

    def _withdraw(self) -> None:
        for case in self.cases:
            case._channel._leave_case(case)
