"""Lists of inputs that are longer than memory, and what becomes of those that break off.

A list is taken whole, to disk, before anything is stored: a client that goes away leaves nothing. One that is then
too large for one transaction is stored by several, and while that lasts the group knows of it (a text in the store,
changed under a lock). When the gateway dies in it, the client sends the list again with the same Idempotency-Key, and
any gateway goes on where the first one was; when nobody does, the next gateway to look terminates the job. So no job
waits for inputs for ever (D-06).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Final

import falcon
import gevent

from cluster._failpoints import fail_point
from cluster.errors import JobNotFound, JobStateError, StoreError, StoreUnavailable
from cluster.gateway import messages, submitting
from cluster.gateway.messages import NewJobBody
from cluster.gateway.problems import Problem
from cluster.gateway.service import Service, idempotency_key
from cluster.gateway.submitting import Lines, Upload, Wanted
from cluster.records import JOB_ENDED, Job, JobState, NewTask
from cluster.stores import Store

log = logging.getLogger("cluster.gateway")

KEY: Final = "gateway-uploads"  # of the text in the store: {job id: until when, by the store's time}
LOCK_SECONDS: Final = 10.0


class Uploads:
    """Takes uploads, and ends those that broke off."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def take(self, req: falcon.Request) -> tuple[Job, bool]:
        """Store the job of a request; returns it, and whether it is new. Raises Problem. Blocks."""
        options = self._service.options
        lines = Lines(req.stream, options)
        body = messages.decoded(lines.next(), NewJobBody)
        if body.inputs is not None or body.args is not None or body.class_ is not None:
            raise Problem(
                400,
                "invalid",
                "the first line is an operation, or a template; its inputs are the other lines",
            )
        wanted = submitting.wanted(body, options, idempotency_key(req), self._service.group)
        upload = submitting.receive(lines, wanted, options)
        try:
            return self._store(wanted, upload)
        finally:
            upload.close()

    def _store(self, wanted: Wanted, upload: Upload) -> tuple[Job, bool]:
        store = self._service.store
        self._service.check_group()
        before = store.job(wanted.job.job_id)
        shards = (before and submitting.of_meta(before.meta).get("shards")) or submitting.shards_of(
            store, wanted
        )
        job = submitting.with_inputs(wanted.job, upload, shards)
        batches = submitting.batches(submitting.make_shards(wanted, upload.lines(), upload.count, shards))
        first = next(batches)
        second = next(batches, None)
        if second is None:
            return submitting.start(store, job, first)
        # A job without a class that is not closed does not finish, so nothing ends too early.
        self._note(store, job.job_id)
        there, new = submitting.start(store, replace(job, closed=False), first)
        if there.closed or there.state in JOB_ENDED:  # it was complete before
            self._forget(store, job.job_id)
            return there, new
        self._add(store, job.job_id, second)
        for batch in batches:
            self._note(store, job.job_id)
            self._add(store, job.job_id, batch)
        fail_point("gateway-before-close")
        store.close_job(job.job_id)
        fail_point("gateway-closed")
        self._forget(store, job.job_id)
        return store.job(job.job_id) or there, new

    def _add(self, store: Store, job_id: str, batch: list[NewTask]) -> None:
        pause = 0.02
        for _ in range(8):
            try:
                said = store.submit(batch)
                break
            except (
                StoreUnavailable
            ):  # the rest is here still: better to wait than to let the client send it again
                gevent.sleep(pause)
                pause = min(2.0, pause * 2)
        else:
            said = store.submit(batch)
        fail_point("gateway-batch")
        if "ended" in said:
            raise Problem(409, "job_ended", f"job {job_id} has ended while its inputs were stored")

    # -- what is on its way

    def _note(self, store: Store, job_id: str) -> None:
        with _changed(store) as uploads:
            uploads[job_id] = store.now() + self._service.options.upload_ttl

    def _forget(self, store: Store, job_id: str) -> None:
        with _changed(store) as uploads:
            uploads.pop(job_id, None)

    def sweep(self) -> list[str]:
        """End the jobs whose upload broke off; return their ids. Blocks. Raises StoreError."""
        store = self._service.store
        if not store.get(KEY):
            return []
        ended = []
        with _changed(store) as uploads:
            now = store.now()
            for job_id, until in list(uploads.items()):
                if until > now:
                    continue
                job = store.job(job_id)
                if job is not None and not job.closed and job.state not in JOB_ENDED:
                    self._terminate(store, job_id)
                    ended.append(job_id)
                del uploads[job_id]
        return ended

    def _terminate(self, store: Store, job_id: str) -> None:
        try:
            store.change_job(job_id, JobState.TERMINATED, by="gateway", reason="its upload broke off")
            log.warning("job %s: its upload broke off, and it was terminated", job_id)
        except (JobNotFound, JobStateError):
            pass  # it has ended meanwhile

    def sweep_for_ever(self) -> None:
        """Sweep, now and then. Blocks."""
        while True:
            gevent.sleep(self._service.options.upload_ttl / 4)
            try:
                self.sweep()
            except StoreError as error:
                log.info("looking for uploads that broke off: %s", error)


@contextmanager
def _changed(store: Store) -> Iterator[dict[str, float]]:
    """What is on its way, to be changed. Blocks. Raises StoreUnavailable when others hold it for too long."""
    holder = os.urandom(8).hex()
    deadline = monotonic() + LOCK_SECONDS
    while (lock := store.acquire(KEY, holder, LOCK_SECONDS)).holder != holder:
        if monotonic() > deadline:
            raise StoreUnavailable(
                f"the list of uploads is held by another gateway ({lock.holder}); try again"
            )
        gevent.sleep(0.02)
    try:
        text = store.get(KEY)
        before = json.loads(text) if text else {}
        after = dict(before)
        yield after
        if after != before:
            store.put(KEY, json.dumps(after) if after else "")
    finally:
        store.release(KEY, lock.fence)
