"""Random programs happen in the order that a plain model of the ring says (stackless-api.md sections 1 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from hypothesis import given, settings, strategies as st

from tasklets import TaskletExit, channel, getcurrent, run, schedule, schedule_remove, tasklet

CHANNELS = 3
MAX_TASKLETS = 12

Step = tuple[Any, ...]
Program = list[Step]  # what a tasklet does, one step after the other

steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, CHANNELS - 1)),
    st.tuples(st.just("receive"), st.integers(0, CHANNELS - 1)),
    st.tuples(st.just("schedule")),
    st.tuples(st.just("pause")),
    st.tuples(st.just("spawn"), st.integers(0, 3)),
    st.tuples(st.just("kill"), st.integers(0, MAX_TASKLETS - 1)),
    st.tuples(st.just("insert"), st.integers(0, MAX_TASKLETS - 1)),
    st.tuples(st.just("prefer"), st.integers(0, CHANNELS - 1), st.integers(-1, 1)),
)
programs = st.lists(st.lists(steps, max_size=8), min_size=4, max_size=4)
channel_kinds = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 1), st.booleans()), min_size=CHANNELS, max_size=CHANNELS
)


class Fiber:
    """A tasklet of the model: a generator, and what it is to be resumed with."""

    def __init__(self, number: int, body: Generator[Any, Any, None]) -> None:
        self.number = number
        self.body = body
        self.started = False
        self.alive = True
        self.value: Any = None  # a Kill is raised
        self.queue: list[Fiber] | None = None  # that it is blocked in


class Kill:
    pass


class Line:
    """A channel of the model: messages that wait, and the fibers that wait behind them."""

    def __init__(self, capacity: int, preference: int, all_yield: bool) -> None:
        self.capacity, self.preference, self.all_yield = capacity, preference, all_yield
        self.buffer: list[int] = []
        self.senders: list[Fiber] = []
        self.receivers: list[Fiber] = []


class Model:
    """The ring as a list: its first is running, the next to run is the second, the end of the line is its end."""

    def __init__(self, program: list[Program], kinds: list[tuple[int, int, bool]]) -> None:
        self.program = program
        self.lines = [Line(*kind) for kind in kinds]
        self.ring: list[Fiber] = []
        self.fibers: list[Fiber] = []
        self.log: list[Any] = []

    def spawn(self, which: int) -> None:
        if len(self.fibers) < MAX_TASKLETS:
            fiber = Fiber(len(self.fibers), self.body(len(self.fibers), which))
            self.fibers.append(fiber)
            self.ring.append(fiber)

    def run(self) -> None:
        while self.ring:
            fiber = self.ring[0]
            value, fiber.value = fiber.value, None
            try:
                if not isinstance(value, Kill):
                    fiber.body.send(value if fiber.started else None)
                elif fiber.started:
                    fiber.body.throw(TaskletExit())
                else:
                    raise StopIteration
                fiber.started = True
            except (StopIteration, TaskletExit):
                fiber.alive = False
                self.ring.remove(fiber)

    def turn_to(self, fiber: Fiber) -> None:
        """Make a member of the ring current in its place."""
        at = self.ring.index(fiber)
        self.ring = self.ring[at:] + self.ring[:at]

    def body(self, number: int, which: int) -> Generator[None, Any, None]:
        me = self.fibers[number] if number < len(self.fibers) else None
        for count, step in enumerate(self.program[which]):
            me = self.fibers[number]
            kind, arguments = step[0], step[1:]
            if kind == "send":
                yield from self.send(me, self.lines[arguments[0]], number * 100 + count)
                self.log.append((number, count, "sent"))
            elif kind == "receive":
                value = yield from self.receive(me, self.lines[arguments[0]])
                self.log.append((number, count, "received", value))
            elif kind == "schedule":
                self.turn_to(self.ring[1] if len(self.ring) > 1 else me)
                yield
            elif kind == "pause":
                self.ring.remove(me)
                yield
            elif kind == "spawn":
                self.spawn(arguments[0])
            elif kind == "prefer":
                self.lines[arguments[0]].preference = arguments[1]
            elif kind == "kill" and arguments[0] < len(self.fibers):
                victim = self.fibers[arguments[0]]
                if victim is me:
                    raise TaskletExit
                if victim.alive:
                    self.unblock(victim)
                    victim.value = Kill()
                    self.turn_to(victim)
                    yield
            elif kind == "insert" and arguments[0] < len(self.fibers):
                other = self.fibers[arguments[0]]
                if other.alive and other.queue is None and other not in self.ring:
                    self.ring.append(other)
            self.log.append((number, count, kind))

    def unblock(self, fiber: Fiber) -> None:
        if fiber.queue is not None:
            fiber.queue.remove(fiber)
            fiber.queue = None
        if fiber not in self.ring:
            self.ring.append(fiber)

    def meet(self, line: Line, partner: Fiber, partner_first: bool) -> Generator[None, Any, None]:
        partner.queue = None
        if line.all_yield:
            self.ring.append(partner)
            self.turn_to(self.ring[1])
            yield
        elif partner_first:
            self.ring.insert(1, partner)
            self.turn_to(partner)
            yield
        else:
            self.ring.append(partner)

    def send(self, me: Fiber, line: Line, value: int) -> Generator[None, Any, None]:
        if line.receivers:
            partner = line.receivers.pop(0)
            partner.value = value
            yield from self.meet(line, partner, line.preference == -1)
        elif len(line.buffer) < line.capacity:
            line.buffer.append(value)
        else:
            yield from self.block(me, line.senders, value)

    def receive(self, me: Fiber, line: Line) -> Generator[None, Any, Any]:
        if line.buffer:
            value = line.buffer.pop(0)
            if line.senders:
                sender = line.senders.pop(0)
                line.buffer.append(self.take(sender))
                sender.queue = None
                self.ring.append(sender)
            return value
        if line.senders:
            sender = line.senders.pop(0)
            value = self.take(sender)
            yield from self.meet(line, sender, line.preference == 1)
            return value
        return (yield from self.block(me, line.receivers, None))

    def take(self, sender: Fiber) -> int:
        value, sender.value = sender.value, None
        assert isinstance(value, int)
        return value

    def block(self, me: Fiber, queue: list[Fiber], value: Any) -> Generator[None, Any, Any]:
        self.ring.remove(me)
        queue.append(me)
        me.queue = queue
        me.value = value
        return (yield)


class Real:
    """The same programs on the real thing."""

    def __init__(self, program: list[Program], kinds: list[tuple[int, int, bool]]) -> None:
        self.program = program
        self.channels = []
        for capacity, preference, all_yield in kinds:
            one = channel(capacity)
            one.preference = preference
            one.schedule_all = all_yield
            self.channels.append(one)
        self.tasklets: list[tasklet] = []
        self.log: list[Any] = []

    def spawn(self, which: int) -> None:
        if len(self.tasklets) < MAX_TASKLETS:
            self.tasklets.append(tasklet(self.body)(len(self.tasklets), which))

    def body(self, number: int, which: int) -> None:
        for count, step in enumerate(self.program[which]):
            kind, arguments = step[0], step[1:]
            if kind == "send":
                self.channels[arguments[0]].send(number * 100 + count)
                self.log.append((number, count, "sent"))
            elif kind == "receive":
                value = self.channels[arguments[0]].receive()
                self.log.append((number, count, "received", value))
            elif kind == "schedule":
                schedule()
            elif kind == "pause":
                schedule_remove()
            elif kind == "spawn":
                self.spawn(arguments[0])
            elif kind == "prefer":
                self.channels[arguments[0]].preference = arguments[1]
            elif kind == "kill" and arguments[0] < len(self.tasklets):
                self.tasklets[arguments[0]].kill()
            elif kind == "insert" and arguments[0] < len(self.tasklets):
                other = self.tasklets[arguments[0]]
                if other.alive and not other.blocked:
                    other.insert()
            self.log.append((number, count, kind))

    def run(self) -> None:
        run()


def play(make: Callable[[], Model | Real]) -> tuple[list[Any], Model | Real]:
    world = make()
    for which in range(4):
        world.spawn(which)
    world.run()
    return world.log, world


@settings(max_examples=400)
@given(programs, channel_kinds)
def test_random_programs_happen_in_the_order_of_the_model(
    program: list[Program], kinds: list[tuple[int, int, bool]]
) -> None:
    expected, model = play(lambda: Model(program, kinds))
    happened, real = play(lambda: Real(program, kinds))
    assert isinstance(model, Model)
    assert isinstance(real, Real)
    try:
        assert happened == expected
        assert [one.alive for one in real.tasklets] == [fiber.alive for fiber in model.fibers]
        for line, one in zip(model.lines, real.channels, strict=True):
            assert one.balance == len(line.buffer) + len(line.senders) - len(line.receivers)
        assert getcurrent().is_main
    finally:
        for one in real.tasklets:
            if one.alive:
                one.throw(TaskletExit, pending=True)
        run()
