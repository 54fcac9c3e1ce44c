"""Where bytes go whose number is known before they come: straight to the place where they stay.

    landing = Landing(65536)
    landing.fill(sock.recv_into(landing.room))     # or landing.add(data), for what was read elsewhere
    if landing.is_full:
        data = landing.take()                      # bytes, and no copy

Large ones, which their receiver has done with, lend their memory to the next ones of the same size (`Spare`). No
socket, no clock, no tasklet.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import cython  # the name by which Cython knows it; never imported
else:
    from tasklets import _cython as cython

SPARE_BYTES: Final = 1 << 20  # from here on bytes are pages that the system gives and takes, each by itself
MOST_SPARE: Final = 4  # kept: one is filled, one is waited for, one is worked on, and one may be free

if not cython.compiled:  # else see _landing.pxd: there it is the memory of the bytes that are handed out
    new_memory = bytearray
    writable = memoryview

    def renew(kept: list[bytes], index: int) -> bool:
        """Not in Python, which cannot write to bytes."""
        return False


class Landing:
    """Room for so many bytes. The memory is the system's promise only, until they come."""

    __slots__ = ("_memory", "_room", "received", "size")

    def __init__(self, size: int, memory: Any = None) -> None:
        self.size = size
        self.received = 0
        self._memory = new_memory(size) if memory is None else memory  # nobody else's, until it is taken
        self._room = writable(self._memory)

    @property
    def room(self) -> memoryview:
        """Where the next bytes belong."""
        return self._room[self.received :] if self.received else self._room

    @property
    def is_full(self) -> bool:
        return self.received == self.size

    def fill(self, size: int) -> int:
        """So many bytes were put into `room` and behind it; return how many lie behind it."""
        count = min(size, self.size - self.received)
        self.received += count
        return size - count

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
        return bytes(self._memory)  # compiled: the very object


class Spare:
    """Large bytes that were handed out, until the next ones can have their memory: when nobody else holds them.

    To get 64 MiB from the system and to give them back takes some milliseconds each, in which nothing else is answered.
    The bytes are immutable as long as anybody can see them.
    """

    __slots__ = ("_asked", "_kept")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._asked = False  # since the last look

    def __len__(self) -> int:
        return len(self._kept)

    def landing(self, size: int) -> Landing:
        """Return room for so many bytes."""
        self._asked = True
        for index in range(len(self._kept)):
            if len(self._kept[index]) == size and renew(self._kept, index):
                return Landing(size, self._kept.pop(index))
        return Landing(size)

    def keep(self, data: bytes) -> None:
        """Have a look at these again, which are about to be handed out."""
        if cython.compiled and len(data) >= SPARE_BYTES:
            if len(self._kept) == MOST_SPARE:
                del self._kept[0]
            self._kept.append(data)

    def tidy(self) -> bool:
        """Give everything back if no large bytes have come since the last call. False when nothing is kept."""
        if not self._asked:
            self._kept.clear()
        self._asked = False
        return bool(self._kept)
