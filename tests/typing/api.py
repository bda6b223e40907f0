"""
Idiomatic code that mypy --strict and pyright in strict mode must accept. Never run.

`assert_type` pins what an editor will show; the rest only has to pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, assert_type

import aiohttp

from kimi_async import (
    APIStatusError,
    AsyncKimi,
    AsyncStream,
    IncompleteStreamError,
    KimiError,
    RateLimitError,
    Timeout,
)
from kimi_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    CompletionUsage,
    Model,
)


async def construction(session: aiohttp.ClientSession) -> None:
    AsyncKimi()
    AsyncKimi(api_key="sk-x", base_url="https://api.moonshot.cn/v1", timeout=30, max_retries=5)
    AsyncKimi(
        timeout=Timeout(connect=5, idle=None), default_headers={"X-Team": "a"}, default_query={"v": "1"}
    )
    async with AsyncKimi(http_client=session) as client:
        assert_type(client, AsyncKimi)
        assert_type(client.with_options(timeout=5.0, max_retries=0), AsyncKimi)
        assert_type(client.copy(), AsyncKimi)
        assert_type(client.is_closed(), bool)
    await client.close()


async def completion(client: AsyncKimi) -> None:
    whole = await client.chat.completions.create(
        model="kimi-k3",
        messages=[
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
        ],
        reasoning_effort="low",
        prompt_cache_key="conversation-1",
        max_completion_tokens=100,
        extra_headers={"X-Trace": "1"},
        extra_query={"a": "b"},
        extra_body={"anything": 1},
        timeout=10,
    )
    assert_type(whole, ChatCompletion)
    assert_type(whole.choices[0].message, ChatCompletionMessage)
    assert_type(whole.choices[0].message.content, str | None)
    assert_type(whole.choices[0].message.reasoning_content, str | None)
    assert_type(whole.choices[0].finish_reason, str | None)
    assert_type(whole.usage, CompletionUsage | None)
    assert_type(whole.model_dump(exclude_none=True), dict[str, Any])
    assert_type(whole.to_json(), str)


async def streams(client: AsyncKimi) -> None:
    stream = await client.chat.completions.create(
        model="kimi-k2.6",
        messages=[{"role": "user", "content": "Hi."}],
        thinking={"type": "disabled"},
        stream=True,
    )
    assert_type(stream, AsyncStream[ChatCompletionChunk])
    async with stream:
        async for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
            assert_type(chunk.choices[0].delta.content, str | None)
    await stream.close()
    assert_type(stream.response.status_code, int)
    assert_type(stream.response.headers.get("x", ""), str)

    async with client.chat.completions.stream(model="kimi-k3", messages=[]) as events:
        async for text in events.text_stream():
            assert_type(text, str)
        assert_type(await events.get_final_text(), str)


async def either(client: AsyncKimi, wanted: bool) -> None:
    result = await client.chat.completions.create(model="m", messages=[], stream=wanted)
    assert_type(result, ChatCompletion | AsyncStream[ChatCompletionChunk])


async def conversation(client: AsyncKimi, messages: Sequence[Mapping[str, Any]]) -> None:
    # Any sequence of mappings will do, and answers go back as they are.
    first = await client.chat.completions.create(model="m", messages=messages)
    await client.chat.completions.create(
        model="m", messages=[*messages, first.choices[0].message, {"role": "user", "content": "And?"}]
    )


async def others(client: AsyncKimi) -> None:
    async for model in client.models.list():
        assert_type(model, Model)
        assert_type(model.context_length, int | None)
    page = await client.models.list()
    assert_type(page.data, list[Model])
    assert_type(await client.models.retrieve("kimi-k3"), Model)
    count = await client.tokenizers.estimate_token_count(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    assert_type(count.total_tokens, int)
    balance = await client.users.me.balance()
    assert_type(balance.available_balance, Decimal)
    assert_type(await client.get("/models", cast_to=dict[str, Any]), dict[str, Any])


async def errors(client: AsyncKimi) -> None:
    try:
        await client.models.retrieve("m")
    except RateLimitError as error:
        assert_type(error.status_code, int)
        assert_type(error.request_id, str | None)
    except APIStatusError as error:
        assert_type(error.message, str)
    except IncompleteStreamError as error:
        assert_type(error.partial, ChatCompletion | None)
    except KimiError:
        pass
