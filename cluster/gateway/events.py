"""/events: the journal, and what the group looks like, as they change; by server-sent events.

    event: journal          a line of it, with its number as `id`, so that a browser that was cut off goes on there
    event: snapshot         the newest jobs, the members and the queues, whenever they have changed

One tasklet reads the store for all who watch, so a hundred browsers cost what one does. Each has a place in a bounded
list; one that is too slow reads the rest from the store, and one that takes nothing at all is closed.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import falcon
import gevent
from gevent.event import Event as Flag

from cluster.errors import StoreError
from cluster.gateway import group, messages, views
from cluster.gateway.messages import EventList, EventView
from cluster.gateway.problems import Problem
from cluster.gateway.service import Service, integer, next_page
from cluster.records import Event, JobState
from cluster.stores import Store

log = logging.getLogger("cluster.gateway")

REMEMBERED: Final = 2000  # events
SHOWN_JOBS: Final = 100  # that live, and as many that have ended
SHOWN_SECONDS: Final = 3600.0  # jobs that are older are not in a snapshot, unless they live
KEEP_ALIVE: Final = 15.0  # seconds; says to what is between that the connection is used
_SEQ = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?")  # of either engine
LIVING: Final = (JobState.RUNNING, JobState.CREATED, JobState.PAUSED, JobState.SUSPENDED)


class Feed:
    """What is told to all who watch. Reads the store only while there is somebody."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._events: deque[Event] = deque(maxlen=REMEMBERED)
        self._numbers: dict[str, int] = {}  # seq -> the event's number among all that were read
        self._read = 0
        self._reader: gevent.Greenlet[..., None] | None = None
        self._changed = Flag()
        self._ready = Flag()
        self.snapshot = ""
        self.snapshots = 0  # how many there were
        self.watchers = 0

    def start(self) -> None:
        """Somebody watches."""
        self.watchers += 1
        if self._reader is None or self._reader.dead:
            self._ready.clear()
            self._reader = gevent.spawn(self._run)

    def stop(self) -> None:
        """Somebody does no longer."""
        self.watchers -= 1

    def wait(self, timeout: float) -> None:
        """Block until there is news, at most so long."""
        self._changed.wait(timeout)

    def wake(self) -> None:
        """Let all look."""
        self._news()

    def wait_ready(self, timeout: float) -> bool:
        """Block until the end of the journal was reached for the first time."""
        return bool(self._ready.wait(timeout))

    def newest(self, count: int) -> list[Event]:
        """The last events."""
        return list(self._events)[-count:] if count else []

    @property
    def end(self) -> str:
        """The number of the last event."""
        return self._events[-1].seq if self._events else ""

    def after(self, seq: str) -> list[Event]:
        """The events after one; from the store, if that is not remembered any more. Blocks."""
        if seq == self.end:
            return []
        number = self._numbers.get(seq)
        if number is None:
            return self._service.store.events(after=seq, limit=500)
        return list(self._events)[number - self._read :]

    def _run(self) -> None:
        while self.watchers and not self._service.draining:
            try:
                with self._service.listening("job", "ended", "lead", "ready") as wait:
                    while self.watchers and not self._service.draining:
                        self._look(self._service.store)
                        self._ready.set()
                        wait(self._service.options.poll)
                        gevent.sleep(self._service.options.poll / 2)  # hints may come by the thousand
            except StoreError as error:
                log.info("the event stream: %s", error)
                self._show(json.dumps({"away": str(error)}))
                gevent.sleep(self._service.options.poll)

    def _look(self, store: Store) -> None:
        page = store.events(after=self.end, limit=1000)
        while page:
            for event in page:
                if len(self._events) == REMEMBERED:
                    del self._numbers[self._events[0].seq]
                self._read += 1
                self._events.append(event)
                self._numbers[event.seq] = self._read
            self._news()
            page = store.events(after=self.end, limit=1000) if len(page) == 1000 else []
        self._show(messages.encoded(snapshot(store)).decode())

    def _show(self, text: str) -> None:
        if text != self.snapshot:
            self.snapshot = text
            self.snapshots += 1
            self._news()

    def _news(self) -> None:
        changed, self._changed = self._changed, Flag()  # who comes now waits for what comes then
        changed.set()


def snapshot(store: Store) -> dict[str, object]:
    """What the group looks like."""
    jobs = {job.job_id: job for state in LIVING for job in store.jobs(state=state, limit=SHOWN_JOBS)}
    recent = store.jobs(since=store.now() - SHOWN_SECONDS, limit=SHOWN_JOBS)
    jobs.update((job.job_id, job) for job in recent)
    newest = sorted(jobs.values(), key=lambda job: (-job.created, job.job_id))[: 2 * SHOWN_JOBS]
    members = group.member_list(store)
    for member in members.members:
        member.lease_seconds = 0.0  # changes all the time, and says nothing here
    queues = group.queue_list(store)
    for queue in queues.queues:
        queue.oldest_ready = None
    return {
        "jobs": [{**messages.plain(views.job_view(job)), "result": None} for job in newest],
        "members": messages.plain(members),
        "queues": messages.plain(queues),
    }


class Events:
    """/events"""

    def __init__(self, service: Service, feed: Feed) -> None:
        self._service = service
        self._feed = feed

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The journal: a page of it as JSON, or a stream."""
        if not (req.accept or "").startswith("text/event-stream"):
            limit = integer(req, "limit", 100, 1, 1000)
            found = _read(self._service.store, _place(req.get_param("after") or ""), limit)
            more = next_page(req, "after", found[-1].seq) if len(found) == limit else None
            messages.answer(resp, EventList(events=[_view(event) for event in found], next=more))
            return
        if self._feed.watchers >= self._service.options.max_watchers:
            raise Problem(
                503, "watchers", f"{self._feed.watchers} others watch this gateway; close one, or ask another gateway",
                headers={"Retry-After": "30"},
            )  # fmt: skip
        self._service.check_store()  # away: 503 rather than a stream that says nothing
        after = req.get_header("Last-Event-ID") or req.get_param("after")
        if after is not None:
            _read(self._service.store, _place(after), 1)
        backlog = integer(req, "backlog", 100, 0, 1000)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")  # nginx would keep it
        resp.stream = self._stream(after, backlog)

    def _stream(self, after: str | None, backlog: int) -> Iterator[bytes]:
        feed = self._feed
        feed.start()
        try:
            yield b"retry: 1000\n\n"
            while not feed.wait_ready(1.0):
                if self._service.draining:
                    return
                yield b": the journal is being read\n\n"
            seen = 0
            if after is None:
                first = feed.newest(backlog)
                after = feed.end
                yield b"".join(map(_packed, first))
            told = time.monotonic()
            while not self._service.draining:
                page = feed.after(after)
                if page:
                    after = page[-1].seq
                    yield b"".join(map(_packed, page))
                    told = time.monotonic()
                if feed.snapshots != seen:
                    seen = feed.snapshots
                    yield f"event: snapshot\ndata: {feed.snapshot}\n\n".encode()
                    told = time.monotonic()
                elif not page:
                    if time.monotonic() - told > KEEP_ALIVE:
                        yield b": nothing new\n\n"
                        told = time.monotonic()
                    feed.wait(1.0)
        finally:
            feed.stop()


def _place(after: str) -> str:
    if after and not _SEQ.fullmatch(after):
        raise Problem(400, "invalid", f"?after= is the number of an event, and not {after!r}", path="after")
    return after


def _read(store: Store, after: str, limit: int) -> list[Event]:
    try:
        return store.events(after=after, limit=limit)
    except ValueError:  # a number of another engine
        raise Problem(
            400, "invalid", f"?after= is the number of an event, and not {after!r}", path="after"
        ) from None


def _view(event: Event) -> EventView:
    return EventView(
        seq=event.seq, at=event.at, kind=event.kind, subject=event.subject, by=event.by, detail=event.detail
    )


def _packed(event: Event) -> bytes:
    return b"id: %s\nevent: journal\ndata: %s\n\n" % (event.seq.encode(), messages.encoded(_view(event)))
