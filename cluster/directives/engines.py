"""Where a directive is run: chooses the engine by what it is given."""

from __future__ import annotations

from concurrent.futures import Executor
from types import ModuleType
from typing import Any

from cluster._job_handle import JobClient
from cluster.directives import crews, durable
from cluster.directives.driver import Crew, Drive
from cluster.directives.plans import Options, Plan
from cluster.directives.results import Evaluation
from cluster.errors import ClusterError

# By what a cluster that somebody has already is known; none of them is imported for that.
_DASK = "distributed"
_RAY = "ray"


def evaluate(plan: Plan, where: Any, options: Options) -> Evaluation:
    """Begin a plan where it is to be run. Raises ClusterError when that is no such place."""
    plan.check()
    if isinstance(where, JobClient):
        return durable.run(plan, where, options)
    return Drive(plan, _crew(where), options)


def _crew(where: Any) -> Crew:
    if isinstance(where, str) or (hasattr(where, "spawn") and hasattr(where, "nodes")):
        return crews.PlaceCrew(where)
    if isinstance(where, Executor):
        return crews.FuturesCrew(where.submit, getattr(where, "_max_workers", 1))
    if isinstance(where, ModuleType) and where.__name__ == _RAY:
        return crews.ray_crew(where)
    if type(where).__module__.partition(".")[0] == _DASK and hasattr(where, "get_executor"):
        return crews.dask_crew(where)
    raise ClusterError(
        f"a directive cannot run on {where!r}; it runs on a Client, a place or its name ('here', 'processes:4', "
        "'hosts:alpha:7000'), an executor of concurrent.futures, a Dask client, or the module ray"
    )
