"""For cells that break something on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

SOURCE = re.compile(r"(?:[^\s\"']*/)([\w-]+\.py)")  # a file's folder, which is another one on each machine


@contextmanager
def breaks(kind: type[BaseException]) -> Iterator[None]:
    """Show the error that the block raises. It is an error if it raises none, or one of another kind."""
    try:
        yield
    except kind as error:
        print(f"{type(error).__name__}: {SOURCE.sub(lambda found: found[1], str(error))}")
    else:
        raise AssertionError(f"this should have raised {kind.__name__}, and did not")
