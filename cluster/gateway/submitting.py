"""From a request to a job and its shards.

The inputs stay JSON text until the shard that they are part of is made, so that a list of millions is held on disk and
in the store, and never in memory.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, Final
from urllib.parse import urlsplit

import gevent
import msgspec

from cluster import _shards, shell
from cluster._failpoints import fail_point
from cluster.directives import chunks
from cluster.errors import InvalidArguments, JobNotFound
from cluster.gateway import messages
from cluster.gateway.messages import NewJobBody
from cluster.gateway.options import Options
from cluster.gateway.problems import Problem
from cluster.gateway.service import body_errors
from cluster.records import Job, NewJob, NewTask, make_id
from cluster.stores import Store
from cluster.tasks import make_task
from net import values
from tasklets import NotSendable

SHARD_BYTES: Final = 256 * 1024  # of the inputs of one shard, as JSON
BATCH_BYTES: Final = 4 << 20  # of the shards of one transaction
BATCH_TASKS: Final = 500
TURN: Final = 1000  # lines, between two looks at other requests


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a submission asks for, checked, but for its inputs."""

    body: NewJobBody
    job: NewJob
    op: str
    program: dict[str, Any] | None  # of a template

    def check_input(self, line: bytes, index: int) -> Any:
        """The value of an input. Raises Problem, saying which one it is."""
        try:
            value = messages.value_of(line)
            if self.program is not None:
                return shell.argument_of(value, index)
            values.dumps(value)
        except ValueError as error:
            if isinstance(error, InvalidArguments):
                raise
            raise Problem(
                400, "invalid", f"input {index} is no JSON: {error}", path=f"$.inputs[{index}]"
            ) from None
        except NotSendable as error:
            raise Problem(400, "invalid", f"input {index}: {error}", path=f"$.inputs[{index}]") from None
        return value


def wanted(body: NewJobBody, options: Options, key: str | None, group: str) -> Wanted:
    """Check what a submission asks for. Raises Problem, InvalidArguments."""
    chosen = [
        word
        for word, given in (
            ("operation", body.operation),
            ("template", body.template),
            ("class", body.class_),
        )
        if given is not None
    ]
    if len(chosen) != 1:
        raise Problem(
            400, "invalid",
            f"a job has one of operation, template and class; this one has {' and '.join(chosen) or 'none of them'}",
        )  # fmt: skip
    program = None
    check_name(body.operation or "")
    if body.template is not None:
        if not options.allow_shell:
            raise Problem(
                403, "no_shell",
                "templates are switched off here; start the gateway, and workers, with --allow-shell to run programs "
                "of everybody who reaches it",
            )  # fmt: skip
        program = asdict(
            shell.make_program(
                body.template, body.variables, interpreter=body.interpreter, time_limit=body.time_limit,
                output_bytes=body.output_bytes,
            )
        )  # fmt: skip
    if body.args is not None and (body.operation is None or body.inputs is not None):
        raise Problem(400, "invalid", "args are for one call of an operation, and stand instead of inputs")
    if body.params is not None and body.class_ is None:
        raise Problem(400, "invalid", "params are for a job class")
    check_webhook(body.webhook, options)
    meta = {"what": _what(body), "fingerprint": _fingerprint(body)}
    if body.webhook is not None:
        meta["webhook"] = body.webhook
    job = NewJob(
        job_id=body.id or (derived_id("job", group, key) if key else make_id()),
        name=body.name or "",
        queue=body.queue,
        priority=max(1, body.priority),
        description=body.description,
        by="gateway",
        fail_fast=body.fail_fast,
        ttl=body.ttl,
        closed=True,
        meta=json.dumps(meta).encode(),
    )
    return Wanted(body, job, shell.OPERATION if program else body.operation or "", program)


def check_name(operation: str) -> None:
    """Refuse our own operations: by them, templates could be run where those are switched off. Raises Problem."""
    if operation.startswith("cluster:"):
        raise Problem(
            403, "reserved", f"{operation} is not called by its name; submit a job with inputs, or a template"
        )


def check_webhook(url: str | None, options: Options) -> None:
    """Refuse an address that nobody has allowed. Raises Problem."""
    if url is None:
        return
    try:
        origin = origin_of(url)
    except ValueError as error:
        raise Problem(400, "invalid", str(error), path="$.webhook") from None
    if origin not in options.webhooks:
        raise Problem(
            403,
            "no_webhook",
            f"nobody at {origin} is told of ends here; start the gateways with --webhook {origin}",
        )


def origin_of(url: str) -> str:
    """The scheme, host and port of an address. Raises ValueError for what is none, or has a name or password in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{url!r} is no address such as https://ci.example.com/hook")
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _what(body: NewJobBody) -> str:
    if body.template is not None:
        return f"{body.interpreter}: {body.template[:200]}"
    return body.operation or body.class_ or ""


def _fingerprint(body: NewJobBody) -> str:
    """What a second submission with the same key has to have, too."""
    rest = {key: value for key, value in messages.plain(replaced_inputs(body)).items() if key != "id"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for line in body.inputs or ():
        digest.update(bytes(line) + b"\n")
    return digest.hexdigest()[:32]


def replaced_inputs(body: NewJobBody) -> NewJobBody:
    """A body without its inputs."""
    return msgspec.structs.replace(body, inputs=None)


def derived_id(kind: str, group: str, key: str) -> str:
    """The id that an Idempotency-Key stands for: the same at every gateway, and known to nobody without the key."""
    return hashlib.sha256(f"{kind}\0{group}\0{key}".encode()).hexdigest()[:32]


def of_meta(meta: bytes) -> dict[str, Any]:
    """What `wanted` put into a job; empty for one that came otherwise."""
    try:
        found = json.loads(meta)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------------------------------------ shards


def make_shards(wanted: Wanted, lines: Iterable[bytes], total: int, shards: int) -> Iterator[NewTask]:
    """The tasks of a job's inputs, in order: contiguous, and none with more than SHARD_BYTES, or a single input."""
    lines = iter(lines)
    for low, high in _shards.split(total, shards):
        first, size, gathered = low, 0, list[Any]()
        for index in range(low, high):
            line = next(lines)
            if gathered and size + len(line) > SHARD_BYTES:
                yield _shard(wanted, first, gathered)
                first, size, gathered = index, 0, []
            gathered.append(wanted.check_input(line, index))
            size += len(line)
        if gathered:
            yield _shard(wanted, first, gathered)


def _shard(wanted: Wanted, index: int, inputs: list[Any]) -> NewTask:
    fields: dict[str, Any] = {
        "queue": wanted.body.queue,
        "priority": wanted.body.priority,
        "job_id": wanted.job.job_id,
        "index": index,
        "weight": len(inputs),
    }
    task_id = f"{wanted.job.job_id}-{index:08d}"  # the same when it is submitted again
    if wanted.program is not None:
        return make_task(wanted.op, (wanted.program, tuple(inputs)), {}, id=task_id, **fields)
    # An input that fails is its own result (D-18). The task bears the operation's name, so those get it who know it.
    each = chunks.Program((chunks.Step(chunks.MAP, wanted.op),), on_error=chunks.REPORT)
    return NewTask(wanted.op, chunks.pack(each, inputs), task_id=task_id, **fields)


def make_call(wanted: Wanted) -> NewTask:
    """The one task of an operation that was given its arguments."""
    assert wanted.body.args is not None
    return make_task(
        wanted.op,
        tuple(wanted.body.args),
        {},
        id=f"{wanted.job.job_id}-{0:08d}",
        queue=wanted.body.queue,
        priority=wanted.body.priority,
        job_id=wanted.job.job_id,
        index=0,
    )


def batches(tasks: Iterable[NewTask]) -> Iterator[list[NewTask]]:
    """Gather tasks for one transaction each."""
    batch: list[NewTask] = []
    size = 0
    for task in tasks:
        if batch and (size + len(task.args) > BATCH_BYTES or len(batch) == BATCH_TASKS):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += len(task.args)
    yield batch


def shards_of(store: Store, wanted: Wanted) -> int:
    """How many shards a job is cut into: as it says, or four for each slot that serves its queue now.

    A worker that was not heard of lately does not count (D-10). Those that come later take their share, as
    shards are pulled.
    """
    queue = wanted.body.queue
    serving = (m for m in store.members() if m.role == "worker" and m.state == "up" and queue in m.queues)
    return wanted.body.shards or _shards.shards_for(sum(m.slots for m in serving))


# ------------------------------------------------------------------------------------------------ uploads


class Upload:
    """A list of inputs that came as lines of JSON: on disk."""

    def __init__(self, file: IO[bytes], count: int, fingerprint: str) -> None:
        self._file = file
        self.count = count
        self.fingerprint = fingerprint

    def lines(self) -> Iterator[bytes]:
        """The inputs, as they came."""
        self._file.seek(0)
        for number, line in enumerate(self._file):
            if number % TURN == 0:
                gevent.sleep(0)
            yield line

    def close(self) -> None:
        """Forget them."""
        self._file.close()


class Lines:
    """The lines of a request's body, with limits."""

    def __init__(self, stream: Any, options: Options) -> None:
        self._stream = stream
        self._options = options
        self._size = 0

    def next(self) -> bytes:
        """The next line that is not blank; empty at the end. Raises Problem for what is too large."""
        while True:
            with body_errors():
                line: bytes = self._stream.readline(self._options.max_line + 1)
            self._size += len(line)
            if len(line) > self._options.max_line:
                raise Problem(413, "too_large", f"a line has more than {self._options.max_line} bytes")
            if self._size > self._options.max_upload:
                raise Problem(413, "too_large", f"the body has more than {self._options.max_upload} bytes")
            if not line or line.strip():
                return line.strip()


def receive(lines: Lines, wanted: Wanted, options: Options) -> Upload:
    """Take the inputs of an upload, check each one, and keep them on disk. Raises Problem. Blocks."""
    file = tempfile.TemporaryFile(prefix="upload-")  # noqa: SIM115  Upload closes it
    digest = hashlib.sha256()
    count = 0
    try:
        while line := lines.next():
            if count >= options.max_inputs:
                raise Problem(
                    413, "too_many", f"a job has at most {options.max_inputs} inputs; make several jobs"
                )
            wanted.check_input(line, count)
            file.write(line + b"\n")
            digest.update(line + b"\n")
            count += 1
            if count % TURN == 0:
                gevent.sleep(0)
    except BaseException:
        file.close()
        raise
    return Upload(file, count, digest.hexdigest()[:32])


def with_inputs(job: NewJob, upload: Upload, shards: int) -> NewJob:
    """A job that remembers which inputs it has, and how they were cut: who goes on with it has to cut alike."""
    meta = of_meta(job.meta)
    meta["fingerprint"] += upload.fingerprint
    meta["shards"] = shards
    return replace(job, meta=json.dumps(meta).encode())


def check_same(job: Job, new: NewJob) -> None:
    """Raise Problem when a job with the same id, or key, is another one."""
    there, here = of_meta(job.meta).get("fingerprint"), of_meta(new.meta)["fingerprint"]
    if there != here:
        raise Problem(
            409, "other_job",
            f"there is a job {job.job_id} already, and it is another one; a key, or an id, is for one submission",
        )  # fmt: skip


def start(store: Store, job: NewJob, tasks: list[NewTask]) -> tuple[Job, bool]:
    """Store a job and its tasks; returns it, and whether it is new. Raises Problem for another job of that id."""
    fail_point("gateway-before-start")
    job_id, how = store.start(job, tasks)
    fail_point("gateway-started")
    there = store.job(job_id)
    if there is None:
        raise JobNotFound(f"job {job_id} was deleted while it was submitted")
    if how == "known":
        check_same(there, job)
    elif how == "merged":
        raise Problem(
            409, "name_taken",
            f"job {job_id} is called {there.name!r} and has not ended; wait for it, or give another name",
        )  # fmt: skip
    return there, how == "new"
