"""Several large messages in one read, each straight to where it stays, before anything of them is known.

Who has sent large bytes mostly goes on, to the same channel and with as many. So a runway is laid out for more like the
last: a place for what a batch begins with, a landing for the large bytes behind it, the next place, and so on; and at
the end of it a buffer for anything. One read fills them in this order (it is a scatter read, as readv(2) does it). What
was not as expected is read from there like everything else, for the price of a copy. No socket, no clock, no tasklet.
"""

from typing import TYPE_CHECKING, Any, Final

from net._apart import Head
from net._landing import Landing
from net._wire import BATCH, NUMBER_BYTES

if TYPE_CHECKING:
    import cython  # the name by which Cython knows it; never imported
else:
    from tasklets import _cython as cython

LAID_BYTES: Final = 256 * 1024  # for more than a read mostly brings, memory would only lie there
MOST_SLOTS: Final = 8
SHORT_ROW: Final = 2  # so many messages that are alike let us expect more
LONG_ROW: Final = 16
SIZE_BYTES: Final = BATCH.size - NUMBER_BYTES  # of the field a batch begins with, before its number

if not cython.compiled:  # else see _runway.pxd: there without an object for each part

    def alike(one: bytes | bytearray, other: bytes) -> bool:
        """True when the beginnings of two batches differ in their number and in what they acknowledge at most."""
        return one[:SIZE_BYTES] == other[:SIZE_BYTES] and one[BATCH.size :] == other[BATCH.size :]


class Row:
    """Large messages that came one after the other and are alike, and whether more of them are to be expected.

    Each row that ends too soon doubles how many it takes until the next one is believed, up to LONG_ROW.
    """

    __slots__ = ("_needed", "_number", "beginning", "count", "head")

    def __init__(self) -> None:
        self.count = 0
        self.beginning = b""  # of one of their batches
        self.head: Head | None = None  # the same, read
        self._number = 0  # of the last batch
        self._needed = SHORT_ROW

    @property
    def goes_on(self) -> bool:
        """True when more are to be expected."""
        return self.count >= self._needed

    def add(self, number: int, beginning: bytes, head: Head) -> None:
        """A batch with large bytes has begun."""
        if number != self._number + 1 or not self.fits(beginning):
            self.beginning, self.head, self.count = beginning, head, 0
        self.grow(number)

    def fits(self, beginning: bytes | bytearray) -> bool:
        """True when a batch that begins so is like those of the row."""
        return alike(beginning, self.beginning)

    def grow(self, number: int) -> None:
        """This batch is one more of them."""
        self.count += 1
        self._number = number

    def end(self) -> None:
        """Something else came than was expected."""
        self._needed = SHORT_ROW if self.count >= LONG_ROW else min(2 * self._needed, LONG_ROW)
        self.count = 0


class Runway:
    """What a node reads into: slots for large messages of one shape, if some are due, and a buffer for anything."""

    __slots__ = ("_landings", "_start", "beginnings", "buffers", "length", "received")

    def __init__(self, received: memoryview) -> None:
        self.received = received
        self.beginnings: list[bytearray] = []  # of each slot
        self.buffers: list[Any] = [received]  # to be filled in this order: first two for each slot
        self._landings: list[Landing] = []
        self.length = 0  # of the large bytes expected
        self._start = 0

    def lay(self, start: int, length: int) -> None:
        """Expect so many large bytes, behind `start` others, and the same again."""
        if start == self._start and length == self.length:
            return
        self._start, self.length = start, length
        slots = max(1, min(MOST_SLOTS, LAID_BYTES // length))
        self.beginnings = [bytearray(start) for _ in range(slots)]
        self._landings = [Landing(length) for _ in range(slots)]
        self.buffers = []
        for beginning, landing in zip(self.beginnings, self._landings, strict=True):
            self.buffers += (beginning, landing.room)
        self.buffers.append(self.received)

    def take(self, slot: int) -> Landing:
        """The landing of a slot: the reader knows how full it is. A fresh one takes its place."""
        landing = self._landings[slot]
        fresh = self._landings[slot] = Landing(self.length)
        self.buffers[2 * slot + 1] = fresh.room
        return landing

    def contents(self, slot: int, size: int) -> bytes | memoryview:
        """The bytes that came into a slot and into what follows it, so many."""
        if slot == len(self.beginnings):
            return self.received[:size]
        pieces = []
        for buffer in self.buffers[2 * slot :]:
            pieces.append(memoryview(buffer)[:size])
            size -= len(pieces[-1])
            if not size:
                break
        return b"".join(pieces)
