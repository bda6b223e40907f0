"""
A loop whose clock jumps: ten minutes of waiting run in the time of the work between the waits.

    from kimi_async.testing.clock import run

    async def main() -> float:
        await asyncio.sleep(600)
        return asyncio.get_running_loop().time()

    assert 600.0 == run(main())

`VirtualClockLoop` is an ordinary selector loop with one rule changed: where
asyncio would sleep until its next timer, the clock is moved to that timer
instead. Nothing else differs, so `asyncio.timeout`, `asyncio.sleep`, anyio's
cancel scopes and this package's limiter and retries, which all ask
`loop.time()`, need no patching. `time.monotonic()` does not move.

With pytest and anyio:

    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"loop_factory": VirtualClockLoop}

What is real stays real. While a thread started by `run_in_executor` or
`anyio.to_thread.run_sync` is at work, the clock stands still until it reports.
While sockets are open the loop grants the kernel a moment
(`VirtualClockLoop.IO_PATIENCE`) before each jump, enough for loopback peers in
this process; a server elsewhere needs a real clock.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["DeadlockError", "VirtualClockLoop", "run"]

T = TypeVar("T")


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set, and nobody is left who could wake the loop."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that never sleeps for a timer: it tells `jump` how far the clock may go."""

    jump: Callable[[float], None]
    busy: Callable[[], bool]
    stuck: Callable[[], DeadlockError]
    io_patience: float
    thread_patience: float

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.busy():
            # A thread owes us an answer: an hour of virtual time must not
            # pass while it works for a real millisecond.
            return super().select(self.thread_patience)
        # asyncio itself registers one reader, the pipe that wakes the loop.
        if len(self.get_map()) > 1:
            ready = super().select(self.io_patience)
            if ready:
                return ready
        if timeout is not None:
            self.jump(timeout)
            return []
        if len(self.get_map()) > 1 or threading.active_count() > 1:
            # A stranger (an open socket, a thread of the caller's) might still
            # call; asking too soon would be a false alarm.
            ready = super().select(self.thread_patience)
            if ready:
                return ready
        raise self.stuck()


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """
    An event loop on a virtual clock.

    `start` is the first value of `loop.time()` in seconds. Takes no further
    arguments, so the class itself serves as a `loop_factory`.

    Raises `DeadlockError` out of `run_until_complete` where a real loop would
    sleep for ever.
    """

    IO_PATIENCE = 0.001
    """Real seconds granted to open sockets before the clock jumps."""

    THREAD_PATIENCE = 5.0
    """Real seconds to wait for a thread or socket before calling a standstill a deadlock."""

    def __init__(self, start: float = 0.0) -> None:
        self._virtual_now = 0.0
        selector = _JumpingSelector()
        selector.jump = self._jump
        selector.busy = self._busy
        selector.stuck = self._stuck
        selector.io_patience = self.IO_PATIENCE
        selector.thread_patience = self.THREAD_PATIENCE
        self._calls_in_threads = 0
        super().__init__(selector)
        self._move_to(float(start))

    def time(self) -> float:
        """Virtual seconds. Starts at `start`, moves only when the loop has nothing to do."""
        return self._virtual_now

    def run_in_executor(  # type: ignore[override]  # the same call; asyncio's own signature varies by version
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As asyncio's; the clock stands still until the call has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_threads += 1
        future.add_done_callback(self._thread_reported)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """
        As asyncio's; the clock stands still until the threads have ended.

        Without a bound: since 3.12 `asyncio.Runner` allows 300 s on the loop's clock, which would be over at once.
        """
        self._calls_in_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._calls_in_threads -= 1

    def _thread_reported(self, _: object) -> None:
        self._calls_in_threads -= 1

    def _jump(self, seconds: float) -> None:
        before = self._virtual_now
        self._move_to(before + seconds)
        if self._virtual_now == before:
            self._move_to(math.nextafter(before, math.inf))

    def _move_to(self, now: float) -> None:
        self._virtual_now = now
        # asyncio runs timers with `when < now + resolution`. Far from zero a
        # nanosecond is lost to rounding, no timer ever comes due and the loop
        # spins; so the resolution is never finer than the float itself.
        self._clock_resolution = max(1e-9, 2 * math.ulp(now))

    def _busy(self) -> bool:
        if self._calls_in_threads:
            return True
        if threading.active_count() == 1:
            return False
        # anyio's own worker threads do not pass through run_in_executor, and
        # its public count of lent threads can only be asked from inside a task.
        for thread in threading.enumerate():
            idle: object = getattr(thread, "idle_workers", None)
            if getattr(thread, "loop", None) is self and isinstance(idle, deque) and thread not in idle:
                return True
        return False

    def _stuck(self) -> DeadlockError:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        lines = [
            f"deadlock at virtual time {self._virtual_now:.6g} s: nothing is ready and no timer is set;"
            f" {len(tasks)} task(s) wait for each other or for nobody:"
        ]
        for task in tasks[:20]:
            stack = task.get_stack(limit=1)
            at = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "an unknown place"
            name = getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))
            lines.append(f"  {task.get_name()} ({name}) at {at}")
        if len(tasks) > 20:
            lines.append(f"  and {len(tasks) - 20} more")
        return DeadlockError("\n".join(lines))


def run(main: Coroutine[Any, Any, T], *, start: float = 0.0) -> T:
    """
    Run a coroutine to its end on a fresh `VirtualClockLoop` and return its result.

    What is left over is cancelled and async generators are closed, as `asyncio.run` does.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start)) as runner:
        return runner.run(main)
