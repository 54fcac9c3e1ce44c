"""What master and workers say to each other: five read-only messages.

worker -> master   Join(name, pid, chunks, results)            once, with two channels that live at the worker
master -> worker   Chunk(index, lo, hi, attempt, algorithm)    over the worker's `chunks`, closed at the end
worker -> master   Progress(index, attempt, reached)           over the worker's `results`, while it computes
worker -> master   Result(index, attempt, ...)                 over the worker's `results`, one for each chunk
worker -> master   Leave()                                     over the worker's `results`, when it wants no more
"""

from tasklets import channel, message


@message(name="primes.Chunk")
class Chunk:
    """A piece of the range, `[lo, hi)`, to be searched."""

    index: int  # its place in the order of the answer, from 0
    lo: int
    hi: int
    attempt: int  # counts from 1; a higher one makes the results of the lower ones void
    algorithm: str = "trial"


@message(name="primes.Progress")
class Progress:
    """A sign of life of a worker that computes, every BEAT_SECONDS."""

    index: int
    attempt: int
    found: int  # primes so far


@message(name="primes.Result")
class Result:
    """The primes of one chunk, as one attempt found them."""

    index: int
    attempt: int
    primes: tuple[int, ...]
    seconds: float  # of computing, without the way there and back


@message(name="primes.Leave")
class Leave:
    """A worker has finished its chunk and wants no more; the master closes its `chunks`."""


@message(name="primes.Join")
class Join:
    """A worker offers itself. Both channels live there, so who talks over them notices when it dies."""

    name: str
    pid: int
    chunks: channel
    results: channel
