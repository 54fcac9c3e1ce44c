"""What an agent and its executors say to each other: msgpack arrays over a socket pair, and nothing else.

agent      -> executor   run, task id, operation, args, more, {what Context shows}, time limit
                         cancel, task id
executor   -> agent      hello, {operation: policy}
                         ended, task id, kind, {details}
                         progress, task id, done, total
                         recorded, task id, [results]
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024  # from an executor: a result beside its children
MAX_RUN_BYTES: Final = 2**31 - 1  # to an executor: the arguments of all tasks that one has absorbed

RUN: Final = "run"
CANCEL: Final = "cancel"
HELLO: Final = "hello"
ENDED: Final = "ended"
PROGRESS: Final = "progress"
RECORDED: Final = "recorded"

# How an execution ended, before anybody decides what follows.
RETURNED: Final = "returned"
CONTINUES: Final = "continues"
TURNED: Final = "turned"  # a job's turn
RAISED: Final = "raised"
STOPPED: Final = "stopped"  # it obeyed a cancellation


class Frames:
    """Frames out of a stream of bytes."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=max_bytes, strict_map_key=False)

    def feed(self, data: bytes) -> list[list[Any]]:
        """The frames that are complete by now. Raises ValueError, msgpack.BufferFull for what is no stream of them."""
        self._unpacker.feed(data)
        return list(self._unpacker)


def packed(*frame: Any) -> bytes:
    """The bytes of a frame."""
    return msgpack.packb(frame)  # type: ignore[no-any-return]
