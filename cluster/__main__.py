"""`python -m cluster worker ...` is `tasklets cluster worker ...`."""

from cluster.cli import cluster

if __name__ == "__main__":
    cluster(prog_name="python -m cluster")
