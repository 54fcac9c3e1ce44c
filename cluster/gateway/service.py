"""What the resources share: the store, opened when it can be, and waiting for its changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import falcon
import gevent
from gevent.lock import Semaphore

from cluster.client import Client
from cluster.errors import UnknownGroup
from cluster.gateway.options import Options
from cluster.gateway.problems import Problem
from cluster.stores import Store, open_store

T = TypeVar("T")


class Service:
    """One group's store, and whether the gateway is about to end."""

    def __init__(self, url: str, group: str, options: Options) -> None:
        self.url = url
        self.group = group
        self.options = options
        self.draining = False
        self._store: Store | None = None
        self._opening = Semaphore(1)
        self._known = group == "default"

    @property
    def store(self) -> Store:
        """The store; opened when it is asked for first, since it may be away when a gateway starts.

        Blocks. Raises StoreUnavailable.
        """
        if self._store is None:
            with self._opening:
                if self._store is None:
                    self._store = open_store(self.url, self.group, patience=self.options.patience)
        return self._store

    def check_store(self) -> None:
        """Read something. Blocks. Raises StoreUnavailable."""
        self.store.lock("coordinator")

    def check_group(self) -> None:
        """Raise UnknownGroup when nobody has ever joined, or declared, the group: its name may be a slip. Blocks."""
        if not self._known:
            groups = self.store.groups()
            if self.group not in groups:
                raise UnknownGroup(
                    f"no group {self.group!r} is in the store; there are: {', '.join(groups) or 'none'}. Start a "
                    f"worker of it (tasklets cluster worker --group {self.group}), or serve another group"
                )
            self._known = True

    @property
    def client(self) -> Client:
        """A client on the store. Blocks. Raises StoreUnavailable."""
        return Client(self.store, self.group)

    def close(self) -> None:
        """Give the store's connections back."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def wait_for(self, topic: str, look: Callable[[], T | None], seconds: float) -> T | None:
        """Look, and again with every hint, until there is something, at most so many seconds. Blocks.

        A gateway that is about to end does not wait.
        """
        found = look()
        if found is not None or seconds <= 0:
            return found
        deadline = time.monotonic() + seconds
        with self.listening(topic) as wait:
            while not self.draining:
                found = look()
                left = deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                wait(min(left, self.options.poll))
        return None

    @contextmanager
    def listening(self, *topics: str) -> Iterator[Callable[[float], bool]]:
        """Hear of topics; yields how to wait for a hint."""
        listener = self.store.listen(*topics)
        try:
            yield listener.wait
        finally:
            listener.close()


def read_body(req: falcon.Request, options: Options) -> bytes:
    """A body that is held in memory. Raises Problem for one that is too large. Blocks."""
    length = req.content_length
    if length is not None and length > options.max_body:
        raise too_large(options)
    chunks, size = list[bytes](), 0
    stream: Any = req.stream
    while True:
        with body_errors():
            chunk = stream.read(min(1 << 16, options.max_body + 1 - size))
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > options.max_body:
            raise too_large(options)
        gevent.sleep(0)


@contextmanager
def body_errors() -> Iterator[None]:
    """What goes wrong while a body is read, as the client's problem."""
    try:
        yield
    except TimeoutError:
        raise Problem(408, "slow", "the body did not come; the connection is closed") from None
    except OSError as error:
        raise Problem(400, "broke_off", f"the body broke off: {error}") from None


def too_large(options: Options) -> Problem:
    """What is said about a body that is too large."""
    return Problem(
        413, "too_large",
        f"a body has at most {options.max_body} bytes; send a long list of inputs as application/x-ndjson",
    )  # fmt: skip


def media_type(req: falcon.Request) -> str:
    """The type of a body, without its parameters."""
    return (req.content_type or "").partition(";")[0].strip().lower()


def need_json(req: falcon.Request) -> None:
    """Raise Problem for a body of another type: a form of a page elsewhere has one."""
    if media_type(req) != "application/json":
        raise Problem(
            415,
            "no_json",
            f"the body is {req.content_type or 'of no type'}; send Content-Type: application/json",
        )


def number(req: falcon.Request, name: str, default: float, low: float, high: float) -> float:
    """A number of the query. Raises Problem."""
    text = req.get_param(name)
    if text is None or text == "":
        return default
    try:
        value = float(text)
        if low <= value <= high:
            return value
    except ValueError:
        pass
    raise Problem(
        400, "invalid", f"?{name}= is a number from {low:g} to {high:g}, and not {text!r}", path=name
    )


def integer(req: falcon.Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query. Raises Problem."""
    value = number(req, name, default, low, high)
    if value != int(value):
        raise Problem(400, "invalid", f"?{name}= is a whole number, and not {value}", path=name)
    return int(value)


def flag(req: falcon.Request, name: str) -> bool:
    """Whether a flag of the query is set. Raises Problem."""
    text = req.get_param(name)
    if text is None or text.lower() in ("", "0", "false", "no"):
        return False
    if text.lower() in ("1", "true", "yes"):
        return True
    raise Problem(400, "invalid", f"?{name}= is true or false, and not {text!r}", path=name)


def one_of(req: falcon.Request, name: str, choices: tuple[str, ...]) -> str | None:
    """A word of the query. Raises Problem."""
    text = req.get_param(name)
    if text is None or text == "":
        return None
    if text not in choices:
        raise Problem(400, "invalid", f"?{name}= is one of {', '.join(choices)}, and not {text!r}", path=name)
    return text


def idempotency_key(req: falcon.Request) -> str | None:
    """The key of a submission. Raises Problem."""
    key = req.get_header("Idempotency-Key")
    if key is not None and not 8 <= len(key) <= 200:
        raise Problem(
            400, "invalid", f"an Idempotency-Key has 8 to 200 characters, such as a UUID, and not {len(key)}"
        )
    return key


def next_page(req: falcon.Request, name: str, value: str) -> str:
    """The path of the next page."""
    params = {**{key: req.get_param(key) or "" for key in req.params}, name: value}
    return req.path + falcon.to_query_str(params)
