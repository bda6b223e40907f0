"""
What is done with sessions that nobody closed: of a closed loop, of a parent process, of a client that was let go of.

aiohttp prints such sessions and their connectors. Here they are closed in silence, as far as that can be done without a loop.
"""

import asyncio
import os
import warnings
from typing import Any, cast

import aiohttp

__all__ = ["abandon", "discard", "generation", "left_open"]

generation: int = 0


def _forked() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

# Connectors of a parent process. Closing them would write on sockets that belong to it; collecting them would warn.
_abandoned: list[object] = []


def left_open(sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession], made_in: int) -> None:
    """
    Closes what a pool left open, and says so as Python does (`ResourceWarning`, shown with -X dev), where aiohttp would print
    its sessions and connectors.
    """
    if made_in != generation:
        while sessions:
            abandon(sessions.popitem()[1])
    if not sessions:
        return
    while sessions:
        discard(*sessions.popitem())
    warnings.warn(
        "an AsyncKimi client was left open; use `async with AsyncKimi() as client:`, or `await client.close()` at the end",
        ResourceWarning,
        stacklevel=2,
    )


def abandon(session: aiohttp.ClientSession) -> None:
    connector = session.connector
    session.detach()
    if connector is not None:
        connector._closed = True  # pyright: ignore[reportPrivateUsage]
        _abandoned.append(connector)


def discard(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    """
    Lets go of a session that nobody will use again, without a loop to wait in. Where its loop is closed, sockets can be closed
    but callbacks cannot be called.
    """
    connector = session.connector
    session.detach()
    if connector is None:
        return
    if loop.is_closed():
        _close_sockets(connector)
    else:
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
    connector._closed = True  # pyright: ignore[reportPrivateUsage]


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
