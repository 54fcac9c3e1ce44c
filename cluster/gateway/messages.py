"""What goes in and out as JSON. The OpenAPI document is made of these classes, so it cannot say anything else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

import falcon
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cluster.gateway.problems import Problem

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{8,64}$",
        description="Chosen by the client: 8 to 64 letters, digits, _ or -; taken once.",
    ),
]
Priority = Annotated[int, Meta(ge=-1000, le=1000)]
Seconds = Annotated[float, Meta(ge=0, le=3.2e9)]


class NewJobBody(Struct, forbid_unknown_fields=True, kw_only=True, rename={"class_": "class"}):
    """A job: an `operation`, or a `template`, for each input; or a job class with `params`."""

    operation: (
        Annotated[Name, Meta(description='Such as "module:function"; each input is its one argument.')] | None
    ) = None
    args: (
        Annotated[list[Any], Meta(description="Instead of inputs: one call of the operation, with these.")]
        | None
    ) = None
    template: (
        Annotated[str, Meta(description="A script; {{name}} stands for a variable. $1 is the input.")] | None
    ) = None
    interpreter: Literal["sh", "bash", "python"] = "sh"
    variables: dict[str, Any] = {}
    time_limit: (
        Annotated[float, Meta(gt=0, le=3.2e9, description="Seconds for one input of a template.")] | None
    ) = None
    output_bytes: Annotated[int, Meta(ge=1, le=262_144)] = 65_536
    inputs: list[msgspec.Raw] | None = None
    class_: Annotated[Name, Meta(description='A job class, such as "module:Audit".')] | None = None
    params: Any = None
    id: Id | None = None
    name: Annotated[Name, Meta(description="Of living jobs only one has it.")] | None = None
    description: Annotated[str, Meta(max_length=10_000)] = ""
    queue: Name = "default"
    priority: Priority = 0
    fail_fast: Annotated[bool, Meta(description="The first input that fails, fails the job.")] = False
    ttl: Annotated[Seconds, Meta(description="Seconds that it is kept after its end.")] | None = None
    shards: Annotated[int, Meta(ge=1, le=100_000, description="Four for each slot, if not said.")] | None = (
        None
    )
    webhook: (
        Annotated[
            str,
            Meta(
                max_length=2000,
                pattern=r"^https?://[!-\[\]-~]+$",
                description="Told by POST that the job has ended: its id, state and url. The gateway has to allow it.",
            ),
        ]
        | None
    ) = None


class Accepted(Struct, kw_only=True):
    """What was taken, or had been already."""

    id: str
    state: str
    url: str


class NewTaskBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """One call of an operation."""

    operation: Name
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    id: Id | None = None
    queue: Name = "default"
    priority: Priority = 0
    delay: Seconds = 0.0
    deadline: Seconds | None = None
    partition_key: Name | None = None
    ordering_key: Name | None = None
    coalesce_key: Name | None = None


class SignalBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A signal to a job. The types named here mean the same to every job; others are up to its class."""

    type: Annotated[
        Name,
        Meta(
            description="cancel, finish, pause, suspend, resume, terminate, or a name the job's class knows."
        ),
    ]
    body: Any = None
    id: Annotated[Id, Meta(description="A job takes an id once, however often it is sent.")] | None = None
    wait: Annotated[float, Meta(ge=0, le=60, description="Seconds to wait for the answer.")] = 5.0


class JobView(Struct, kw_only=True, rename={"class_": "class"}):
    """A job. The counts are of its inputs."""

    id: str
    state: str
    name: str
    class_: str
    operation: Annotated[
        str, Meta(description="What is run for each input, or the beginning of its template.")
    ]
    queue: str
    description: str
    total: int
    done: int
    failed: int
    closed: Annotated[bool, Meta(description="No more inputs come.")]
    created: float
    started: float | None
    updated: float
    ended: float | None
    by: str
    reason: str
    detail: Annotated[str, Meta(description="What a person should know: why nothing happens, say.")]
    result: Any
    error: Any
    version: int
    url: str
    results: str


class JobList(Struct, kw_only=True):
    """A page of jobs, by id, which is by age."""

    jobs: list[JobView]
    next: Annotated[str, Meta(description="The path of the next page.")] | None


class ResultView(Struct, kw_only=True):
    """What became of one input: a value; or an error, and what there is all the same."""

    index: int
    value: Any | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    cursor: (
        Annotated[str, Meta(description="Of a line that was followed: ?after= it goes on behind this one.")]
        | UnsetType
    ) = UNSET


class ResultList(Struct, kw_only=True):
    """The results of the inputs from..from+limit-1 that have ended, by index."""

    results: list[ResultView]
    total: int
    complete: Annotated[bool, Meta(description="The job has ended, so that no result comes any more.")]
    next: str | None


class TaskView(Struct, kw_only=True):
    """A task."""

    id: str
    operation: str
    queue: str
    state: str
    priority: int
    attempts: int
    losses: int
    step: str
    worker: str
    job: str
    index: int | None
    weight: int
    recorded: int
    created: float
    due: float
    ended: float | None
    result: Any
    error: Any
    detail: str
    url: str


class TaskList(Struct, kw_only=True):
    """A page of tasks, by id, which is by age."""

    tasks: list[TaskView]
    next: str | None


class ReplayBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters are to be ready again."""

    tasks: list[str] = []
    all: bool = False


class Count(Struct, kw_only=True):
    """How many it were."""

    count: int


class MemberView(Struct, kw_only=True):
    """A node of the group."""

    node: str
    role: str
    state: str
    slots: int
    running: int
    queues: list[str]
    operations: list[str]
    labels: list[str]
    host: str
    pid: int
    version: str
    joined: float
    lease_seconds: float


class MemberList(Struct, kw_only=True):
    """The nodes whose lease runs."""

    group: str
    leader: str | None
    slots: int
    members: list[MemberView]


class QueueView(Struct, kw_only=True):
    """A queue: its tasks by state, and what was configured for it."""

    name: str
    tasks: dict[str, int]
    oldest_ready: float | None
    paused: bool
    max_waiting: int


class QueueList(Struct, kw_only=True):
    """The queues, and what happened since the group was made."""

    queues: list[QueueView]
    counters: dict[str, int]


class QueueBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to change of a queue."""

    paused: bool | None = None
    max_waiting: Annotated[int, Meta(ge=0, le=2_000_000_000)] | None = None


class EventView(Struct, kw_only=True):
    """A line of the journal."""

    seq: str
    at: float
    kind: str
    subject: str
    by: str
    detail: str


class EventList(Struct, kw_only=True):
    """A page of the journal."""

    events: list[EventView]
    next: str | None


class SignalReply(Struct, kw_only=True):
    """What a signal was answered."""

    status: Annotated[str, Meta(description="ok, unknown, not_found, ended, timeout, failed")]
    value: Any
    error: dict[str, Any] | None
    id: Annotated[str, Meta(description="Send it again with this id, to go on waiting for the answer.")]
    job: JobView | None


class Health(Struct, kw_only=True):
    """Whether this gateway can do its work."""

    status: str
    group: str
    store: str


class ProblemView(Struct, kw_only=True):
    """What is wrong, and what to do (RFC 9457)."""

    status: int
    title: str
    code: str
    detail: str
    variable: str = ""
    job_state: str = ""
    path: str = ""


S = TypeVar("S", bound=Struct)


def decoded(data: bytes, cls: type[S]) -> S:
    """Read a body. Raises Problem, naming the field."""
    try:
        return msgspec.json.decode(data, type=cls)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        if "unknown field" in text:
            text += f"; the fields are: {', '.join(cls.__struct_encode_fields__)}"
        raise Problem(
            400, "invalid", f"{text}{path and f', at {path}'}; see GET /openapi.json", path=path.strip("`")
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "no_json", f"the body is no JSON: {error}") from None
    except RecursionError:
        raise Problem(
            400, "invalid", "the body is nested too deeply; 60 levels are enough for anything"
        ) from None


def value_of(line: bytes) -> Any:
    """Read one JSON value. Raises ValueError."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError as error:  # a ValueError only since 0.21
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encoded(value: Any) -> bytes:
    """The JSON of a Struct, or of what is in one."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def plain(value: Any) -> Any:
    """A value that JSON has, for any that a task can return. Bytes are base64, times ISO 8601, Decimals text."""
    match value:
        case None | bool() | str():
            return value
        case Enum():
            return plain(value.value)
        case int():
            return int(value)
        case float():
            return value if value - value == 0 else str(value)  # JSON has no inf and no nan
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
        case Mapping():
            return {key if isinstance(key, str) else str(key): plain(one) for key, one in value.items()}
        case Struct():
            builtins = msgspec.structs.asdict(value)
            names = dict(zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True))
            return {names[key]: plain(one) for key, one in builtins.items() if one is not UNSET}
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return str(value)


def answer(resp: falcon.Response, value: Struct, status: int = 200) -> None:
    """Answer with a message."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = encoded(value)
