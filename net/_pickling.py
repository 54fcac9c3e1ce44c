"""Pickling by value, for `_delivery`. Importing it needs the extra "notebook"."""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle

from tasklets import channel


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, channel):  # the copy would be another channel, to which nobody listens
            raise pickle.PicklingError(f"{value!r} lives in one process")
        return super().reducer_override(value)


def dumps(value: object) -> bytes:
    """Pickle a value, functions and classes of the program itself by value. Raises what the value's parts raise."""
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()
