"""The task queues that are measured, each with the same two tasks: count a run, and note when it started.

Every system gets the same Redis server and two processes that run tasks. `REDIS_PORT` names the server. The tasks
count in that server for all of them, for ours on SQLite too: so all do the same work, and nobody has to keep results.
"""

import os
import time

import redis

PORT = int(os.environ.get("REDIS_PORT", "6379"))
URL = f"redis://127.0.0.1:{PORT}/1"  # the queues'; the counters are in database 0
_counters = redis.Redis(port=PORT)


def count() -> None:
    _counters.incr("done")


def stamp() -> None:
    _counters.rpush("started", time.time())


SYSTEM = os.environ.get("SYSTEM", "")

if SYSTEM.startswith("cluster"):
    from cluster import operation

    count_task = operation(name="count")(count)
    stamp_task = operation(name="stamp")(stamp)
elif SYSTEM == "celery":
    from celery import Celery

    app = Celery("bench", broker=URL)
    app.conf.task_ignore_result = True
    app.conf.broker_connection_retry_on_startup = True
    count_task = app.task(name="count")(count)
    stamp_task = app.task(name="stamp")(stamp)
elif SYSTEM == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))
    count_task = dramatiq.actor(actor_name="count")(count)
    stamp_task = dramatiq.actor(actor_name="stamp")(stamp)
