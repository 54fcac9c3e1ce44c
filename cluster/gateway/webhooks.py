"""Tells somebody that a job has ended, at the address that came with it (D2): by POST, again until it is taken.

The journal says which jobs have ended, so a submission costs nothing more, and what ends a job does not know of this.
One gateway at a time does it, under a lock; how far it is in the journal, and whom it could not tell yet, is a text in
the store, with which the next one goes on. So an end is told at least once, and twice if a gateway dies between.

An address has to be of an origin that the gateway was started with: else whoever may submit could have it knock at
doors that only the gateway can reach. What it says is where to ask, and nothing of a result.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from http.client import HTTPException
from typing import Any, Final

import gevent
from gevent.pool import Pool
from gevent.threadpool import ThreadPool

from cluster.errors import StoreError
from cluster.gateway import messages, submitting
from cluster.gateway.messages import Accepted
from cluster.gateway.service import Service
from cluster.records import JOB_ENDED
from cluster.stores import Store

log = logging.getLogger("cluster.gateway")

KEY: Final = (
    "gateway-webhooks"  # of the lock, and of {"after": seq, "open": {job id: [attempts, not before]}}
)
ATTEMPTS: Final = 13  # with pauses of 1, 2, 4, ... seconds: a bit more than an hour
AT_ONCE: Final = 8
PAGE, PAGES = 1000, 10  # of the journal, in one round: no more than the lease has time for
MOST_OPEN: Final = 10_000  # that are not told yet; the journal keeps the rest
_ENDS: Final = frozenset(state.value for state in JOB_ENDED)


class Webhooks:
    """Tells what has ended, as long as no other gateway does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._holder = os.urandom(8).hex()
        self._threads = ThreadPool(AT_ONCE)  # of its own: a store must not wait for somebody's slow server
        self._fence = 0

    def run(self) -> None:
        """Tell, for ever. Blocks."""
        while True:
            more = False
            try:
                more = self.round()
            except StoreError as error:
                log.info("looking for jobs that have ended: %s", error)
            gevent.sleep(0 if more else self._service.options.poll)

    def round(self) -> bool:
        """Tell of some jobs that have ended, unless another gateway does; True: there may be more of them. Blocks.

        Raises StoreError: then they are told again.
        """
        store, lease = self._service.store, self._service.options.webhook_lease
        lock = store.acquire(KEY, self._holder, lease)
        if lock.holder != self._holder:
            return False
        self._fence = lock.fence
        before = store.get(KEY)
        state: dict[str, Any] = json.loads(before) if before else {"after": "", "open": {}}
        self._read(store, state)
        waiting, now = state["open"], store.now()
        due = [job_id for job_id, (_, when) in waiting.items() if when <= now][:AT_ONCE]
        for job_id, told in zip(due, Pool(AT_ONCE).map(self._tell, due), strict=True):
            attempts = waiting.pop(job_id)[0] + 1
            if not told and attempts < ATTEMPTS:
                waiting[job_id] = [attempts, now + 2 ** (attempts - 1)]
            elif not told:
                log.warning("job %s: its end was told to nobody, in %d attempts", job_id, attempts)
        after = json.dumps(state)
        if after != before and store.renew_lock(KEY, lock.fence, lease):
            store.put(KEY, after)
        return len(due) == AT_ONCE

    def close(self) -> None:
        """Let another gateway go on at once."""
        try:
            if self._fence:
                self._service.store.release(KEY, self._fence)
        except StoreError:
            pass  # the lease runs out

    def _read(self, store: Store, state: dict[str, Any]) -> None:
        for _ in range(PAGES):
            events = store.events(after=state["after"], limit=PAGE) if len(state["open"]) < MOST_OPEN else []
            if not events:
                return
            state["after"] = events[-1].seq
            for event in events:
                if event.kind == "job-state" and event.detail.split(" ")[1] in _ENDS:
                    job = store.job(event.subject)
                    if job is not None and "webhook" in submitting.of_meta(job.meta):
                        state["open"][job.job_id] = [0, 0.0]

    def _tell(self, job_id: str) -> bool:
        """Whether there is nobody who has to be told any more."""
        job = self._service.store.job(job_id)
        if job is None:
            return True
        url = str(submitting.of_meta(job.meta)["webhook"])
        if submitting.origin_of(url) not in self._service.options.webhooks:  # it was, when the job came
            log.warning("job %s: its end is not told at %s, which is not allowed any more", job_id, url)
            return True
        said = Accepted(id=job_id, state=job.state.value, url=f"/jobs/{job_id}")
        try:
            self._threads.apply(_post, (url, messages.encoded(said), self._service.options.webhook_lease / 2))
        except (OSError, HTTPException, ValueError) as error:
            log.info("job %s: its end was not taken at %s: %s", job_id, url, error)
            return False
        return True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An origin that is allowed must not send us to another one."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: bytes, timeout: float) -> None:
    """Raises OSError, also for an answer that is no success."""
    request = urllib.request.Request(  # noqa: S310  the scheme was checked when the job came
        url, body, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout).close()
