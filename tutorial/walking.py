"""The walk of chapter 13: operations, and ways to put two values together."""

from __future__ import annotations

import time

from cluster import Retry, monoid, operation


@operation(retry=Retry(max=0))
def survey(leg: tuple[int, ...]) -> tuple[int, int]:
    """How much higher than at its beginning a leg of the walk ends; and how high its highest point is."""
    height = highest = 0
    for step in leg:
        height += step
        highest = max(highest, height)
    return height, highest


@operation(retry=Retry(max=0))
def survey_slowly(leg: tuple[int, ...]) -> tuple[int, int]:
    """The same, with a pause on the way."""
    time.sleep(0.06)
    result: tuple[int, int] = survey(leg)
    return result


@monoid
class Onward:
    """Two legs, one after the other, are a longer leg."""

    def empty(self) -> tuple[int, int]:
        """A leg without a step."""
        return 0, 0

    def combine(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        """The second one begins where the first one ends."""
        return a[0] + b[0], max(a[1], a[0] + b[1])


@monoid
class Middle:
    """The mean of two numbers. Looks harmless."""

    def empty(self) -> float:
        """What should be neutral."""
        return 0.0

    def combine(self, a: float, b: float) -> float:
        """The one in the middle."""
        return (a + b) / 2
