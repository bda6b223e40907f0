"""
The transport for users' tests: no socket, any clock, faults as `OSError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import APIConnectionError, AsyncKimi, IncompleteStreamError
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request, Response

EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


def transport_of(reply: Reply | OSError) -> MemoryTransport:
    async def handler(request: Request) -> Reply:
        if isinstance(reply, OSError):
            raise reply
        return reply

    return MemoryTransport(handler)


async def sent(reply: Reply) -> tuple[Response, MemoryTransport]:
    transport = transport_of(reply)
    return await transport.send(Request("GET", "http://host/")), transport


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


@pytest.mark.parametrize(
    "body",
    [b"ab", "ab", [b"a", b"b"], (b"a", b"", b"b"), pieces(b"a", b"", b"b")],
    ids=["bytes", "text", "list", "with an empty piece", "async"],
)
async def test_body(body: Any):
    """A body in any form; empty pieces are not an end."""
    response, transport = await sent(Reply(201, {"A": "1"}, body))

    assert (201, "1", b"ab") == (response.status, response.headers["a"], await response.read())
    assert 0 == transport.open


async def test_headers_may_repeat():
    """Pairs, where a mapping cannot say it."""
    response, _ = await sent(Reply(headers=[("A", "1"), ("A", "2")]))

    assert ["1", "2"] == response.headers.getall("a")


async def test_open_counts():
    """`open` tells a reply that was neither read nor closed."""
    response, transport = await sent(Reply(body=[b"a", b"b"]))
    assert 1 == transport.open
    await response.readany()
    assert 1 == transport.open
    response.close()
    response.close()

    assert 0 == transport.open


async def test_oserror_from_the_handler():
    """A connection that fails is what it would be on a socket."""
    client = AsyncKimi(api_key="sk-test", transport=transport_of(ConnectionResetError("gone")), max_retries=0)
    with pytest.raises(APIConnectionError, match="gone") as caught:
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

    assert "headers" == caught.value.phase


async def test_oserror_from_the_body():
    """So is one that breaks off."""

    async def body() -> AsyncIterator[bytes]:
        yield EVENT
        raise ConnectionResetError("gone")

    transport = transport_of(Reply(body=body()))
    client = AsyncKimi(api_key="sk-test", transport=transport, max_retries=0)
    stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
    assert "x" == (await anext(stream)).choices[0].delta.content
    with pytest.raises(IncompleteStreamError, match="gone"):
        await anext(stream)

    assert 0 == transport.open


async def test_requests_are_remembered():
    """What was sent, in order, and that the client closed it."""
    transport = transport_of(Reply(body=b'{"data": []}'))
    async with AsyncKimi(api_key="sk-test", transport=transport) as client:
        await asyncio.gather(client.get("/a"), client.get("/b"))

    assert ["/v1/a", "/v1/b"] == [request.path for request in transport.requests]
    assert transport.closed
