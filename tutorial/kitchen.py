"""What chapters 12, 14 and 15 bake: operations, signals, and a job."""

from __future__ import annotations

import time
from typing import Any

from cluster import Job, Retry, TaskEnded, operation
from tasklets import message


@operation(retry=Retry(max=1, base=0.05))
def bake(layer: str) -> str:
    """Bake one layer of a cake. It takes its time; dough has to rise first."""
    time.sleep(1.5 if layer == "dough" else 0.1)
    if layer == "stone":
        raise ValueError("nobody can eat stone")
    return f"{layer} layer"


@message
class AddLayer:
    """A signal: the cake shall have one more."""

    layer: str


@message
class HowFar:
    """A signal: how far is the cake?"""

    unit: str


class Cake(Job):
    """Has its layers baked, puts them together, and answers the telephone meanwhile."""

    def start(self, params: Any) -> None:
        """Order the layers."""
        for layer in params["layers"]:
            self.spawn(bake, layer)

    def on_task_done(self, task: TaskEnded, result: Any) -> None:
        """Keep a layer that is ready."""
        self.data["ready"] = (*self.data.get("ready", ()), result)

    def on_task_failed(self, task: TaskEnded, error: Exception) -> None:
        """Give up: a cake with a hole is no cake."""
        self.fail(error)

    def on_signal_AddLayer(self, signal: AddLayer) -> int:
        """Order one more; the answer is how many that makes."""
        self.spawn(bake, signal.layer)
        return self.total

    def on_signal_HowFar(self, signal: HowFar) -> str:
        """Say how far it is."""
        return f"{self.done} of {self.total} {signal.unit}"

    def on_all_done(self) -> None:
        """Put the layers together, the cake is done."""
        self.finish(" on ".join(sorted(self.data["ready"])))


@operation
def roll(number: int) -> int:
    """Bake one roll; what comes out is its number, squared, so that nobody can guess it."""
    time.sleep(0.05)
    return number * number
