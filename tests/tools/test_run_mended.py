"""
`run_tools` where a host or a model did something wrong: calls in the text, arguments that are almost JSON, too long a history.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from typing import Any

import pytest

from kimi_async import AsyncKimi, BadRequestError, ConfigurationError, KimiWarning, tool
from kimi_async.testing import KimiService, MemoryTransport, Reply, ToolCall, Turn, in_memory
from kimi_async.testing.faults import BrokenArguments, LeakedTools
from kimi_async.tools import LeakedToolsError
from kimi_async.transport.exchange import Request

ADDED: list[tuple[int, int]] = []


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    ADDED.append((a, b))
    return a + b


SUM: Any = [{"role": "user", "content": "What is 1 + 2?"}]


def simulated(**options: Any) -> tuple[KimiService, AsyncKimi]:
    service = KimiService(strict_history=True, **options)
    return service, AsyncKimi(api_key=service.api_key, transport=in_memory(service), max_retries=0)


def sums(*turns: Turn | str, **options: Any) -> tuple[KimiService, AsyncKimi]:
    service, client = simulated(**options)
    calls = (ToolCall("add:0", "add", '{"a":1,"b":2}'), ToolCall("add:1", "add", '{"a":3,"b":4}'))
    service.queue.extend([Turn("", "Hm.", calls), Turn("Three and seven."), *map(as_turn, turns)])
    ADDED.clear()
    return service, client


def as_turn(turn: Turn | str) -> Turn:
    return Turn(turn) if isinstance(turn, str) else turn


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [LeakedTools("k2"), LeakedTools("k3"), LeakedTools("k2", "section"), LeakedTools("k3", "section"), LeakedTools("k2", "first")],
)  # fmt: skip
async def test_run_tools_leaked_calls_are_run(fault: LeakedTools, stream: bool) -> None:
    """Calls that the host left in the text are run as if they had come as calls, and the history is one that it takes."""
    _, client = sums(faults=[fault])
    async with client:
        result = await client.chat.completions.run_tools(
            model="kimi-k3", messages=SUM, tools=[add], leaked_tools="mend", stream=stream
        )

    assert sorted(ADDED) == [(1, 2), (3, 4)]
    assert ("Three and seven.", "tool_calls") == (result.text, result.turns[0].choices[0].finish_reason)
    assert not result.turns[0].choices[0].message.content
    assert ["3", "7"] == [
        m["content"] for m in result.messages if isinstance(m, dict) and m["role"] == "tool"
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaked_tools", [None, "warn", "mend"])
async def test_run_tools_markup_is_never_the_answer(leaked_tools: Any, stream: bool) -> None:
    """Markup that is not made into calls ends the run with an error that has the answer; no tool has run."""
    fault = LeakedTools("k2", "end") if leaked_tools == "mend" else LeakedTools("k2")
    service, client = sums(faults=[fault])
    service.queue[0] = Turn("", "Hm.", (ToolCall("x:0", "no_such_tool", "{}"),))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        async with client:
            with pytest.raises(LeakedToolsError) as caught:
                await client.chat.completions.run_tools(
                    model="kimi-k3", messages=SUM, tools=[add], leaked_tools=leaked_tools, stream=stream
                )

    assert "<|tool_call_begin|>" in (caught.value.completion.choices[0].message.content or "")
    assert SUM == caught.value.messages
    assert [] == ADDED
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_create_leak_is_warned_of() -> None:
    """A whole answer to a request with tools that holds their markup is told; without markup nothing is."""
    _, client = sums(faults=[LeakedTools("k3")])
    async with client:
        with pytest.warns(KimiWarning, match=r"leaked_tools=\"mend\""):
            leaked = await client.chat.completions.create(model="kimi-k3", messages=SUM, tools=[add])
        plain = await client.chat.completions.create(model="kimi-k3", messages=SUM, tools=[add])

    assert "<|open|>tools" in (leaked.choices[0].message.content or "")
    assert "Three and seven." == plain.choices[0].message.content


async def test_create_refuses_another_word_for_leaks() -> None:
    """A slip in the option is told before anything is sent."""
    _, client = sums()
    async with client:
        with pytest.raises(ConfigurationError, match="'mend', 'warn' or 'off'"):
            await client.chat.completions.create(model="kimi-k3", messages=SUM, leaked_tools="fix")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "style", ["unclosed", "single_quotes", "trailing_comma", "unquoted_keys", "fence", "comment", "twice"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_run_tools_broken_arguments_are_repaired(style: Any, stream: bool) -> None:
    """Arguments that are almost JSON are repaired, validated, run and sent back as what was run; the events tell it."""
    pytest.importorskip("json_repair", reason="the extra [repair]")
    _, client = sums(faults=[BrokenArguments(style)])
    async with client:
        run = client.chat.completions.run_tools(
            model="kimi-k3", messages=SUM, tools=[add], repair_arguments=True, stream=stream
        )
        events = [event async for event in run if event.type == "tool.finished"]

    assert sorted(ADDED) == [(1, 2), (3, 4)]
    assert [None, None] == [event.error for event in events]
    assert [{"a": 1, "b": 2}, {"a": 3, "b": 4}] == sorted(
        [json.loads(event.repaired) for event in events], key=str
    )
    assert all(event.repaired != event.call.function.arguments for event in events)
    assert "Three and seven." == run.result.text


@pytest.mark.parametrize("repair_arguments", [False, True])
async def test_run_tools_arguments_beyond_repair_are_told(repair_arguments: bool) -> None:
    """What cannot be read is told to the model and goes back as JSON, so that no host refuses it; what does not fit is told as ever."""
    if repair_arguments:
        pytest.importorskip("json_repair", reason="the extra [repair]")
    service, client = simulated()
    ADDED.clear()
    wrong = (
        ToolCall("add:0", "add", "just words"),
        ToolCall("add:1", "add", ""),
        ToolCall("add:2", "add", '{"a": "x", "b": 1}'),
    )
    service.queue.extend([Turn("", "Hm.", wrong), Turn("Sorry.")])
    async with client:
        result = await client.chat.completions.run_tools(
            model="kimi-k3", messages=SUM, tools=[add], repair_arguments=repair_arguments
        )
    sent = [call.function.arguments for call in result.messages[1].tool_calls]
    told = [m["content"] for m in result.messages[2:5]]

    assert ["Sorry.", []] == [result.text, ADDED]
    assert ['{"not_json":"just words"}', "{}", '{"a": "x", "b": 1}'] == sent
    assert all(text.startswith("Error: the arguments do not fit") for text in told)
    assert "just words" == result.turns[0].choices[0].message.tool_calls[0].function.arguments


async def test_run_tools_repair_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is told before anything is sent, with the extra that has it."""
    monkeypatch.setitem(sys.modules, "json_repair", None)
    _, client = sums()
    async with client:
        with pytest.raises(ConfigurationError, match=r"kimi-async\[repair\]"):
            client.chat.completions.run_tools(
                model="kimi-k3", messages=SUM, tools=[add], repair_arguments=True
            )


async def test_run_tools_fit_sends_what_fits() -> None:
    """A conversation that has grown too long goes on: each turn is sent what fits, and the run keeps everything."""
    service, client = simulated()
    long = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"Number {n}. " + "silver " * 30_000}
        for n in range(20)
    ]
    calls = [Turn("", "Hm.", (ToolCall("add:0", "add", '{"a":1,"b":2}'),)) for _ in range(3)]
    service.queue.extend([*calls, Turn("Three.")])
    messages = [*long, *SUM]
    async with client:
        with pytest.raises(BadRequestError):
            await client.chat.completions.run_tools(
                model="kimi-k2.6", messages=messages, tools=[add], max_completion_tokens=1_000
            )
        result = await client.chat.completions.run_tools(
            model="kimi-k2.6", messages=messages, tools=[add], max_completion_tokens=1_000, fit=True
        )

    assert "Three." == result.text
    assert len(messages) + 3 * 2 + 1 == len(result.messages)


@pytest.mark.parametrize("wait", [False, True])
async def test_run_tools_fit_by_a_function(wait: bool) -> None:
    """Who knows better gives a function of the messages, async or not."""
    seen: list[int] = []

    def last(messages: list[Any]) -> list[Any]:
        seen.append(len(messages))
        return messages[-3:]

    async def later(messages: list[Any]) -> list[Any]:
        return last(messages)

    _, client = sums()
    async with client:
        result = await client.chat.completions.run_tools(
            model="kimi-k3", messages=[*SUM, *SUM, *SUM, *SUM], tools=[add], fit=later if wait else last
        )

    assert "Three and seven." == result.text
    assert [4, 7] == seen


async def test_run_tools_awaited_asks_again_for_a_turn_that_broke_off() -> None:
    """A streamed turn of a run that is only awaited was seen by nobody: where it breaks off it is asked for again."""
    cut = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"On"}}]}\n\n'
    end = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    bodies = [cut, cut + end]

    async def serve(_: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=bodies.pop(0))

    def nothing() -> None:
        """Does nothing."""

    client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(serve))
    result = await client.chat.completions.run_tools(
        model="kimi-k3", messages=[{"role": "user", "content": "?"}], tools=[nothing], stream=True
    )

    assert "On" == result.text
    assert [] == bodies
