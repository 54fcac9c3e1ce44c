"""Where bytes go whose number is known before they come: straight to the place where they stay.

    landing = Landing(65536)
    size = sock.recv_into(landing.room)            # or landing.add(data), for what was read elsewhere
    landing.received += size
    if landing.is_full:
        data = landing.take()                      # bytes, and no copy

No socket, no tasklet.
"""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import cython  # the name by which Cython knows it; never imported
else:
    from tasklets import _cython as cython

if not cython.compiled:  # else it does not fill them with zeros first, see _landing.pxd
    new_bytes = bytes


class Landing:
    """Room for so many bytes. The memory is the system's promise only, until they come."""

    __slots__ = ("_file", "_room", "received", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        self._file = BytesIO(new_bytes(size))  # which is nobody else's, so it is written to in place
        self._room = self._file.getbuffer()

    @property
    def room(self) -> memoryview:
        """Where the next bytes belong."""
        return self._room[self.received :]

    @property
    def is_full(self) -> bool:
        return self.received == self.size

    def add(self, data: bytes | memoryview) -> int:
        """Take of the data what there is room for, and return how much."""
        count = min(len(data), self.size - self.received)
        self._room[self.received : self.received + count] = data[:count]
        self.received += count
        return count

    def take(self) -> bytes:
        """Return the bytes, when they are complete."""
        assert self.received == self.size
        self._room.release()
        return self._file.getvalue()  # the very object that was made above
