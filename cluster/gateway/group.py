"""/members, /queues, /healthz, /metrics."""

from __future__ import annotations

from collections.abc import Iterator

import falcon
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from cluster.errors import StoreError
from cluster.gateway import messages
from cluster.gateway.messages import Health, MemberList, MemberView, QueueBody, QueueList, QueueView
from cluster.gateway.problems import Problem
from cluster.gateway.service import Service, need_json, read_body
from cluster.stores import Store


class Members:
    """/members"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The nodes of the group."""
        messages.answer(resp, member_list(self._service.store))


def member_list(store: Store) -> MemberList:
    """The nodes of the group whose lease runs (D-10)."""
    now = store.now()
    lock = store.lock("coordinator")
    found = store.members()
    return MemberList(
        group=store.group,
        leader=lock.holder.split("#")[0] if lock and lock.lease_until > now else None,
        slots=sum(m.slots for m in found if m.role == "worker" and m.state == "up"),
        members=[
            MemberView(
                node=m.node, role=m.role, state=m.state, slots=m.slots, running=m.running, queues=list(m.queues),
                operations=list(m.ops), labels=list(m.labels), host=m.host, pid=m.pid, version=m.version,
                joined=m.joined, lease_seconds=round(m.lease_until - now, 3),
            )
            for m in sorted(found, key=lambda m: (m.role, m.node))
        ],
    )  # fmt: skip


class Queues:
    """/queues"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The queues, and the counters of the group."""
        messages.answer(resp, queue_list(self._service.store))


def queue_list(store: Store) -> QueueList:
    """The queues that have, or had, tasks, or were configured."""
    statistics, configured = store.statistics(), store.queues()
    return QueueList(
        queues=[
            QueueView(
                name=name,
                tasks=statistics.tasks.get(name, {}),
                oldest_ready=statistics.oldest_ready.get(name),
                paused=bool(configured.get(name, {}).get("paused", 0)),
                max_waiting=configured.get(name, {}).get("max_waiting", 0),
            )
            for name in sorted({*statistics.tasks, *configured})
        ],
        counters=statistics.counters,
    )


class OneQueue:
    """/queues/NAME"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_patch(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Pause a queue, go on with it, or say how many tasks may wait in it."""
        need_json(req)
        body = messages.decoded(read_body(req, self._service.options), QueueBody)
        if not name.isprintable() or "\x1f" in name or len(name) > 200:
            raise Problem(
                400,
                "invalid",
                f"a queue's name is printable text of at most 200 characters, and not {name!r}",
            )
        store = self._service.store
        store.configure_queue(name, max_waiting=body.max_waiting, paused=body.paused)
        found = next((queue for queue in queue_list(store).queues if queue.name == name), None)
        messages.answer(
            resp, found or QueueView(name=name, tasks={}, oldest_ready=None, paused=False, max_waiting=0)
        )


class Healthz:
    """/healthz"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Whether this gateway can do its work, for a balancer."""
        service = self._service
        if service.draining:
            raise Problem(
                503, "draining", "this gateway is about to end; ask another one", headers={"Retry-After": "1"}
            )
        service.check_store()
        messages.answer(resp, Health(status="ok", group=service.group, store="ok"))


# ------------------------------------------------------------------------------------------------ metrics


class Metrics:
    """/metrics, in the text format of Prometheus, and the counts of this gateway's own requests."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Group(service))
        self._requests = Counter(
            "tasklets_gateway_requests", "Requests that were answered.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "tasklets_gateway_request_seconds", "How long answers took; long polls and streams wait on purpose.",
            ["route"], registry=self._registry, buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )  # fmt: skip
        self.watchers = Gauge("tasklets_gateway_watchers", "Open event streams.", registry=self._registry)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The group's counts, equal to what the journal says (A-24)."""
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = generate_latest(self._registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class _Group(Collector):
    """The store's counts, read when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        return []  # or the registry would collect to find out, when the store may be away

    def collect(self) -> Iterator[Metric]:
        group = self._service.group
        up = GaugeMetricFamily("tasklets_store_up", "Whether the store answers.", labels=["group"])
        try:
            store = self._service.store
            statistics, members = store.statistics(), store.members()
        except StoreError:
            up.add_metric([group], 0)
            yield up
            return
        up.add_metric([group], 1)
        yield up
        tasks = GaugeMetricFamily("tasklets_tasks", "Tasks in the store.", labels=["group", "queue", "state"])
        for queue, states in statistics.tasks.items():
            for state, count in states.items():
                tasks.add_metric([group, queue, state], count)
        yield tasks
        happened = CounterMetricFamily(
            "tasklets_happened", "What happened in the group since it was made.", labels=["group", "what"]
        )
        for name, count in statistics.counters.items():
            happened.add_metric([group, name], count)
        yield happened
        oldest = GaugeMetricFamily(
            "tasklets_oldest_ready_seconds",
            "Since when the oldest ready task waits.",
            labels=["group", "queue"],
        )
        for queue, seconds in statistics.oldest_ready.items():
            oldest.add_metric([group, queue], seconds)
        yield oldest
        nodes = GaugeMetricFamily(
            "tasklets_members", "Nodes of the group.", labels=["group", "role", "state"]
        )
        kinds = [(m.role, m.state) for m in members]
        for role, state in sorted(set(kinds)):
            nodes.add_metric([group, role, state], kinds.count((role, state)))
        yield nodes
        slots = GaugeMetricFamily(
            "tasklets_slots", "Tasks that can run at a time, and that do.", labels=["group", "what"]
        )
        slots.add_metric([group, "all"], sum(m.slots for m in members))
        slots.add_metric([group, "running"], sum(m.running for m in members))
        yield slots
