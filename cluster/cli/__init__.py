"""The commands `tasklets cluster ...`.

nodes     worker, coordinator, up, down
tasks     status, members, tasks, dead, replay, submit, events, config
jobs      jobs, job, start, signal, abort, trace
"""

from cluster.cli import jobs as jobs, nodes as nodes, tasks as tasks
from cluster.cli._common import cluster as cluster
