"""What the examples' pictures have in common: whether one can be drawn is found out before the work, not after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS = (".png", ".svg", ".pdf")


class CannotPlot(Exception):
    """There is no picture; the message says why and what to do."""


def check_plot(path: Path) -> None:
    """Find out whether a picture can be drawn to `path`. Raises CannotPlot."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CannotPlot("drawing needs matplotlib; install it: pip install 'tasklets[plot]'") from error
    if path.suffix not in FORMATS:
        raise CannotPlot(f"cannot draw {path.name!r}; name a file that ends in {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise CannotPlot(f"there is no folder {path.parent} to draw {path.name} in; make it first")


def _check(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        check_plot(path)
    return path


def plot_option(what: str) -> Callable[[_F], _F]:
    """Return the option --plot FILE; `what` completes "Draw ...", and the file is checked at once."""
    return click.option(
        "--plot",
        metavar="FILE",
        type=click.Path(path_type=Path),
        callback=_check,
        help=f"Draw {what}: a .png, .svg or .pdf.  [needs matplotlib]",
    )
