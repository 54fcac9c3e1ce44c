"""Stores: where a cluster keeps its tasks, members, locks and journal.

    store = open_store("sqlite:///work.db")         one file, many processes of one machine; nothing to install
    store = open_store("redis://10.0.0.5:6379/0")   many machines; needs the extra tasklets[redis]
    store = open_store("memory:")                   one process, for tests

The contract is `Store`, in `base`; `contract` tests an engine of your own against it.
"""

from __future__ import annotations

import threading

from cluster.errors import BadStoreUrl
from cluster.stores.base import Listener, Store
from tasklets import getcurrent

__all__ = ["Listener", "Store", "open_store"]

_FORMS = '"sqlite:///FILE", "redis://HOST:PORT/DB" or "memory:"'


def open_store(url: str, group: str = "default", *, patience: float = 10.0) -> Store:
    """Open one group's part of a store. Blocks.

    A call waits up to `patience` seconds for a store that is busy or away. All handles on "memory:NAME" in a
    process share one store, which is gone when the last one is closed; "memory:" alone is a fresh one.

    Raises BadStoreUrl, SchemaMismatch, StoreUnavailable.
    """
    if not group or not group.isprintable() or set(group) & set("{}\x1f/"):
        raise BadStoreUrl(f"a group's name is printable text without braces and slashes, and not {group!r}")
    if threading.current_thread() is not threading.main_thread():
        getcurrent()  # who has tasklets gives the event loop back when the thread ends, which gevent does not
    scheme, colon, rest = url.partition(":")
    if colon and scheme in ("sqlite", "memory"):
        from cluster.stores.sqlite import SqliteStore

        if scheme == "memory":
            return SqliteStore(url, group, memory=rest, patience=patience)
        if not rest.startswith("///") or not rest[3:] or "?" in rest:
            raise BadStoreUrl(
                f"{url!r} names no file; write sqlite:///work.db (in this folder) or sqlite:////var/lib/work.db"
            )
        return SqliteStore(url, group, path=rest[3:], patience=patience)
    if colon and scheme in ("redis", "rediss", "unix"):
        try:
            from cluster.stores.redis import RedisStore
        except ImportError as error:
            raise BadStoreUrl(
                f'{scheme}:// needs the package redis; install it with: pip install "tasklets[redis]" ({error})'
            ) from error
        return RedisStore(url, group, patience=patience)
    raise BadStoreUrl(f"{url!r} is no store; write {_FORMS}")
