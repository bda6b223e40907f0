"""
Warnings of what the official host is certain to refuse, and the helper for partial mode.
"""

import warnings
from typing import Any

import msgspec
import pytest

from kimi_async import (
    AsyncKimi,
    ConfigurationError,
    EmptyResponseError,
    KimiWarning,
    ResumePolicy,
    pydantic_function_tool,
)
from kimi_async.providers.advice import certain_refusals
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request


class Place(msgspec.Struct):
    city: str


MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"model": "kimi-k3", "temperature": 0.3}, "temperature"),
        ({"model": "kimi-k3.1-pro", "top_p": 1}, "top_p"),
        ({"model": "kimi-k2.7-code", "n": 2}, "n is fixed"),
        ({"model": "kimi-k3", "presence_penalty": 0.5}, "presence_penalty"),
        ({"model": "kimi-k2.6", "temperature": 0.6}, "temperature"),
        ({"model": "kimi-k2.6", "temperature": 1, "thinking": {"type": "disabled"}}, "0.6"),
        ({"model": "kimi-k2.7-code", "thinking": {"type": "disabled"}}, "always thinks"),
        ({"model": "kimi-k2.6", "thinking": {"type": "enabled"}, "reasoning_effort": "high"}, "both"),
        ({"model": "kimi-k3", "thinking": {"effort": "low"}, "reasoning_effort": "max"}, "sources differ"),
        ({"model": "kimi-k2.6", "tool_choice": "required", "tools": [{}]}, "required"),
        ({"model": "kimi-k3", "tool_choice": {"type": "function"}, "tools": [{}]}, "named"),
        ({"model": "kimi-k3", "tool_choice": "required"}, "needs tools"),
        ({"model": "anything", "stop": list("abcdef")}, "stop"),
    ],
)
def test_certain_refusals(body: dict[str, Any], word: str) -> None:
    """Each rule names what is refused."""
    told = certain_refusals(body)

    assert 1 == len(told)
    assert word in told[0]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "kimi-k3", "temperature": 1.0, "top_p": 0.95, "n": 1, "presence_penalty": 0},
        {"model": "kimi-k2.6", "temperature": 0.6, "thinking": {"type": "disabled"}},
        {"model": "kimi-k2.6", "tool_choice": "required", "tools": [{}], "thinking": {"type": "disabled"}},
        {"model": "kimi-k3", "tool_choice": "required", "tools": [{}]},
        {"model": "kimi-k3", "tool_choice": "required", "messages": [{"role": "system", "tools": [{}]}]},
        {"model": "kimi-k3", "thinking": {"effort": "low"}, "reasoning_effort": "low"},
        {"model": "moonshotai/Kimi-K3", "temperature": 0.2, "n": 4},
        {"model": "kimi-k9", "temperature": 0.2},
    ],
)
def test_certain_refusals_silent(body: dict[str, Any]) -> None:
    """What is accepted, and what is not known, is not warned of."""
    assert [] == certain_refusals(body)


async def handler(request: Request) -> Reply:
    body = b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'
    return Reply(body=body)


async def test_advice_given_for_official_host() -> None:
    """The official host's rules are told for it, and the request is sent all the same."""
    transport = MemoryTransport(handler)
    kimi = AsyncKimi(api_key="sk-test", base_url="https://api.moonshot.ai/v1", transport=transport)

    with pytest.warns(KimiWarning, match="temperature"):
        await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, temperature=0.2)

    assert 0.2 == transport.requests[0].json()["temperature"]


@pytest.mark.parametrize(
    "options", [{"advice": False}, {"base_url": "http://localhost:8000/v1"}, {"provider": "openrouter"}]
)
async def test_advice_not_given(options: dict[str, Any]) -> None:
    """Nobody is warned who asked not to be, or whose server has other rules."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, temperature=0.2)


async def test_prefix_is_partial_message() -> None:
    """`prefix=` becomes the message that partial mode wants, at the end."""
    transport = MemoryTransport(handler)
    kimi = AsyncKimi(api_key="sk-test", transport=transport)

    await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, prefix="{")
    await kimi.chat.completions.create(
        model="kimi-k3",
        messages=MESSAGES,
        prefix={"content": "Well, ", "name": "Holmes", "reasoning_content": "hm"},
    )

    first, second = [request.json()["messages"][-1] for request in transport.requests]
    assert {"role": "assistant", "content": "{", "partial": True} == first
    assert {
        "role": "assistant",
        "content": "Well, ",
        "name": "Holmes",
        "reasoning_content": "hm",
        "partial": True,
    } == second


async def test_prefix_empty_refused() -> None:
    """An empty prefix is a mistake, and Kimi refuses an empty assistant message."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler))

    with pytest.raises(ConfigurationError, match="prefix"):
        await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, prefix="")


EMPTY = (
    b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"","reasoning_content":"long thought"},'
    b'"finish_reason":"length"}]}'
)
EMPTY_STREAM = (
    b'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"long thought"}}]}\n\n'
    b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
)


async def spent(request: Request) -> Reply:
    return Reply(body=EMPTY_STREAM if request.json().get("stream") else EMPTY)


async def test_empty_answer_visible() -> None:
    """An answer whose budget went into reasoning is told by `is_empty`."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(spent))

    completion = await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES)

    assert completion.is_empty


@pytest.mark.parametrize("resume", [None, ResumePolicy()], ids=["plain", "resuming"])
async def test_empty_stream_raises_where_asked(resume: ResumePolicy | None) -> None:
    """With `empty="raise"` the stream gives its chunks, and then the error with the whole of it."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(spent))
    stream = await kimi.chat.completions.create(
        model="kimi-k3", messages=MESSAGES, stream=True, empty="raise", resume=resume
    )
    chunks = []

    with pytest.raises(EmptyResponseError) as caught:
        async for chunk in stream:
            chunks.append(chunk)

    assert 2 == len(chunks)
    assert "long thought" == caught.value.completion.choices[0].message.reasoning_content


async def test_empty_answer_raises_where_asked() -> None:
    """The same for a whole answer."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(spent))

    with pytest.raises(EmptyResponseError, match="max_completion_tokens"):
        await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, empty="raise")


def definition(parameters: Any, name: str = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


GOOD: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (
            definition(
                {"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"type": "string"}]}}}
            ),
            ("weather", "/properties/a/type", "anyOf", "mfjs_tool"),
        ),
        (definition({"type": "object", "properties": {"a": True}}), ("/properties/a", "mfjs_tool")),
        (
            definition(
                {
                    "type": "object",
                    "properties": {"a": {"$ref": "#/definitions/A"}},
                    "definitions": {"A": {"type": "string"}},
                }
            ),
            ("#/definitions/A", "mfjs_tool"),
        ),
        (definition(GOOD, "get weather"), ("get weather", "letters")),
        (definition(GOOD, "1st"), ("1st", "letters")),
        (definition(GOOD, "x" * 257), ("letters",)),
    ],
)
async def test_tool_that_kimi_refuses_warns_with_what_translates_it(
    tool: dict[str, Any], words: tuple[str, ...]
) -> None:
    """
    A definition written for another host is a 400 at the official one; the warning names the place and the cure.
    """
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(spent))

    with pytest.warns(KimiWarning) as told:
        await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, tools=[tool])

    assert 1 == len(told)
    assert __file__ == told[0].filename
    assert all(word in str(told[0].message) for word in words)


@pytest.mark.parametrize(
    "tool",
    [
        definition(GOOD),
        definition({"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}),
        definition({}),
        definition({"type": "object", "properties": {"a": True}}, strict=False),
        {"type": "builtin_function", "function": {"name": "$web_search"}},
        {"type": "plugin"},
        pydantic_function_tool(Place),
    ],
    ids=repr,
)
async def test_tool_that_kimi_takes_warns_of_nothing(tool: dict[str, Any]) -> None:
    """What the host takes, or merely ignores, is no reason to speak."""
    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(spent))

    await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, tools=[tool])


async def test_tool_that_kimi_refuses_is_no_matter_elsewhere() -> None:
    """Other hosts have other rules."""
    kimi = AsyncKimi(api_key="sk-test", base_url="http://localhost:8000/v1", transport=MemoryTransport(spent))

    await kimi.chat.completions.create(model="kimi-k3", messages=MESSAGES, tools=[definition(True, "a b")])
