"""
The whole walk on real sockets: what a connection costs, and who gives it back.
"""

# ruff: noqa: SIM117 (a server and its client read better one inside the other)

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_async import AsyncKimi, KimiError, Timeout
from support.raw_server import (
    COMPLETION,
    DONE,
    END,
    FINISH,
    HELLO,
    ROLE,
    WHOLE,
    Conversation,
    RawServer,
    chunked,
    every,
    head,
    reply,
    sends,
    text,
)

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


def client_for(server: RawServer, **options: Any) -> AsyncKimi:
    options.setdefault("timeout", Timeout(connect=2, read=2, first_token=2, idle=2))
    return AsyncKimi(api_key="sk-test-0123456789abcdef", base_url=server.base_url, max_retries=0, **options)


async def ask(client: AsyncKimi, **options: Any) -> str:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True, **options
    ) as stream:
        return "".join([c.choices[0].delta.content or "" async for c in stream])


@pytest.mark.parametrize("milliseconds", [0, 5, 50, 200])
async def test_connection_reused_late_terminator(milliseconds: int):
    """The end of the chunked body may trail `[DONE]`; the connection is used again all the same."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(head(), chunked(WHOLE))
        if milliseconds:
            await asyncio.sleep(milliseconds / 1000)
        await conversation.send(END)

    rounds = 20 if milliseconds < 200 else 5
    async with RawServer(every(answer)) as server, client_for(server) as client:
        for _ in range(rounds):
            assert "Hello" == await ask(client)

        assert (1, rounds) == (server.connections, len(server.requests))


async def test_connection_reused_after_break_at_finish_reason():
    """Breaking at `finish_reason` does not cost the connection, though `[DONE]` comes in a later packet."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(head(), chunked(HELLO + FINISH))
        await asyncio.sleep(0.005)
        await conversation.send(chunked(DONE), END)

    async with RawServer(every(answer)) as server, client_for(server) as client:
        for _ in range(5):
            async with await client.chat.completions.create(
                model="kimi-k3", messages=QUESTION, stream=True
            ) as stream:
                async for chunk in stream:
                    if chunk.choices[0].finish_reason:
                        break

        assert 1 == server.connections


async def test_connection_reused_whatever_came():
    """Streams, whole replies, errors and models in a row take one connection."""
    async with RawServer(sends(reply(COMPLETION))) as server, client_for(server) as client:
        for _ in range(10):
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
        assert 1 == server.connections
    async with RawServer(sends(reply({"error": {"message": "no", "type": "x"}}, 400))) as server:
        async with client_for(server) as client:
            for _ in range(10):
                with pytest.raises(KimiError):
                    await client.models.list()
        assert 1 == server.connections


async def test_early_exit_tells_the_server():
    """Leaving a stream before its end closes the connection, which is how the server learns to stop."""
    async with RawServer(sends(head(), chunked(HELLO))) as server, client_for(server) as client:
        async with await client.chat.completions.create(
            model="kimi-k3", messages=QUESTION, stream=True
        ) as stream:
            await anext(stream)
        await server.quiet()

        assert stream.response.is_closed


async def test_connection_closed_while_idle_is_replaced_unseen():
    """
    A pooled connection that the server closed is replaced without the caller's notice, and without using a retry.
    """

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head(), chunked(WHOLE), END)
        if conversation.number == 0:
            await conversation.request()  # takes the second request, and closes without a word
            return
        while await conversation.request():
            await conversation.send(head(), chunked(WHOLE), END)

    async with RawServer(script) as server, client_for(server) as client:
        assert "Hello" == await ask(client)
        assert "Hello" == await ask(client)
        assert "Hello" == await ask(client)

        assert 2 == server.connections
        assert 4 == len(server.requests)


async def test_connection_reset_while_idle_is_replaced_unseen():
    """The same where the server resets it."""

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head(), chunked(WHOLE), END)
        if conversation.number == 0:
            await conversation.request()
            conversation.reset()

    async with RawServer(script) as server, client_for(server) as client:
        assert "Hello" == await ask(client)
        assert "Hello" == await ask(client)


async def test_fresh_connection_that_is_closed_is_not_repeated_unseen():
    """
    A new connection that the server closes may have delivered the request: without retries, the caller hears of it.
    """

    async def script(conversation: Conversation) -> None:
        await conversation.request()

    async with RawServer(script) as server, client_for(server) as client:
        with pytest.raises(KimiError, match="closed the connection"):
            await ask(client)
        assert 1 == len(server.requests)


async def test_keep_alive_refused_by_the_server():
    """`Connection: close` is obeyed."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(head(200, "Connection: close"), chunked(WHOLE), END)
        conversation.writer.close()

    async with RawServer(every(answer)) as server, client_for(server) as client:
        for _ in range(3):
            assert "Hello" == await ask(client)

        assert 3 == server.connections


async def test_two_hundred_streams_at_once():
    """
    No hidden cap: two hundred streams run side by side, and their connections serve the next two hundred.
    """
    arrived = 0
    together = asyncio.Event()

    async def answer(conversation: Conversation) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 200:
            together.set()
        await conversation.send(head(), chunked(ROLE))
        await together.wait()
        await conversation.send(chunked(text("Hello") + FINISH + DONE), END)

    async with RawServer(every(answer)) as server, client_for(server) as client:
        assert ["Hello"] * 200 == await asyncio.gather(*(ask(client) for _ in range(200)))
        assert ["Hello"] * 200 == await asyncio.gather(*(ask(client) for _ in range(200)))

        assert 200 == server.connections
        assert 0 == client.limiter.stats().in_flight


async def test_headers_on_the_wire():
    """
    What is sent: the key once, in its header; no cookie; JSON; an event stream asked for without compression.
    """
    async with RawServer(sends(head(200, "Set-Cookie: __cf_bm=1; Path=/"), chunked(WHOLE), END)) as server:
        async with client_for(server) as client:
            await ask(client)
            await ask(client)
    first, second = server.requests

    assert "POST /v1/chat/completions HTTP/1.1" == first.line
    assert "Bearer sk-test-0123456789abcdef" == first.headers["authorization"]
    assert "text/event-stream" == first.headers["accept"]
    assert "identity" == first.headers["accept-encoding"]
    assert "application/json" == first.headers["content-type"]
    assert "cookie" not in second.headers
    assert {"model": "kimi-k3", "messages": QUESTION, "stream": True} == first.json()


async def test_redirect_elsewhere_sends_nothing_there():
    """Neither key nor prompt reaches the host that a redirect names."""
    async with RawServer(sends(reply(COMPLETION))) as elsewhere:
        to = f"Location: {elsewhere.base_url}/chat/completions"
        async with RawServer(sends(reply(b"", 307, to))) as server, client_for(server) as client:
            with pytest.raises(KimiError, match="redirects"):
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION)

        assert [] == elsewhere.requests
        assert 0 == elsewhere.connections


async def test_refused_upload_is_heard():
    """A server that refuses a large request before it has read it is heard: 413, not a broken pipe."""

    async def script(conversation: Conversation) -> None:
        await conversation.reader.readuntil(b"\r\n\r\n")
        await conversation.send(
            reply({"error": {"message": "Request exceeds the maximum size"}}, 413, "Connection: close")
        )
        conversation.writer.write_eof()
        await conversation.gone()

    async with RawServer(script) as server, client_for(server) as client:
        with pytest.raises(KimiError) as caught:
            await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": "x" * 8_000_000}]
            )

        assert "RequestTooLargeError" == type(caught.value).__name__


async def test_server_that_closes_in_the_middle_of_a_request():
    """A connection that is closed while the request is sent is a connection error, and may be repeated."""

    async def script(conversation: Conversation) -> None:
        await conversation.reader.readuntil(b"\r\n\r\n")
        conversation.reset()

    async with RawServer(script) as server, client_for(server) as client:
        with pytest.raises(KimiError) as caught:
            await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": "x" * 8_000_000}]
            )

        assert "APIConnectionError" == type(caught.value).__name__
        assert caught.value.retryable
