"""What a task with an index records of its inputs, one after the other, before its own end.

    for n in inputs[ctx.recorded :]: ctx.record(work(n))

An execution that follows a lost one begins where the results end (`ctx.recorded`), so no input is computed twice
whose result was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from cluster import codecs
from cluster._failures import failure_of
from cluster.errors import Fatal
from cluster.records import Result
from net import values

KEEP_EVERY: Final = 0.5  # seconds between two writes to the store: what a crash may repeat
_ROW_BYTES: Final = 256 * 1024  # of one row of results, unless a single value is larger
_UNSENT_BYTES: Final = 4 * 1024 * 1024


class Recorder:
    """The results of one execution. `keep` takes those that are complete to the store; it may do so later."""

    def __init__(
        self,
        index: int,
        weight: int,
        recorded: int,
        codec: str,
        max_payload: int,
        keep: Callable[[list[Result]], None] | None,
    ) -> None:
        self.index = index
        self.weight = weight
        self.recorded = recorded  # of its inputs, how many have results: kept, or here
        self._codec = codec
        self._max_payload = max_payload
        self._keep = keep
        self._rows: list[Result] = []
        self._unsent = 0  # bytes in them
        self._values: list[bytes] = []
        self._size = 0
        self._kept = monotonic()

    def add(self, value: Any) -> None:
        """The next input's result. Raises Fatal for one too many, or too large; NotSendable."""
        self._check_room()
        data = codecs.encode((value,), self._codec)
        if len(data) > self._max_payload:
            raise Fatal(
                f"the result of input {self.index + self.recorded} has {len(data)} bytes, and {self._max_payload} are "
                "allowed; put it where others can read it, and say where"
            )
        if self._values and self._size + len(data) > _ROW_BYTES:
            self._close_row()
        self._values.append(value)
        self._size += len(data)
        self.recorded += 1
        self._keep_if_due()

    def add_failure(self, error: BaseException | dict[str, Any]) -> None:
        """The next input failed."""
        self._check_room()
        self._close_row()
        if isinstance(error, BaseException):
            error = failure_of(error)
        data = values.dumps(error)
        self._rows.append(Result(self.index + self.recorded, 1, data, failed=True))
        self._unsent += len(data)
        self.recorded += 1
        self._keep_if_due()

    def rest(self) -> list[Result]:
        """What was not given to `keep`."""
        self._close_row()
        rows, self._rows, self._unsent = self._rows, [], 0
        return rows

    def _check_room(self) -> None:
        if self.recorded >= self.weight:
            raise Fatal(f"all {self.weight} inputs of this task have results already")

    def _close_row(self) -> None:
        if self._values:
            first = self.index + self.recorded - len(self._values)
            data = codecs.encode(tuple(self._values), self._codec)
            self._rows.append(Result(first, len(self._values), data))
            self._unsent += len(data)
            self._values, self._size = [], 0

    def _keep_if_due(self) -> None:
        now = monotonic()
        if self._keep is not None and (
            now - self._kept >= KEEP_EVERY or self._unsent + self._size > _UNSENT_BYTES
        ):
            self._kept = now
            self._keep(self.rest())


def results_of(value: Any, recorder: Recorder) -> Sequence[Result]:
    """The results of a task that has an index and ended: what it recorded, or else what it returned.

    Raises Fatal when it returned another number of results than it has inputs.
    """
    missing = recorder.weight - recorder.recorded
    if not missing:
        return recorder.rest()
    if recorder.weight == 1:
        recorder.add(value)
    elif isinstance(value, list | tuple) and len(value) == missing:
        for one in value:
            recorder.add(one)
    else:
        raise Fatal(
            f"the task stands for {recorder.weight} inputs, {recorder.recorded} of which have results; it has to "
            f"return {missing} more, or ctx.record() them, and returned {type(value).__name__}"
        )
    return recorder.rest()
