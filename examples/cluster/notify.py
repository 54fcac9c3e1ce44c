"""Notifications: stored in a moment, delivered by whoever is free, tried again while a phone cannot be reached.

python -m examples.cluster.notify
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter

from cluster import Context, OperationError, Retry, operation
from examples.cluster.group import open_group

PEOPLE = [f"{name}{number}" for number in range(1, 11) for name in ("ann", "bob", "cat")]


class OutOfReach(Exception):
    """The network has no way to a phone now."""


@operation(retry=Retry(max=2, base=0.05, cap=0.1), transient=(OutOfReach,))
def notify(ctx: Context, person: str) -> tuple[str, int]:
    """Deliver one notification; cats switch their phones on late, and cat10 never does. Return by whom and when."""
    if person == "cat10" or (person.startswith("cat") and ctx.attempt == 1):
        raise OutOfReach(f"the phone of {person} is switched off")
    return ctx.worker, ctx.attempt


def main() -> None:
    """Notify everybody, and say what came of it."""
    with open_group(__spec__.name, workers=2) as group:
        began = perf_counter()
        handles = group.client.with_options(priority=1).map(notify, PEOPLE)
        print(f"{len(handles)} notifications are stored, all or none, after {perf_counter() - began:.3f} s")

        workers: Counter[str] = Counter()
        attempts: Counter[int] = Counter()
        for person, handle in zip(PEOPLE, handles, strict=True):
            try:
                worker, attempt = handle.result(timeout=60)
                workers[worker] += 1
                attempts[attempt] += 1
            except OperationError as error:
                print(f"{person} was not reached in {error.attempts} attempts: {error.message}")
        print(f"{workers.total()} were delivered by {len(workers)} workers")
        print(f"{attempts[1]} at the first attempt, {attempts[2]} at the second")
        print(f"dead letters, to be looked at and replayed: {len(list(group.client.dead()))}")


if __name__ == "__main__":
    main()
