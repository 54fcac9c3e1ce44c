"""What a running directive gives: results as they come, or sorted; or the value of a fold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import Any, Protocol

from cluster import codecs
from cluster.directives.chunks import DEFAULT, RAISE, REPORT
from cluster.errors import make_operation_error
from net import values


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for an input whose operation failed for good."""

    index: int
    error: Exception


class Evaluation(Protocol):
    """A directive in an engine. Either `results` or `value` is called, and once."""

    many: bool  # whether one input may have any number of outputs

    def results(self) -> Results:
        """The results of a map."""

    def value(self) -> Any:
        """Wait for the value of a fold. Blocks."""


class Results:
    """Pairs of an index and a value, in the order in which they get ready. Iterate once, or ask for `values_sorted`.

    With `on_error="skip"` a `Skipped` stands for a failed input. Leaving it half-way (an exception, Ctrl-C, `close`,
    the end of the with-block, losing the last reference to it) cancels what is not done yet.
    """

    def __init__(
        self,
        pairs: Generator[tuple[int, Any], None, None],
        cancel: Callable[[], None],
        *,
        on_error: str,
        job_id: str = "",
    ) -> None:
        self.job_id = job_id  # where there is a store
        self._on_error = on_error
        self._pairs = pairs
        # It holds no reference to us, and is called at the interpreter's end too, when a traceback may still hold us.
        self._cancel = weakref.finalize(self, cancel)

    def __repr__(self) -> str:
        state = "open" if self._cancel.alive else "closed"
        return f"<Results {self.job_id} {state}>".replace("  ", " ")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        try:
            return next(self._pairs)
        except BaseException:  # the end, too
            self.close()
            raise

    def values_sorted(self) -> list[Any]:
        """All values in the order of their indices, without those that were skipped. Blocks until the end.

        Raises OperationError for an input that failed and was to be ignored, unless on_error="skip" was asked for.
        """
        pairs = sorted(self, key=itemgetter(0))
        skipped = [value for _, value in pairs if type(value) is Skipped]
        if skipped and self._on_error == REPORT:
            raise skipped[0].error
        return [value for _, value in pairs if type(value) is not Skipped]

    def close(self) -> None:
        """Cancel what is not done yet; nothing follows then. Closing twice is fine."""
        if self._cancel.alive:
            self._cancel()
            self._pairs.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def outputs_of(
    first: int, count: int, value: bytes, *, failed: bool, many: bool, on_error: str, default: Any
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Of each input of a row of results, its index and its outputs: one, or with `many` any number of them.

    What stands for one that has failed follows from `on_error`. Raises its OperationError, if that is what does.
    """
    if failed:
        for index in range(first, first + count):
            yield index, (_failed_value(index, value, on_error, default),)
    else:
        for index, output in enumerate(codecs.decode(value), first):
            yield index, output if many else (output,)


def _failed_value(index: int, error: bytes, on_error: str, default: Any) -> Any:
    failure = make_operation_error(dict(values.loads(error)))
    if on_error == RAISE:
        raise failure
    return default if on_error == DEFAULT else Skipped(index, failure)
