"""Directives on clusters that somebody has already, each in a process of its own: ... somebody_elses dask | ray"""

from __future__ import annotations

import os
import sys

import pytest

from cluster import IndexedStream, OperationError, Skipped
from examples.primes.arithmetic import partition, primes_in
from tests.cluster.directives import ops


def check(where: object) -> None:
    """What has to be true of every engine."""
    assert IndexedStream(range(1, 11)).map(ops.fib).fold(ops.Sum()).run(where) == 143
    assert IndexedStream(iter(range(3000))).map(ops.double).run(where).values_sorted() == [
        2 * x for x in range(3000)
    ]
    words = [f"{number} " for number in range(500)]
    assert IndexedStream(words).fold(ops.Concat(), fan_in=3).run(where) == "".join(words)
    chunks = list(partition(0, 20_000, 333))
    assert IndexedStream(chunks).map(ops.primes).fold(ops.Join()).run(where) == primes_in(0, 20_000)
    skipped = dict(IndexedStream(range(20)).map(ops.picky).run(where, on_error="skip"))
    assert [index for index, value in sorted(skipped.items()) if isinstance(value, Skipped)] == [3, 13]
    with pytest.raises(OperationError, match=r"ValueError: not 1?3"):
        IndexedStream(range(20)).map(ops.picky).run(where).values_sorted()
    pids = IndexedStream(range(40)).map(ops.pid_of, chunk=1).run(where).values_sorted()
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


def main(name: str) -> None:
    if name == "dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            check(client)
    else:
        import ray

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
        )
        check(ray)
        ray.shutdown()
    print("all is well")


if __name__ == "__main__":
    main(*sys.argv[1:])
