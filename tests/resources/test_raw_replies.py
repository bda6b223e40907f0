"""
The reply beside its meaning: `with_raw_response` and `with_streaming_response`.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async import APIResponseValidationError, AsyncKimi, NotFoundError
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request
from kimi_async.types import ChatCompletion

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"kimi-k3","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'
)
STREAM = (
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"hel"}}]}\n\n'
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
HEADERS = {"msh-request-id": "r-1", "content-type": "application/json"}


async def handler(request: Request) -> Reply:
    if request.path.endswith("/models"):
        return Reply(headers=HEADERS, body=b'{"object":"list","data":[{"id":"kimi-k3"}]}')
    if request.path.endswith("/nothing"):
        return Reply(404, body=b'{"error":{"message":"gone","type":"resource_not_found_error"}}')
    if request.json().get("stream"):

        async def pieces() -> AsyncIterator[bytes]:
            for i in range(0, len(STREAM), 7):
                yield STREAM[i : i + 7]

        return Reply(headers={"content-type": "text/event-stream", "msh-request-id": "r-2"}, body=pieces())

    async def body() -> AsyncIterator[bytes]:
        yield COMPLETION[:20]
        yield COMPLETION[20:]

    return Reply(headers=HEADERS, body=body())


def client() -> tuple[AsyncKimi, MemoryTransport]:
    transport = MemoryTransport(handler)
    return AsyncKimi(api_key="sk-test", transport=transport), transport


async def test_raw_response_parse_and_headers() -> None:
    """
    The raw reply has headers, status and id, and `parse()` is what the call would have returned.
    """
    kimi, transport = client()

    raw = await kimi.chat.completions.with_raw_response.create(model="kimi-k3", messages=MESSAGES)

    assert (200, "r-1", 0) == (raw.status_code, raw.request_id, raw.retries_taken)
    assert "hello" == raw.parse().choices[0].message.content
    assert COMPLETION == raw.content
    assert "r-1" == raw.headers["Msh-Request-Id"]
    assert 0 == transport.open


async def test_raw_response_of_stream() -> None:
    """
    For a streamed call, `parse()` gives the stream.
    """
    kimi, transport = client()

    raw = await kimi.with_raw_response.chat.completions.create(
        model="kimi-k3", messages=MESSAGES, stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse()])

    assert ("hello", "r-2", 0) == (text, raw.request_id, transport.open)


async def test_raw_response_of_list() -> None:
    """
    A list, which is otherwise no coroutine, can be awaited raw.
    """
    kimi, _ = client()

    raw = await kimi.models.with_raw_response.list()

    assert ["kimi-k3"] == [model.id for model in raw.parse().data]


async def test_streaming_response_iter_bytes() -> None:
    """
    The body can be taken as it comes, and nothing stays open.
    """
    kimi, transport = client()

    async with kimi.chat.completions.with_streaming_response.create(
        model="kimi-k3", messages=MESSAGES, stream=True
    ) as reply:
        body = b"".join([data async for data in reply.iter_bytes()])

    assert (STREAM, 0) == (body, transport.open)


async def test_streaming_response_iter_lines() -> None:
    """
    Lines are cut at line ends, wherever the socket cut the bytes.
    """
    kimi, _ = client()

    async with kimi.chat.completions.with_streaming_response.create(
        model="kimi-k3", messages=MESSAGES, stream=True
    ) as reply:
        lines = [line async for line in reply.iter_lines()]

    assert STREAM.decode().splitlines() == lines


async def test_streaming_response_parse() -> None:
    """
    `await reply.parse()` gives what the call would have returned.
    """
    kimi, transport = client()

    async with kimi.chat.completions.with_streaming_response.create(
        model="kimi-k3", messages=MESSAGES
    ) as reply:
        completion = await reply.parse()

    assert isinstance(completion, ChatCompletion)
    assert ("hello", 0) == (completion.choices[0].message.content, transport.open)


async def test_streaming_response_unread_is_closed() -> None:
    """
    Leaving without reading closes the reply.
    """
    kimi, transport = client()

    async with kimi.chat.completions.with_streaming_response.create(
        model="kimi-k3", messages=MESSAGES
    ) as reply:
        assert 200 == reply.status_code
        assert 1 == transport.open

    assert 0 == transport.open


async def test_streaming_response_error_raises_on_entering() -> None:
    """
    A bad status is raised as it would be without.
    """
    kimi, _ = client()

    with pytest.raises(NotFoundError, match="gone"):
        async with kimi.with_streaming_response.post("/nothing", body={}):
            pass


async def test_raw_response_side_by_side_each_has_its_own() -> None:
    """
    Calls side by side do not see each other's replies, nor does a call that is made while another waits.
    """
    kimi, _ = client()

    one, other, plain = await asyncio.gather(
        kimi.chat.completions.with_raw_response.create(model="kimi-k3", messages=MESSAGES),
        kimi.models.with_raw_response.list(),
        kimi.models.list(),
    )

    assert ["/v1/chat/completions", "/v1/models"] == [one.http_request.path, other.http_request.path]
    assert "kimi-k3" == plain.data[0].id
    await kimi.close()


async def test_raw_response_of_a_method_that_asks_twice_is_the_last_reply() -> None:
    """
    `models.retrieve` searches the list where the host has no single model: the reply is the one that answered.
    """
    asked: list[str] = []

    async def twice(request: Request) -> Reply:
        asked.append(request.path)
        if request.path.endswith("/models"):
            return Reply(headers=HEADERS, body=b'{"object":"list","data":[{"id":"kimi-k3"}]}')
        return Reply(404, body=b'{"error":{"message":"gone","type":"resource_not_found_error"}}')

    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(twice))

    raw = await kimi.models.with_raw_response.retrieve("kimi-k3")

    assert ["/v1/models/kimi-k3", "/v1/models"] == asked
    assert ("kimi-k3", "/v1/models") == (raw.parse().id, raw.http_request.path)
    await kimi.close()


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"[]", b"", b'{"choices":[]}'])
async def test_raw_response_of_a_body_that_is_not_what_it_should_be(body: bytes) -> None:
    """
    Who asks for the reply gets it, after one request; what it does not mean is said by `parse()`.
    """

    async def odd(request: Request) -> Reply:
        return Reply(headers=HEADERS, body=body)

    transport = MemoryTransport(odd)
    async with AsyncKimi(api_key="sk-test", transport=transport, max_retries=3) as kimi:
        raw = await kimi.chat.completions.with_raw_response.create(model="kimi-k3", messages=MESSAGES)

        assert (200, body, body.decode()) == (raw.status_code, raw.content, raw.text)
        with pytest.raises(APIResponseValidationError):
            raw.parse()
        async with kimi.chat.completions.with_streaming_response.create(
            model="kimi-k3", messages=MESSAGES
        ) as reply:
            with pytest.raises(APIResponseValidationError):
                await reply.parse()
            assert body == await reply.read()
        models = await kimi.models.with_raw_response.list()
        assert body == models.content

    assert 3 == len(transport.requests)
    assert 0 == transport.open


async def test_streamed_response_to_a_file_and_as_another_type(tmp_path: Path) -> None:
    """
    The body goes to a file as it comes, or becomes what the caller names.
    """
    kimi, _ = client()
    create = kimi.chat.completions.with_streaming_response.create

    async with create(model="kimi-k3", messages=MESSAGES) as reply:
        await reply.stream_to_file(tmp_path / "answer.json", chunk_size=10)
    async with create(model="kimi-k3", messages=MESSAGES) as reply:
        fields = await reply.parse(to=dict)

    assert COMPLETION == (tmp_path / "answer.json").read_bytes()
    assert "chatcmpl-1" == fields["id"]
