"""
Blocking code over an async client: one event loop in a thread of its own, for all who ask.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["blocking"]

T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop, threading.Thread] | None = None


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """
    Runs a coroutine on the shared loop and waits for it, in this thread.

    The thread is a daemon, begun with the first call and once more in a forked process. An interrupt while waiting cancels the
    coroutine.

    :raises RuntimeError: on that loop itself, which would wait for itself.
    """
    loop = _loop()
    if threading.current_thread() is _thread():
        work.close()
        raise RuntimeError(
            "blocking code called from the loop that would have to do its work; await it instead"
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _thread() -> threading.Thread | None:
    return None if _running is None else _running[2]


def _loop() -> asyncio.AbstractEventLoop:
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="kimi-async-blocking", daemon=True)
            thread.start()
            _running = (os.getpid(), loop, thread)
        return _running[1]
