"""
Work in threads, and waiting for what has to end, under cancellation.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["in_lost_thread", "in_thread", "readable", "to_the_end"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def to_the_end(future: "asyncio.Future[Any]") -> None:
    """
    Waits until it is done, however often the waiting is cancelled; then the cancellation goes on.

    Both kinds of cancellation: asyncio's, and that of an anyio scope around.
    """
    from anyio import CancelScope
    from anyio.lowlevel import checkpoint_if_cancelled

    cancelled: asyncio.CancelledError | None = None
    with CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as exc:
                cancelled = exc
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # was looked at: the cancellation goes before
        raise cancelled
    await checkpoint_if_cancelled()


async def in_thread(function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
    """
    What the function returns, from a thread, for which a cancelled caller waits: what it has begun to write, open or close is
    not left to itself. (`anyio.to_thread.run_sync` alone waits under a cancelled scope, but not in a cancelled task.)

    The value is lost when the caller is cancelled: what has to be given back is kept by the function itself.
    """
    from anyio import to_thread

    task = asyncio.ensure_future(to_thread.run_sync(function, *arguments))
    await to_the_end(task)
    return task.result()


async def in_lost_thread(function: Callable[[], T]) -> T:
    """The same for what may never return: a cancelled caller leaves it behind, and so does the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="kimi-read", daemon=True).start()
    return await done


async def readable(fd: int) -> bool:
    """Waits until something can be read from it; False at once where the loop cannot tell."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        loop.add_reader(fd, settle)
    except (NotImplementedError, OSError, ValueError):
        return False
    try:
        await ready
    finally:
        loop.remove_reader(fd)
    return True
