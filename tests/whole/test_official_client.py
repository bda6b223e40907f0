"""
The `openai` package, a client we did not write, judges the simulator: what it decodes, folds and raises must be right.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Any

import pydantic
import pytest

from kimi_async.testing.faults import Drop, Error, ErrorEvent, FaultPlan
from kimi_async.testing.simulator.replies import Pace, error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.server_limits import ServerLimits

openai = pytest.importorskip("openai", reason="the official client is a test dependency", minversion="3.0")

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me about the moon."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(sim: KimiSimulator) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=sim.base_url, api_key=sim.api_key, max_retries=0) as client:
        yield client


async def ask(client: Any, **options: Any) -> Any:
    return await client.chat.completions.create(**{"model": "kimi-k3", "messages": MESSAGES, **options})


async def test_completion_is_fully_typed(client: Any) -> None:
    """Every field of the official client's model is found where it looks for it, reasoning as an extra."""
    completion = await ask(client)

    choice = completion.choices[0]
    assert ("chat.completion", "kimi-k3") == (completion.object, completion.model)
    assert ("assistant", "stop") == (choice.message.role, choice.finish_reason)
    assert len(choice.message.content) > 100
    assert choice.message.reasoning_content
    assert completion.usage.completion_tokens_details.reasoning_tokens > 0
    assert completion.usage.prompt_tokens_details is None


async def test_completion_from_cache_counts_cached_tokens(client: Any) -> None:
    """The nested count is where OpenAI's own is."""
    await ask(client)
    completion = await ask(client)

    assert completion.usage.prompt_tokens == completion.usage.prompt_tokens_details.cached_tokens


async def test_stream_adds_up_to_the_completion(client: Any) -> None:
    """Streamed deltas join to the whole answer; the last chunk carries the usage."""
    whole = await ask(client)
    content = reasoning = ""
    async for chunk in await ask(client, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            delta = chunk.choices[0].delta
            content += delta.content or ""
            reasoning += getattr(delta, "reasoning_content", None) or ""

    assert whole.choices[0].message.content == content
    assert whole.choices[0].message.reasoning_content == reasoning
    assert whole.usage.completion_tokens == chunk.usage.completion_tokens


async def test_stream_manager_folds_events(client: Any) -> None:
    """Its stateful stream, which is strict about the order of chunks, reaches the same completion."""
    whole = await ask(client)
    async with client.chat.completions.stream(model="kimi-k3", messages=MESSAGES) as stream:
        kinds = {event.type async for event in stream}
        folded = await stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.choices[0].message.content == folded.choices[0].message.content


async def test_tool_calls_round_trip(client: Any) -> None:
    """Parallel calls come out typed, go back in as they are, and the model then answers."""
    question: list[Any] = [{"role": "user", "content": "Weather in Beijing and Shanghai?"}]
    async with client.chat.completions.stream(model="kimi-k3", messages=question, tools=[TOOL]) as stream:
        message = (await stream.get_final_completion()).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"temp_c": 21}'} for call in message.tool_calls
    ]
    answer = await ask(client, messages=[*question, message, *results], tools=[TOOL])

    cities = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
    assert ["Beijing", "Shanghai"] == cities
    assert "stop" == answer.choices[0].finish_reason


async def test_structured_output_parses(client: Any) -> None:
    """A json_schema answer satisfies the schema that the client made of a pydantic model."""
    pydantic = pytest.importorskip("pydantic")
    Answer = pydantic.create_model("Answer", city=(str, ...), degrees=(int, ...), notes=(list[str], ...))

    completion = await client.chat.completions.parse(
        model="kimi-k3", messages=MESSAGES, response_format=Answer
    )

    assert isinstance(completion.choices[0].message.parsed, Answer)


async def test_json_object_is_an_object(client: Any) -> None:
    """json_object gives JSON text, and costs prompt tokens for the injected instructions."""
    plain = await ask(client)
    completion = await ask(client, response_format={"type": "json_object"})

    assert isinstance(json.loads(completion.choices[0].message.content), dict)
    assert 47 == completion.usage.prompt_tokens - plain.usage.prompt_tokens


async def test_kimi_extras_travel_in_extra_body(sim: KimiSimulator, client: Any) -> None:
    """`thinking` through extra_body switches reasoning off."""
    completion = await ask(client, extra_body={"thinking": {"type": "disabled"}})

    assert not hasattr(completion.choices[0].message, "reasoning_content")
    assert {"type": "disabled"} == sim.requests[-1].json()["thinking"]


async def test_models_list_and_retrieve(client: Any) -> None:
    """The list is a page of models, and each can be fetched alone."""
    models = [model async for model in client.models.list()]
    one = await client.models.retrieve("kimi-k2.6")

    assert "kimi-k3" in [model.id for model in models]
    assert (one.id, "moonshot") == ("kimi-k2.6", one.owned_by)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("invalid_request", "BadRequestError"),
        ("content_filter", "BadRequestError"),
        ("incorrect_api_key", "AuthenticationError"),
        ("permission_denied", "PermissionDeniedError"),
        ("not_found", "NotFoundError"),
        ("conflict", "ConflictError"),
        ("rpm", "RateLimitError"),
        ("overloaded", "RateLimitError"),
        ("quota", "RateLimitError"),
        ("server_error", "InternalServerError"),
        ("unavailable", "InternalServerError"),
        ("gateway_timeout", "InternalServerError"),
    ],
)
async def test_errors_become_its_classes(sim: KimiSimulator, client: Any, kind: str, error: str) -> None:
    """Status and body of each refusal are those it knows; `type` is read out of the body."""
    sim.say(error_reply(kind))
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(client)

    assert error == type(caught.value).__name__
    refusal = error_reply(kind)
    assert refusal.type == (getattr(caught.value, "type", None) or "")
    assert caught.value.response.headers["msh-request-id"]


async def test_wrong_key_and_unknown_model(sim: KimiSimulator, client: Any) -> None:
    """The two mistakes of the first hour."""
    with pytest.raises(openai.AuthenticationError, match="Invalid Authentication"):
        await ask(client.with_options(api_key="sk-wrong"))
    with pytest.raises(openai.NotFoundError, match=r"Not found the model kimi-k2\.5 or Permission denied"):
        await ask(client, model="kimi-k2.5")


async def test_fixed_sampling_is_refused(client: Any) -> None:
    """A habit from other APIs, `temperature=0`, is a 400 here."""
    with pytest.raises(openai.BadRequestError, match="invalid temperature: only 1 is allowed for this model"):
        await ask(client, temperature=0)


async def test_its_retries_come_through(sim: KimiSimulator, client: Any) -> None:
    """Two failures, then an answer: it is served by the third request."""
    sim.faults = FaultPlan([Drop(before_headers=True, how="fin"), Error("unavailable", retry_after="0")])
    completion = await ask(client.with_options(max_retries=2))

    assert completion.choices[0].message.content
    assert [0, 503, 200] == [request.status for request in sim.requests]


async def test_error_event_inside_a_stream_is_raised(sim: KimiSimulator, client: Any) -> None:
    """An error in place of a chunk ends the iteration with its message."""
    sim.faults = FaultPlan([ErrorEvent(after_events=4)])
    stream = await ask(client, stream=True)
    received = [await anext(stream) for _ in range(4)]
    with pytest.raises(openai.APIError, match="The engine is currently overloaded"):
        await anext(stream)

    assert "" == received[0].choices[0].delta.content


async def test_concurrency_limit_is_enforced(client: Any) -> None:
    """Three streams at once against a limit of two: one is refused, and the limit is named."""
    limits, slow = ServerLimits(concurrency=2), Pace(tokens_per_second=10)
    async with KimiSimulator(limits=limits, pace=slow) as limited:
        other = client.with_options(base_url=limited.base_url)
        streams = await asyncio.gather(*(ask(other, stream=True) for _ in range(3)), return_exceptions=True)
        refused = [stream for stream in streams if isinstance(stream, openai.RateLimitError)]
        for stream in streams:
            if not isinstance(stream, BaseException):
                await stream.close()

    assert 1 == len(refused)
    assert "max concurrency: 2" in str(refused[0])


async def test_pydantic_model_with_a_date_is_answered(client: Any) -> None:
    """The schemas that the official client makes of pydantic models are taken, and the answer validates."""

    class Event(pydantic.BaseModel):
        when: date
        at: datetime | None = None
        code: str = pydantic.Field(pattern=r"^[A-Z]{2}\d{4}$")
        share: float = pydantic.Field(gt=0, lt=1)

    completion = await client.chat.completions.parse(
        model="kimi-k3", messages=MESSAGES, response_format=Event, tools=[]
    )
    tool = openai.pydantic_function_tool(Event)
    called = await ask(client, tools=[tool])

    assert isinstance(completion.choices[0].message.parsed, Event)
    Event.model_validate_json(called.choices[0].message.tool_calls[0].function.arguments)
