"""
What must hold of every framework over this client. A test module subclasses `FrameworkChecks` and says how the framework is used.
"""

import asyncio
import re
import traceback
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from kimi_async import AsyncKimi
from kimi_async.testing.faults import Drop, Error, ErrorEvent, FaultPlan
from kimi_async.testing.simulator.chat_model import ToolCall, Turn
from kimi_async.testing.simulator.replies import Pace
from kimi_async.testing.simulator.server import KimiSimulator

MODEL = "kimi-k2.6"

PATIENCE = 20.0
"""Seconds after which a wait in a test is a failure."""


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """
    The weather in a city.

    Args:
        city: The city's name.
    """
    return f"{city}: sunny"


def call(number: int, city: str) -> ToolCall:
    return ToolCall(f"get_weather:{number}", "get_weather", f'{{"city": "{city}"}}')


def chats(sim: KimiSimulator) -> list[Any]:
    """The bodies of the chat requests that a simulator has seen."""
    return [request.json() for request in sim.requests if request.path.endswith("/chat/completions")]


def reasoning_sent(body: Any) -> list[str | None]:
    """The reasoning of each answer that a request repeats, oldest first."""
    return [
        message.get("reasoning_content") for message in body["messages"] if message["role"] == "assistant"
    ]


class Driver:
    """One framework, used as its documentation says, over one client. Each method is one run."""

    def __init__(self, client: AsyncKimi) -> None:
        self.client = client

    async def plain(self, text: str) -> str:
        raise NotImplementedError

    def stream(self, text: str) -> AsyncIterator[str]:
        """The pieces of text as the framework hands them out."""
        raise NotImplementedError

    async def tools(self, text: str) -> str:
        """Asks with the tool `get_weather` at hand, until there is an answer."""
        raise NotImplementedError

    async def structured(self, text: str) -> Any:
        """An answer with `name` and `age`."""
        raise NotImplementedError


class FrameworkChecks:
    """The checks. `driver` says how; `refused` what the framework raises for a wrong key; `broken` for a stream that broke off."""

    driver: type[Driver]
    refused: tuple[type[BaseException], ...]
    broken: tuple[type[BaseException], ...] = (Exception,)

    @pytest.fixture
    async def sim(self) -> AsyncIterator[KimiSimulator]:
        async with KimiSimulator() as sim:
            yield sim

    @pytest.fixture
    async def client(self, sim: KimiSimulator) -> AsyncIterator[AsyncKimi]:
        async with AsyncKimi(base_url=sim.base_url, api_key=sim.api_key) as client:
            yield client

    async def test_plain_answer(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """The text of the answer is what the model said."""
        sim.say(Turn("Rivers bend.", "Think of water."))

        assert "Rivers bend." == await self.driver(client).plain("A headline, please.")
        assert MODEL == chats(sim)[0]["model"]

    async def test_stream_hands_out_all_pieces(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """The pieces of a stream, in order, are the text, and there are several."""
        sim.say(Turn("Rivers bend where the rock is soft, and run where it is hard.", "Think of water."))

        pieces = [piece async for piece in self.driver(client).stream("A line, please.")]

        assert "Rivers bend where the rock is soft, and run where it is hard." == "".join(pieces)
        assert len(pieces) > 3
        assert chats(sim)[0]["stream"] is True

    async def test_tool_loop_keeps_reasoning(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """Through two rounds of tool calls, each answer goes back with the reasoning that led to it."""
        sim.say(
            Turn("", "First Beijing.", (call(0, "Beijing"),)),
            Turn("", "Now Paris.", (call(1, "Paris"),)),
            Turn("Sunny in both.", "Both are known."),
        )

        assert "Sunny in both." == await self.driver(client).tools("Weather in Beijing and Paris?")
        assert [200, 200, 200] == [request.status for request in sim.requests]
        last = chats(sim)[2]
        assert ["First Beijing.", "Now Paris."] == reasoning_sent(last)
        results = [message["content"] for message in last["messages"] if message["role"] == "tool"]
        assert ["Beijing: sunny", "Paris: sunny"] == [_text(result) for result in results]

    async def test_structured_answer(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """An answer of a given shape is decoded to that shape, with a model that thinks."""
        sim.say(Turn('{"name": "Ada", "age": 36}', "A person is wanted."))

        person = await self.driver(client).structured("Who was first?")

        assert ("Ada", 36) == (person.name, person.age)

    async def test_wrong_key_is_refused_once(self, sim: KimiSimulator) -> None:
        """A wrong key gives the framework's own error for it, after one request."""
        async with AsyncKimi(base_url=sim.base_url, api_key="sk-wrong") as client:
            with pytest.raises(self.refused):
                await self.driver(client).plain("Hello")

        assert [401] == [request.status for request in sim.requests]

    async def test_rate_limit_is_waited_out(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """A 429 is repeated by the client, and the framework sees only the answer."""
        sim.faults = FaultPlan([Error("rpm", retry_after="0")])

        assert await self.driver(client).plain("Hello")
        assert [429, 200] == [request.status for request in sim.requests]

    async def test_exhausted_balance_is_not_repeated(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """An account without balance is told so after one request, by whatever layer might repeat."""
        sim.faults = FaultPlan([Error("quota")] * 5)

        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the framework makes of it
            await self.driver(client).plain("Hello")
        assert re.search(r"(?i)quota|balance|429", "".join(traceback.format_exception(caught.value)))
        assert [429] == [request.status for request in sim.requests]

    async def test_cancelled_call_lets_go(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """A cancelled call is cancelled on the wire, and its slot is free."""
        sim.service.pace = Pace(first_token=60)
        task = asyncio.create_task(self.driver(client).plain("Hello"))
        async with asyncio.timeout(PATIENCE):
            await sim.until(lambda stats: stats.in_flight == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await sim.until(lambda stats: stats.in_flight == 0)
        assert 0 == client.limiter.stats().in_flight

    async def test_cancelled_stream_lets_go(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """A stream cancelled midway is closed on the wire, and its slot is free."""
        sim.service.pace = Pace(tokens_per_second=20)
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in self.driver(client).stream("Tell me all."):
                begun.set()

        task = asyncio.create_task(read())
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            await (
                anyio.wait_all_tasks_blocked()
            )  # so that the cancellation finds it waiting for the next piece
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await sim.until(lambda stats: stats.in_flight == 0)
        assert 0 == client.limiter.stats().in_flight

    async def test_error_before_first_piece_is_repeated(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """An error event at the very beginning of a stream is repeated unseen."""
        sim.faults = FaultPlan([ErrorEvent(after_events=0)])
        sim.say(Turn("Rivers bend."), Turn("Rivers bend."))

        pieces = [piece async for piece in self.driver(client).stream("A headline, please.")]

        assert "Rivers bend." == "".join(pieces)
        assert 2 == len(sim.requests)

    async def test_truncated_stream_is_an_error(self, sim: KimiSimulator, client: AsyncKimi) -> None:
        """A stream that merely ends is no success."""
        sim.faults = FaultPlan([Drop(after_events=5, how="fin")])
        pieces: list[str] = []

        with pytest.raises(self.broken):
            async for piece in self.driver(client).stream("Tell me all."):
                pieces.append(piece)
        assert 1 == len(sim.requests)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
