"""
Idiomatic code that mypy --strict and pyright in strict mode must accept. Never run.

`assert_type` pins what an editor will show; the rest only has to pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, assert_type

import aiohttp
import msgspec

from kimi_async import (
    APIStatusError,
    AsyncKimi,
    AsyncStream,
    Handler,
    IncompleteStreamError,
    KimiError,
    RateLimitError,
    RateLimits,
    Request,
    Response,
    RetryPolicy,
    Timeout,
)
from kimi_async.bulk.results import Result
from kimi_async.resources.files import FileContentReply
from kimi_async.resources.raw_replies import APIResponse
from kimi_async.tools import tool
from kimi_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    CompletionUsage,
    FileObject,
    Model,
)
from kimi_async.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
    ChatCompletionUserMessageParam,
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


class City(msgspec.Struct):
    name: str


@dataclass
class River:
    length: float


@tool
async def population(city: str) -> int:
    """How many people live in a city."""
    return len(city)


async def values(client: AsyncKimi) -> None:
    parsed = await client.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": "x"}], response_format=City, reask=1
    )
    assert_type(parsed.parsed, City | None)
    assert_type(parsed.choices[0].message.parsed, City | None)
    async with client.chat.completions.stream(model="m", messages=[], response_format=River) as stream:
        final = await stream.get_final_completion()
    assert_type(final.choices[0].message.parsed, River | None)


async def tools(client: AsyncKimi) -> None:
    # A tool is still the function it was.
    assert_type(await population("Ghent"), int)
    result = await client.chat.completions.run_tools(
        model="m", messages=[], tools=[population], response_format=City, max_turns=3
    )
    assert_type(result.parsed, City | None)
    assert_type(result.text, str)


async def bulk(client: AsyncKimi) -> None:
    async with client.map("in.jsonl", journal="out.jsonl", concurrency=10, ordered=True) as results:
        async for result in results:
            assert_type(result.custom_id, str)
            assert_type(result.completion, ChatCompletion | None)
            assert_type(result.error, Exception | None)
    with await client.batches.run([{"messages": []}], model="m") as answers:
        for answer in answers:
            assert_type(answer, Result)


async def openai_s_types(client: AsyncKimi, options: dict[str, Any]) -> None:
    question: ChatCompletionUserMessageParam = {"role": "user", "content": "Hello?"}
    messages: list[ChatCompletionMessageParam] = [question]
    weather: list[ChatCompletionToolParam] = [{"type": "function", "function": {"name": "weather"}}]
    whole = await client.chat.completions.create(
        model="kimi-k3", messages=messages, tools=weather, stream=False, **options
    )
    completion: ChatCompletion = whole
    messages.append(completion.choices[0].message)
    calls: dict[int, str] = {}
    async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            calls[call.index] = calls.get(call.index, "") + (call.id or "")


async def files(client: AsyncKimi) -> None:
    uploaded = await client.files.create(file=("a.txt", b"x"), purpose="file-extract")
    assert_type(uploaded, FileObject)
    assert_type((await client.files.content(uploaded.id)).text, str)
    async for file in client.files.list(limit=10):
        assert_type(file, FileObject)


async def raw(client: AsyncKimi) -> None:
    response = await client.chat.completions.with_raw_response.create(model="m", messages=[])
    assert_type(response, APIResponse[ChatCompletion])
    assert_type(response.parse(), ChatCompletion)
    assert_type(response.parse(to=Model), Model)
    print(response.status_code, response.request_id, response.headers["x"], response.parse().choices[0])
    streamed = await client.with_raw_response.chat.completions.create(model="m", messages=[], stream=True)
    assert_type(streamed.parse(), AsyncStream[ChatCompletionChunk])
    models = await client.models.with_raw_response.list()
    assert_type(models.parse().data, list[Model])
    async with client.files.with_streaming_response.content("f") as reply:
        assert_type(await reply.parse(), FileContentReply)
    async with client.chat.completions.with_streaming_response.create(model="m", messages=[]) as answer:
        assert_type(await answer.parse(), ChatCompletion)


async def limits() -> None:
    AsyncKimi(limits=RateLimits(concurrency=15, rpm=100), retry=RetryPolicy(max_retries=5, total_time=60))
    client = AsyncKimi(limits="tier1", provider="openrouter", middleware=[tag])
    client.with_options(priority=10, deadline=30.0, mode="fail_fast")


async def tag(request: Request, send: Handler) -> Response:
    request.headers["X-Team"] = "rivers"
    return await send(request)


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
