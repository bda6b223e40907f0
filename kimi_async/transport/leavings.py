"""
What is done with sessions that nobody closed: of a loop that is gone, of a parent process, of a client that was let go of.

aiohttp prints such sessions and their connectors. Here they are closed in silence, as far as that can be done without a loop.
"""

import asyncio
import os
import warnings
from typing import Any, cast

import aiohttp

from .aiohttp_patches import Straight
from .loops import PerLoop

__all__ = ["Door", "generation", "left_open"]

generation: int = 0


def _forked() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

# Connectors of a parent process. Closing them would write on sockets that belong to it; collecting them would warn.
_abandoned: list[object] = []


class Door:
    """
    The session of one loop, held by the loop.

    It must be there before its session is. The collector goes by age, so that where a loop is collected that nobody closed, this is heard
    before aiohttp's parts, which would have themselves printed.
    """

    __slots__ = ("__weakref__", "generation", "loop", "ours", "session", "straight")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, ours: bool = True) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.ours: bool = ours
        """False for a session of the caller's."""
        self.generation: int = generation
        self.session: aiohttp.ClientSession | None = None
        self.straight: Straight | None = None

    def shut(self) -> None:
        """Lets go of the session, without a loop to wait in."""
        session = self.session
        connector = None if session is None else session.connector
        if session is None or connector is None or not self.ours:
            return
        session.detach()
        if self.generation == generation:
            _let_go(self.loop, connector)
        else:
            _abandoned.append(connector)
        connector._closed = True  # pyright: ignore[reportPrivateUsage]

    def __del__(self) -> None:
        self.shut()


def left_open(doors: PerLoop[Door]) -> None:
    """
    Closes what a pool left open, and says so as Python does (`ResourceWarning`, shown with -X dev), where aiohttp would print
    its sessions and connectors.
    """
    left = [door for _, door in doors.all() if door.session is not None and not door.session.closed]
    for door in left:
        door.shut()
    if not any(door.generation == generation for door in left):
        return
    warnings.warn(
        "an AsyncKimi client was left open; use `async with AsyncKimi() as client:`, or `await client.close()` at the end",
        ResourceWarning,
        stacklevel=2,
    )


def _let_go(loop: asyncio.AbstractEventLoop, connector: Any) -> None:
    """Closes what nobody will use again. Where its loop is closed, sockets can be closed but callbacks cannot be called."""
    if loop.is_closed():
        _close_sockets(connector)
        return
    # Perhaps another thread's, and perhaps it never runs again: then the sockets go with the process, or with the loop.
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        _abort(connector)
    else:
        try:
            loop.call_soon_threadsafe(_abort, connector)
        except RuntimeError:  # closed in the meantime
            _close_sockets(connector)


def _connections(connector: Any) -> list[Any]:
    """What a connector holds, idle or in use."""
    pooled: dict[Any, Any] = getattr(connector, "_conns", {})
    idle = [protocol for connections in pooled.values() for protocol, _ in connections]
    pooled.clear()
    return [*idle, *getattr(connector, "_acquired", ())]


def _abort(connector: Any) -> None:
    for protocol in _connections(connector):
        protocol.abort()


def _close_sockets(connector: Any) -> None:
    for protocol in _connections(connector):
        transport: Any = getattr(protocol, "transport", None)
        # TLS: the socket belongs to the transport below. uvloop's have none; their handles went with the loop.
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        for each in cast("tuple[Any, Any]", (transport, below)):
            sock = getattr(each, "_sock", None)
            if sock is not None:
                sock.close()
                each._sock = None
