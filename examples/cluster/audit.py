"""An audit: a job spreads the shards of all transactions over the workers, and compares what they find with the books.

python -m examples.cluster.audit
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from cluster import Job, TaskEnded, operation
from examples.cluster.group import open_group

SHARDS, TRANSACTIONS = 12, 10_000


@operation
def add_up(shard: int) -> dict[str, int]:
    """Add up the transactions of one shard, account by account."""
    dice, totals = Random(shard), Counter[str]()
    for _ in range(TRANSACTIONS):  # a shard of yours is a file, or a range of keys
        totals[f"account {dice.randrange(5)}"] += dice.randint(-100, 100)
    return dict(totals)


class Audit(Job):
    """Sleeps in the store while workers add up; is told of each shard, and keeps the sums."""

    def start(self, params: Any) -> None:
        """Begin one task for each shard; all of them appear, or none."""
        for shard in range(SHARDS):
            self.spawn(add_up, shard)

    def on_task_done(self, task: TaskEnded, result: Any) -> None:
        """Take in a shard. `data` lasts, and counts together with the fact that this shard was taken in."""
        for account, amount in result.items():
            self.data[account] = self.data.get(account, 0) + amount

    def on_all_done(self) -> None:
        """Compare with the books."""
        books = self.params["books"]
        self.finish({name: (books[name], found) for name, found in self.data.items() if found != books[name]})


def main() -> None:
    """Keep books with one mistake in them, and have it found."""
    books = Counter({"account 3": 1})
    for shard in range(SHARDS):
        books.update(add_up(shard))
    with open_group(__spec__.name, workers=2) as group:
        job = group.client.start(Audit, {"books": dict(books)}, name="audit")
        for account, (booked, found) in job.result(timeout=60).items():
            print(f"{account}: the books say {booked}, the transactions {found}")
        print(f"{job.progress()[0]} shards of {TRANSACTIONS} transactions were added up")


if __name__ == "__main__":
    main()
