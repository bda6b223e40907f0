"""
`client.chat.completions`: what a reply means, whole or streamed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_async import (
    APIResponseValidationError,
    AsyncKimi,
    EngineOverloadedError,
    IncompleteStreamError,
    InternalServerError,
    KimiError,
    RetryPolicy,
)
from kimi_async.streaming.stream import AsyncStream
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request
from kimi_async.types import ChatCompletion
from support.raw_server import COMPLETION, HELLO, WHOLE

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


def client_of(*replies: bytes | dict[str, Any], **options: Any) -> tuple[AsyncKimi, MemoryTransport]:
    """
    Answers with these in turn, the last for ever.
    """
    left = list(replies)

    async def handler(request: Request) -> Reply:
        body = left.pop(0) if len(left) > 1 else left[0]
        return Reply(
            headers={"Msh-Request-Id": "rid-1"}, body=body if isinstance(body, bytes) else json.dumps(body)
        )

    transport = MemoryTransport(handler)
    options.setdefault("max_retries", 0)
    return AsyncKimi(
        api_key="sk-test", transport=transport, retry=RetryPolicy(base=0, cap=0), **options
    ), transport


async def ask(client: AsyncKimi, **options: Any) -> Any:
    return await client.chat.completions.create(model="kimi-k3", messages=QUESTION, **options)


async def test_reply():
    """
    A completion with its request id; `stream=False` is not sent.
    """
    client, transport = client_of(COMPLETION)
    completion = await ask(client, stream=False)

    assert isinstance(completion, ChatCompletion)
    assert ("Hello", "rid-1") == (completion.choices[0].message.content, completion._request_id)
    assert "stream" not in transport.requests[0].json()
    assert completion.usage is not None
    assert 7 == completion.usage.total_tokens


async def test_stream():
    """
    A stream whose first chunk has arrived.
    """
    client, transport = client_of(WHOLE)
    stream = await ask(client, stream=True)

    assert isinstance(stream, AsyncStream)
    assert "rid-1" == stream.request_id
    assert (200, "rid-1") == (stream.response.status_code, stream.response.headers["msh-request-id"])
    assert transport.requests[0].json()["stream"] is True
    assert 4 == len([each async for each in stream])


async def test_beta_is_the_same():
    """
    The path of older code.
    """
    client, _ = client_of(COMPLETION)

    assert client.beta.chat.completions is client.chat.completions


ERROR = {
    "message": "The engine is currently overloaded, please try again later",
    "type": "engine_overloaded_error",
}

BAD: dict[str, tuple[Any, type[KimiError]]] = {
    "an error": ({"error": ERROR}, EngineOverloadedError),
    "an error beside choices": ({**COMPLETION, "error": ERROR}, EngineOverloadedError),
    "an error in the choice": ({**COMPLETION, "choices": [{"error": {"code": 502, "message": "gone"}}]}, InternalServerError),
    "finish_reason error": ({**COMPLETION, "choices": [{"message": {}, "finish_reason": "error"}]}, InternalServerError),
    "no choices": ({"id": "c", "object": "chat.completion", "choices": []}, APIResponseValidationError),
    "vLLM's old form": ({"object": "error", "message": "no", "type": "InternalServerError", "code": 500}, InternalServerError),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_error_with_status_200(name: str):
    """
    Some gateways answer 200 and mean no. The error's own words decide its class, and whether it is repeated.
    """
    body, cls = BAD[name]
    client, transport = client_of(body)
    with pytest.raises(cls) as caught:
        await ask(client)

    assert cls is type(caught.value)
    assert "rid-1" == caught.value.request_id  # type: ignore[attr-defined]
    assert 0 == transport.open


async def test_error_with_status_200_is_repeated():
    """
    And if the second attempt is well, nobody hears of the first.
    """
    client, transport = client_of(
        {"error": {"message": "boom", "type": "server_error"}}, COMPLETION, max_retries=1
    )
    completion = await ask(client)

    assert "Hello" == completion.choices[0].message.content
    assert 2 == len(transport.requests)


async def test_stream_that_broke_after_text_is_not_repeated():
    """
    What was handed out cannot be taken back: the error comes, with the partial answer.
    """
    client, transport = client_of(HELLO, WHOLE, max_retries=2)
    with pytest.raises(IncompleteStreamError) as caught:
        async with await ask(client, stream=True) as stream:
            async for _ in stream:
                pass

    assert "Hello" == caught.value.partial.choices[0].message.content
    assert 1 == len(transport.requests)


async def test_answer_goes_back_unchanged():
    """
    A message of a reply, appended to the conversation, is sent as it came: reasoning, calls, unknown fields and nulls.
    """
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "",
        "tool_calls": [
            {"id": "f:0", "type": "function", "function": {"name": "f", "arguments": "{oops"}, "index": 0}
        ],
        "x_vendor": {"a": [1, None]},
    }
    client, transport = client_of(
        {**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    )
    completion = await ask(client)
    conversation = [
        *QUESTION,
        completion.choices[0].message,
        {"role": "tool", "tool_call_id": "f:0", "content": "1"},
    ]
    await client.chat.completions.create(model="kimi-k3", messages=conversation)

    assert message == transport.requests[1].json()["messages"][1]


async def test_prefix_of_another_kind_is_refused():
    """
    By its name, before anything is sent.
    """
    async with AsyncKimi(api_key="sk-test") as client:
        with pytest.raises(TypeError, match="prefix must be a string or a mapping with content, not int"):
            await client.chat.completions.create(
                model="kimi-k3",
                messages=[{"role": "user", "content": "?"}],
                prefix=5,  # type: ignore[call-overload]
            )
