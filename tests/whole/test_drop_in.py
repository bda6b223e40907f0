"""
Code written for `AsyncOpenAI` runs after changing the import: each program here runs with both clients against the same
simulator, and must tell the same story.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

import kimi_async
import kimi_async.integrations.compat
from kimi_async.testing import KimiSimulator

Program = Callable[[Any, Any], Awaitable[Any]]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@program
async def whole_answer(client: Any, sdk: Any) -> Any:
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, max_completion_tokens=200
    )
    message = completion.choices[0].message
    usage = completion.usage
    return (
        message.role,
        message.content,
        completion.choices[0].finish_reason,
        completion.model,
        completion.object,
        usage.total_tokens == usage.prompt_tokens + usage.completion_tokens,
    )


@program
async def streamed_answer_with_usage(client: Any, sdk: Any) -> Any:
    stream = await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    text, usage, finish = "", None, None
    async for chunk in stream:
        if not chunk.choices:
            usage = chunk.usage
            continue
        delta = chunk.choices[0].delta
        if delta.content is not None:
            text += delta.content
        finish = chunk.choices[0].finish_reason or finish
    return text, finish, usage.total_tokens > 0


@program
async def stream_left_early(client: Any, sdk: Any) -> Any:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True
    ) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                return chunk.choices[0].delta.content, stream.response.headers["content-type"].split(";")[0]


@program
async def stream_helper(client: Any, sdk: Any) -> Any:
    kinds: list[str] = []
    async with client.chat.completions.stream(model="kimi-k3", messages=QUESTION) as stream:
        async for event in stream:
            if event.type == "content.delta" and not kinds:
                kinds.append(event.type)
                assert event.snapshot == event.delta
            if event.type == "content.done":
                kinds.append(event.content)
        completion = await stream.get_final_completion()
    return kinds, completion.choices[0].message.content, completion.choices[0].finish_reason


@program
async def thinking_through_extra_body(client: Any, sdk: Any) -> Any:
    completion = await client.chat.completions.create(
        model="kimi-k2.6", messages=QUESTION, extra_body={"thinking": {"type": "disabled"}}
    )
    return completion.choices[0].message.content, getattr(
        completion.choices[0].message, "reasoning_content", None
    )


@program
async def tool_loop(client: Any, sdk: Any) -> Any:
    messages: list[Any] = [{"role": "user", "content": "Call get_weather for Beijing, please."}]
    said: list[Any] = []
    for _ in range(4):
        completion = await client.chat.completions.create(model="kimi-k3", messages=messages, tools=[WEATHER])
        choice = completion.choices[0]
        messages.append(choice.message)
        said.append(choice.finish_reason)
        if choice.finish_reason != "tool_calls":
            break
        for call in choice.message.tool_calls:
            said.append((call.id, call.type, call.function.name))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"temp_c": 21}'})
    return said


@program
async def models(client: Any, sdk: Any) -> Any:
    page = await client.models.list()
    ids = [model.id async for model in client.models.list()]
    return (
        [model.id for model in page.data] == ids,
        page.has_next_page(),
        (await client.models.retrieve(ids[0])).id,
    )


@program
async def raw_response(client: Any, sdk: Any) -> Any:
    raw = await client.chat.completions.with_raw_response.create(model="kimi-k3", messages=QUESTION)
    return (
        raw.status_code,
        "msh-request-id" in raw.headers,
        raw.parse().choices[0].message.content,
        raw.retries_taken,
    )


@program
async def streaming_response(client: Any, sdk: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(
        model="kimi-k3", messages=QUESTION
    ) as reply:
        completion = await reply.parse()
    return reply.status_code, completion.choices[0].message.content


@program
async def error_of_the_server(client: Any, sdk: Any) -> Any:
    try:
        await client.chat.completions.create(model="kimi-none", messages=QUESTION)
    except sdk.NotFoundError as error:
        kin = isinstance(error, sdk.APIStatusError), isinstance(error, sdk.APIError)
        return kin, error.status_code, error.type, error.code, error.body["type"], error.response.status_code
    return None


@program
async def error_of_the_key(client: Any, sdk: Any) -> Any:
    try:
        await client.with_options(api_key="sk-another-key-altogether").models.list()
    except sdk.AuthenticationError as error:
        return error.status_code, error.body["type"]
    return None


@program
async def error_of_the_request(client: Any, sdk: Any) -> Any:
    try:
        await client.chat.completions.create(model="kimi-k3", messages=QUESTION, temperature=0.3)
    except sdk.BadRequestError as error:
        return error.status_code, error.type, "invalid temperature" in str(error)
    return None


@program
async def untyped_call(client: Any, sdk: Any) -> Any:
    reply = await client.get("/users/me/balance", cast_to=object)
    return reply["code"], sorted(reply["data"])


@program
async def message_dumped_and_sent_back(client: Any, sdk: Any) -> Any:
    first = await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
    message = first.choices[0].message.model_dump(exclude_none=True)
    second = await client.chat.completions.create(
        model="kimi-k3", messages=[*QUESTION, message, {"role": "user", "content": "Another."}]
    )
    return message["role"], second.choices[0].message.content


@program
async def options_not_given(client: Any, sdk: Any) -> Any:
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, temperature=sdk.NOT_GIVEN, tools=sdk.NOT_GIVEN, timeout=30
    )
    return completion.choices[0].finish_reason


@pytest.mark.parametrize("story", PROGRAMS, ids=lambda each: each.__name__)
async def test_drop_in_program(story: Program) -> None:
    """The program tells the same with either client."""
    told = []
    for sdk, make in ((openai, openai.AsyncOpenAI), (kimi_async, kimi_async.AsyncKimi)):
        async with (
            KimiSimulator() as simulator,
            make(base_url=simulator.base_url, api_key=simulator.api_key, max_retries=0) as client,
        ):
            told.append(await story(client, sdk))

    assert told[0] == told[1]
    assert told[1] is not None


def test_drop_in_names() -> None:
    """What programs import from the OpenAI SDK is there, at the same place."""
    names = [
        "APIError", "APIStatusError", "APIConnectionError", "APITimeoutError", "APIResponseValidationError",
        "BadRequestError", "AuthenticationError", "PermissionDeniedError", "NotFoundError", "ConflictError",
        "UnprocessableEntityError", "RateLimitError", "InternalServerError", "LengthFinishReasonError",
        "ContentFilterFinishReasonError", "NOT_GIVEN", "NotGiven", "Omit", "omit", "not_given", "AsyncStream",
        "Timeout", "BaseModel",
    ]  # fmt: skip

    assert [] == [name for name in names if not hasattr(kimi_async, name)]
    assert kimi_async.AsyncKimi is kimi_async.integrations.compat.AsyncOpenAI


async def test_drop_in_aiohttp_client() -> None:
    """
    `http_client=DefaultAioHttpClient()`, the OpenAI SDK's way to aiohttp, is taken for what it is here: the default.
    """
    async with (
        KimiSimulator() as simulator,
        kimi_async.AsyncKimi(
            base_url=simulator.base_url,
            api_key=simulator.api_key,
            http_client=kimi_async.integrations.compat.DefaultAioHttpClient(),
        ) as client,
    ):
        assert [model.id async for model in client.models.list()]


def test_drop_in_httpx_client_refused() -> None:
    """An httpx client cannot carry this SDK, and is told what to pass instead."""
    session_type = type(
        "AsyncClient", (), {"__module__": "httpx._client", "request": None, "connector": None}
    )

    with pytest.raises(TypeError, match="aiohttp"):
        kimi_async.AsyncKimi(api_key="sk-test", http_client=session_type())
