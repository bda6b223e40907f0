"""
The pool's own way of writing a small request.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from kimi_async import pool as pool_module
from kimi_async.pool import AT_ONCE, SessionPool
from kimi_async.transport import Headers, Request

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def pool() -> AsyncIterator[SessionPool]:
    pool = SessionPool()
    yield pool
    await pool.aclose()


async def exchanged(pool: SessionPool, bodies: list[bytes]) -> list[tuple[bytes, bytes]]:
    """
    Sends requests one after another; head and body of each as the server read them.
    """
    seen: list[tuple[bytes, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                seen.append((head, await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        for body in bodies:
            request = Request(
                "POST",
                f"http://127.0.0.1:{port}/v1/x?a=%20b",
                headers=Headers({"Content-Type": "application/json"}),
                body=body,
            )
            response = await pool.send(request)
            assert b"{}" == await response.read()
    finally:
        await pool.aclose()
        server.close()
    return seen


async def test_pool_body_of_any_size_arrives_whole(pool: SessionPool) -> None:
    """
    Bodies written at once, at the bound of that, beyond it, and beyond a socket's buffer are the bytes that were sent.
    """
    bodies = [b"{}", b"x" * AT_ONCE, b"y" * (AT_ONCE + 1), b"z" * 3_000_000, b"{}"]

    assert bodies == [body for _, body in await exchanged(pool, bodies)]


async def test_pool_head_is_the_same_whoever_writes_it(
    pool: SessionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A server cannot tell our short way of writing from aiohttp's own: target, headers and their order are the same.
    """
    ((ours, _),) = await exchanged(pool, [b"{}"])
    monkeypatch.setattr(pool_module, "_WRITES_AT_ONCE", False)
    ((theirs, _),) = await exchanged(SessionPool(), [b"{}"])

    def without_port(head: bytes) -> list[bytes]:
        return [line for line in head.split(b"\r\n") if not line.startswith(b"Host:")]

    assert without_port(theirs) == without_port(ours)
    assert b"POST /v1/x?a=%20b HTTP/1.1" == ours.split(b"\r\n")[0]


@pytest.mark.skipif(not pool_module._WRITES_AT_ONCE, reason="aiohttp itself starts the writer at once here")
async def test_pool_small_request_makes_no_task(pool: SessionPool) -> None:
    """
    A small request on an open connection is written without a task of its own.
    """
    tasks: list[object] = []
    loop = asyncio.get_running_loop()
    replied = asyncio.Event()

    def factory(loop: asyncio.AbstractEventLoop, coro: object, **kwargs: object) -> "asyncio.Task[object]":
        tasks.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)  # type: ignore[arg-type]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        replied.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
    try:
        await (await pool.send(Request("POST", url, body=b"{}"))).read()
        loop.set_task_factory(factory)  # type: ignore[arg-type]
        await (await pool.send(Request("POST", url, body=b"{}"))).read()
        loop.set_task_factory(None)
        await replied.wait()
    finally:
        loop.set_task_factory(None)
        await pool.aclose()
        server.close()

    assert [] == tasks
