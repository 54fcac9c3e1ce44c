"""aio: tasklets that use asyncio code, and asyncio code that uses channels.

    from tasklets import aio, channel, nursery

    async def shout(portal, words, answers):
        async for word in portal.messages(words):
            await portal.send(answers, word.upper())

    words, answers = channel(), channel()
    with aio.portal() as portal, nursery() as home:
        home.start(portal.run, shout(portal, words, answers))
        words.send("hello")
        assert answers.receive() == "HELLO"
        words.close()

Two threads: asyncio's loop runs in one of its own, the tasklets stay where they are. In one thread one of the
two loops would have to run inside the other: gevent's inside asyncio's (or the other way round) means a
selector emulated on top of another one, a delay for whichever is the guest, and every blocking library call
in either world stopping both. Two loops that each wait in their own system call need only two doors, which both
libraries offer: `run_callback_threadsafe` of gevent's loop and `call_soon_threadsafe` of asyncio's. A crossing
costs some tens of microseconds. Values are handed over as they are, so share none that both sides change.

Where asyncio must have the main thread (a Jupyter kernel, a web server), `serve_tasklets` puts the tasklets
into the other one.

Not here: an asyncio event loop on top of gevent, and asyncio's own futures, locks and queues as channels; await
them in a coroutine.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit

from tasklets._core import Wait, get_scheduler, getcurrent
from tasklets._errors import ChannelClosed, TaskletError, TaskletExit
from tasklets.nursery import is_collected, nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType

    from tasklets._core import channel, tasklet

T = TypeVar("T")


def portal(loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> LoopThread:
    """Run an asyncio loop in a thread beside the tasklets: `with aio.portal() as portal: ...`.

    Leaving the block cancels what still runs there, waits for it, and ends the thread.
    """
    return LoopThread(loop_factory)


def serve_tasklets() -> TaskletThread:
    """Run tasklets in a thread beside the asyncio loop that is running: `async with aio.serve_tasklets() as portal:`.

    `await portal.call(function)` starts a tasklet there. Leaving the block kills those that it started. Where
    no block fits, as in a notebook: `portal = await aio.serve_tasklets().start()`, and `await portal.stop()`.

    The exception of a tasklet that nobody waits for (one in no nursery) ends the tasklets' thread, and is raised
    at the end of the block. That nothing can ever run again is not noticed: asyncio may always bring news.
    """
    return TaskletThread()


class Portal:
    """Two doors between the tasklets of one OS thread and the asyncio loop of another.

    `run` is for tasklets; what is awaited is for coroutines in that loop. A wait can be called off from its
    own side: a kill or a timeout of the tasklet cancels the task, the cancellation of the task withdraws the
    tasklets' operation. If that comes too late, because the coroutine has returned or the message has been
    taken, then nothing is lost: it is delivered, and the interruption comes at the next wait.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._tasklets_ident = 0
        self._hub_loop: Any = None  # gevent's
        self._keep: Any = None  # its watcher that keeps gevent's loop waiting while something is under way
        self._under_way = 0
        self._home = nursery()  # what coroutines wait for; ended with the portal
        self._is_open = False
        self._called: set[_Called] = set()  # those that coroutines wait for; asyncio's thread only

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'open' if self._is_open else 'closed'}>"

    # -- for tasklets ----------------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in asyncio's thread and return its result. Blocks the calling tasklet only.

        Raises what the coroutine raises; TaskletError when it was cancelled there. When the tasklet is killed or
        its time is over the task is cancelled, and has ended when this raises; a second interruption does not
        wait for that.
        """
        if not asyncio.iscoroutine(coroutine):
            raise TypeError(
                f"run() wants a coroutine, not {coroutine!r}:\n"
                "    portal.run(fetch)          # wrong\n"
                "    portal.run(fetch(url))     # right"
            )
        try:
            self._check_here()
        except TaskletError:
            coroutine.close()
            raise
        running = _Running(self, coroutine)
        self._hold()
        try:
            result: T = running.wait()
            return result
        finally:
            self._release()

    def _check_here(self) -> None:
        if threading.get_ident() != self._tasklets_ident:
            raise TaskletError(
                "run() is for tasklets of the portal's own OS thread; in a coroutine, await the other one:\n"
                "    value = await fetch(url)"
            )
        if not self._is_open:
            raise TaskletError(
                f"{self!r} runs nothing; call it inside its block: with aio.portal() as portal:"
            )

    # -- for coroutines --------------------------------------------------------------------------------------

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a function in a tasklet of its own, and return what it returns; raise what it raises.

        Cancelling raises TaskletExit at the next wait of the tasklet, and waits for its end.
        """
        if not self._is_open or asyncio.get_running_loop() is not self._loop:
            raise TaskletError(
                f"{self!r} serves coroutines of its own loop while its block is open; "
                "start this one with portal.run(...), or in the block"
            )
        called = _Called(self, function, args, kwargs)
        self._called.add(called)
        try:
            result: T = await called.outcome()
            return result
        finally:
            self._called.discard(called)

    async def receive(self, where: channel) -> Any:
        """Take the next message of a channel. A message that came too late for a cancellation is returned."""
        return await self.call(where.receive)

    async def send(self, where: channel, value: Any) -> None:
        """Send a message; done when `channel.send` would return."""
        await self.call(where.send, value)

    async def messages(self, where: channel) -> AsyncIterator[Any]:
        """Receive until the channel is closed and empty: `async for message in portal.messages(channel)`."""
        while True:
            try:
                message = await self.receive(where)
            except ChannelClosed:
                return
            yield message

    # -- the doors -------------------------------------------------------------------------------------------

    def _to_tasklets(self, function: Callable[..., object], *args: Any) -> None:
        self._hub_loop.run_callback_threadsafe(function, *args)

    def _to_asyncio(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def _attach(self) -> None:
        """Belong to the tasklets of the calling thread."""
        self._tasklets_ident = threading.get_ident()
        self._hub_loop = get_scheduler().get_reactor().loop
        self._keep = self._hub_loop.async_()

    def _hold(self) -> None:
        self._under_way += 1
        if self._under_way == 1:
            self._keep.start(_nothing)

    def _release(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._keep.stop()


class LoopThread(Portal):
    """See `portal`."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self._loop_factory = loop_factory
        self._is_over = False

    def __enter__(self) -> LoopThread:
        self._home.__enter__()
        self._attach()
        self._loop = self._loop_factory()
        # A daemon: if Ctrl-C comes twice while the block ends, the program ends.
        self._thread = threading.Thread(target=self._run_loop, name="asyncio beside tasklets", daemon=True)
        self._thread.start()
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool:
        self._is_open = False
        interruption: BaseException | None = None
        self._hold()
        try:
            _Running(self, self._shut_down(), may_cancel=False).wait()
        except BaseException as second:  # noqa: BLE001  raised below, when the thread has ended
            interruption = second
        self._is_over = True
        self._to_asyncio(self._loop.stop)
        self._thread.join()
        self._release()
        self._keep.close()
        self._home.kill()
        if interruption is not None:
            kind, error, tb = type(interruption), interruption, interruption.__traceback__
        if self._home.__exit__(kind, error, tb):
            return True
        if interruption is not None:
            raise interruption
        return False

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_over:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                pass  # a coroutine raised it; asyncio passes it on, and also to whoever waits for the coroutine
        self._loop.close()

    async def _shut_down(self) -> None:
        me = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not me]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


class TaskletThread(Portal):
    """See `serve_tasklets`."""

    def __init__(self) -> None:
        super().__init__()
        self._end = Wait("the end of the portal")
        self._started: asyncio.Future[None]
        self._ended: asyncio.Future[BaseException | None]
        self._is_noticed = threading.Event()  # asyncio knows that the tasklets have ended, and calls no more

    async def start(self) -> TaskletThread:
        """Start the thread. Do this once."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._serve, name="tasklets beside asyncio", daemon=True)
        self._thread.start()
        await asyncio.shield(self._started)
        return self

    async def stop(self) -> None:
        """Kill the tasklets that were called, wait for their end, and end the thread.

        Raises the failure of a tasklet that nobody waited for.
        """
        if self._is_open:
            self._is_open = False
            self._to_tasklets(self._end.wake)
        failure = await asyncio.shield(self._ended)
        self._thread.join()
        if failure is not None:
            raise failure

    async def __aenter__(self) -> TaskletThread:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    def _serve(self) -> None:
        failure: BaseException | None = None
        self._attach()
        self._hold()
        try:
            with self._home:
                self._to_asyncio(self._begun)
                self._end.park()
                self._home.kill()
        except BaseException as error:  # noqa: BLE001  raised at the end of the block
            failure = error
        self._to_asyncio(self._over, failure)
        self._is_noticed.wait()
        self._release()
        self._keep.close()

    def _begun(self) -> None:
        self._is_open = True
        self._started.set_result(None)

    def _over(self, failure: BaseException | None) -> None:
        self._is_open = False
        self._ended.set_result(failure)
        for called in self._called:
            called._settle(None, TaskletError(f"the tasklets' thread has ended ({failure or 'stopped'})"))
        self._is_noticed.set()


class _Running:
    """A coroutine that a tasklet waits for."""

    def __init__(self, over: Portal, coroutine: Coroutine[Any, Any, Any], *, may_cancel: bool = True) -> None:
        self._portal = over
        self._may_cancel = may_cancel
        self._coroutine = coroutine
        self._name = getattr(coroutine, "__qualname__", None) or repr(coroutine)
        self._context = copy_context()
        self._wait = Wait(f"asyncio to run {self._name}")
        self._task: asyncio.Task[Any] | None = None  # asyncio's thread only
        self._result: Any = None
        self._error: BaseException | None = None
        self._is_over = False

    def wait(self) -> Any:
        me = getcurrent()
        interruption: BaseException | None = None
        self._portal._to_asyncio(self._begin)
        while not self._is_over:
            try:
                self._wait.park()
            except BaseException as error:
                if interruption is not None or is_collected(error, me):
                    raise
                interruption = error
                self._wait = Wait(f"asyncio to end {self._name}")
                if self._may_cancel:
                    self._portal._to_asyncio(self._cancel)
        error_there, self._error = self._error, None
        try:
            if isinstance(error_there, asyncio.CancelledError):
                raise interruption or TaskletError(
                    f"{self._name} was cancelled by asyncio, so it has no result"
                )
            if error_there is not None:
                raise error_there
            if interruption is not None:
                self._postpone(interruption)
            return self._result
        finally:
            del interruption, error_there

    def _postpone(self, interruption: BaseException) -> None:
        """The coroutine has returned all the same: it counts, and the interruption comes at the next wait."""
        scheduler = get_scheduler()
        if (
            scheduler.current is None
        ):  # a gevent greenlet: nobody could take it back if its block ended before
            raise interruption
        scheduler.alarm(getcurrent(), interruption)

    # -- in asyncio's thread ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._task = self._portal._loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            outcome: tuple[Any, BaseException | None] = None, asyncio.CancelledError()
        elif (error := task.exception()) is not None:
            outcome = None, error
        else:
            outcome = task.result(), None
        self._portal._to_tasklets(self._finish, *outcome)

    # -- in the tasklets' thread -----------------------------------------------------------------------------

    def _finish(self, result: Any, error: BaseException | None) -> None:
        self._result = result
        self._error = error
        self._is_over = True
        self._wait.wake()


class _Called:
    """A function that a coroutine waits for; a tasklet calls it."""

    def __init__(
        self, over: Portal, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._portal = over
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = copy_context()
        # (result, error): not the future's own exception, which may not be any kind of exception
        self._future: asyncio.Future[tuple[Any, BaseException | None]] = over._loop.create_future()
        # The tasklets' thread only:
        self._tasklet: tasklet | None = None
        self._result: tuple[Any, BaseException | None] = None, TaskletExit()  # killed before it began

    # -- in asyncio's thread ---------------------------------------------------------------------------------

    async def outcome(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        is_cancelled = False
        self._portal._to_tasklets(self._context.run, self._begin, f"asyncio task {task.get_name()}")
        while not self._future.done():
            try:
                await asyncio.wait([self._future])
            except asyncio.CancelledError:
                is_cancelled = True
                if not self._future.done():
                    self._portal._to_tasklets(self._withdraw)
        result, error = self._future.result()
        if isinstance(error, (TaskletExit, GreenletExit)):
            if is_cancelled:
                raise asyncio.CancelledError
            raise TaskletError("the tasklet that a coroutine waited for was killed") from None
        if is_cancelled:
            # It has happened all the same, so it counts. The cancellation comes at the next await, unless what
            # asked for it (asyncio.timeout) is content by then.
            asyncio.get_running_loop().call_soon(_cancel_again, task)
        if error is not None:
            try:
                raise error
            finally:
                del error
        return result

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if not self._future.done():
            self._future.set_result((result, error))

    # -- in the tasklets' thread -----------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._portal._hold()
        try:
            self._tasklet = self._portal._home._start(self._live, (), {}, name, "never", self._end)
        except TaskletError as error:  # the portal's block is over
            self._result = None, error
            self._end()

    def _withdraw(self) -> None:
        if self._tasklet is not None:
            get_scheduler().alarm(self._tasklet, TaskletExit())

    def _live(self) -> None:
        try:
            self._result = self._function(*self._args, **self._kwargs), None
        except BaseException as error:
            assert self._tasklet is not None
            if is_collected(error, self._tasklet):
                raise
            below = error.__traceback__.tb_next if error.__traceback__ is not None else None
            self._result = None, error.with_traceback(below)

    def _end(self) -> None:
        self._portal._release()
        try:
            self._portal._to_asyncio(self._settle, *self._result)
        except RuntimeError:
            pass  # the loop has been closed, so nobody waits


def _cancel_again(task: asyncio.Task[Any]) -> None:
    if not task.done() and task.cancelling():
        task.cancel()
        task.uncancel()  # it was asked for once, whatever it took


def _nothing() -> None: ...
