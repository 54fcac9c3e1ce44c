"""The commands `tasklets cluster ...`.

nodes     worker, coordinator, up, down
tasks     status, members, tasks, dead, replay, submit, events, config
"""

from cluster.cli import nodes as nodes, tasks as tasks
from cluster.cli._common import cluster as cluster
