"""
Tools and values, as strict type checkers must see them. Never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, assert_type

import msgspec

from kimi_async import (
    AsyncChatCompletionStreamManager,
    AsyncKimi,
    ToolContext,
    ToolRun,
    ToolRunResult,
    tool,
    tool_from,
    web_search,
)
from kimi_async.schema import Loss, ResponseFormat, check_mfjs, json_schema, response_format_for, to_mfjs
from kimi_async.tools import EchoTool, Tool
from kimi_async.types import ChatCompletion
from kimi_async.types.parsed import ParsedChatCompletion


class City(msgspec.Struct):
    name: str


@dataclass
class Road:
    length: float


@tool
async def weather(city: str, context: ToolContext, days: int = 1) -> str:
    return f"{city} {days} {context.turn}"


@tool(timeout=5, concurrent=False)
def add(a: int, b: int) -> int:
    return a + b


async def tools(client: AsyncKimi) -> None:
    assert_type(add(1, 2), int)
    assert_type(await weather("x", ToolContext(), days=2), str)
    assert_type(web_search(), EchoTool)
    assert_type(tool_from({"name": "f"}, print), Tool)
    search = await client.formulas.tools("moonshot/web-search:latest")

    run = client.chat.completions.run_tools(
        model="kimi-k3",
        messages=[{"role": "user", "content": "?"}],
        tools=[weather, add, *search, web_search()],
        max_turns=3,
        tool_timeout=10,
        stop_when=lambda run: len(run.turns) > 2,
        on_error=lambda error, call: f"{call.id}: {error}",
        reasoning_effort="low",
    )
    async with run:
        async for event in run:
            if event.type == "content.delta":
                assert_type(event.delta, str)
            elif event.type == "tool.finished":
                assert_type(event.content, str)
                assert_type(event.error, Exception | None)
            elif event.type == "run.finished":
                assert_type(event.result.text, str)
    typed = client.chat.completions.run_tools(
        model="kimi-k3", messages=[], tools=[weather], response_format=City
    )
    assert_type(typed, ToolRun[City])
    result = await typed
    assert_type(result, ToolRunResult[City])
    assert_type(result.parsed, City | None)
    assert_type(result.completion, ChatCompletion)
    if result.usage is not None:
        assert_type(result.usage.list_price("kimi-k3"), Decimal | None)


async def values(client: AsyncKimi) -> None:
    parsed = await client.chat.completions.parse(model="kimi-k3", messages=[], response_format=City, reask=1)
    assert_type(parsed, ParsedChatCompletion[City])
    assert_type(parsed.choices[0].message.parsed, City | None)
    assert_type(parsed.parsed, City | None)
    road = await client.beta.chat.completions.parse(model="kimi-k3", messages=[], response_format=Road)
    assert_type(road.parsed, Road | None)
    wanted: ResponseFormat[list[City]] = response_format_for(list[City])
    assert_type(wanted.decode("[]"), list[City])
    cities = await client.chat.completions.parse(model="kimi-k3", messages=[], response_format=wanted)
    assert_type(cities.parsed, list[City] | None)

    plain = client.chat.completions.stream(model="kimi-k3", messages=[])
    assert_type(plain, AsyncChatCompletionStreamManager[ChatCompletion])
    async with client.chat.completions.stream(model="kimi-k3", messages=[], response_format=City) as stream:
        async for event in stream:
            if event.type == "content.done":
                print(event.parsed)
        completion = await stream.get_final_completion()
        assert_type(completion.choices[0].message.parsed, City | None)


def schemas() -> None:
    report: list[Loss] = []
    assert_type(to_mfjs({"type": "object"}, report=report), dict[str, Any])
    assert_type(json_schema(City), dict[str, Any])
    assert_type(check_mfjs({}), list[str])
