"""
openai's own client over ours.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from kimi_async import AsyncKimi, KimiError, Timeout
from kimi_async.integrations.blocking import blocking
from kimi_async.integrations.openai import as_blocking_openai, as_openai
from kimi_async.testing.faults import Drop, FaultPlan, Stall
from kimi_async.testing.simulator.server import KimiSimulator
from support.framework_checks import (
    MODEL,
    Driver,
    FrameworkChecks,
    Person,
    get_weather,
)

openai = pytest.importorskip("openai", reason="the official client is not installed")

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class OfficialClient(Driver):
    """By hand, and forgetful: no answer goes back with its reasoning."""

    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.official = as_openai(client)

    async def plain(self, text: str) -> str:
        completion = await self.official.chat.completions.create(model=MODEL, messages=asking(text))
        return completion.choices[0].message.content or ""

    async def stream(self, text: str) -> AsyncIterator[str]:
        stream = await self.official.chat.completions.create(model=MODEL, messages=asking(text), stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def tools(self, text: str) -> str:
        messages = asking(text)
        while True:
            completion = await self.official.chat.completions.create(
                model=MODEL, messages=messages, tools=[TOOL]
            )
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            calls = [each.model_dump() for each in message.tool_calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            for each in calls:
                city = json.loads(each["function"]["arguments"])["city"]
                messages.append({"role": "tool", "tool_call_id": each["id"], "content": get_weather(city)})

    async def structured(self, text: str) -> Any:
        completion = await self.official.chat.completions.parse(
            model=MODEL, messages=asking(text), response_format=Person
        )
        return completion.choices[0].message.parsed


class TestOfficialClient(FrameworkChecks):
    driver = OfficialClient
    refused = (openai.AuthenticationError,)
    broken = (openai.APIConnectionError,)


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as sim:
        yield sim


@pytest.fixture
async def client(sim: KimiSimulator) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(base_url=sim.base_url, api_key=sim.api_key) as client:
        yield client


async def test_key_is_not_in_the_official_client(sim: KimiSimulator, client: AsyncKimi) -> None:
    """The official client holds a placeholder; the server sees the key."""
    official = as_openai(client)
    await official.models.list()

    assert sim.api_key != official.api_key
    assert sim.api_key not in repr(vars(official))
    assert f"Bearer {sim.api_key}" == sim.requests[0].headers["Authorization"]
    assert 0 == official.max_retries


async def test_closing_the_official_client_leaves_ours_open(client: AsyncKimi) -> None:
    """Whoever closes the official client takes nothing from native calls."""
    async with as_openai(client):
        pass

    assert (await client.chat.completions.create(model=MODEL, messages=asking("Hello"))).choices


@pytest.mark.parametrize(
    ("fault", "official"),
    [
        (Drop(after_events=5, how="rst"), "APIConnectionError"),
        (Stall(after_events=5, seconds=60), "APITimeoutError"),
    ],
)
async def test_broken_stream_is_an_official_error(sim: KimiSimulator, fault: Any, official: str) -> None:
    """What a stream raises is openai's own error, also from those releases that pass on what is below them; ours is its cause."""
    sim.faults = FaultPlan([fault])
    timeout = Timeout(idle=0.2)
    async with AsyncKimi(base_url=sim.base_url, api_key=sim.api_key, timeout=timeout) as client:
        stream = await as_openai(client).chat.completions.create(
            model=MODEL, messages=asking("Tell me all."), stream=True
        )
        got = 0
        with pytest.raises(getattr(openai, official)) as caught:
            async for _ in stream:
                got += 1

    causes: list[BaseException] = [caught.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    ours = next(cause for cause in causes if isinstance(cause, KimiError))
    assert "after 5 chunks" in str(ours)
    assert 5 == got


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_connection_error_is_official(free_port: int) -> None:
    """No server is openai's error, after our retries and none of openai's."""
    async with AsyncKimi(
        base_url=f"http://127.0.0.1:{free_port}/v1", api_key="sk-test", max_retries=0
    ) as client:
        with pytest.raises(openai.APIConnectionError) as caught:
            await as_openai(client).models.list()

    assert "Connect" in type(caught.value.__cause__).__name__


async def test_uploads_downloads_and_batches(sim: KimiSimulator, client: AsyncKimi) -> None:
    """The official client's files and batches work over ours."""
    official = as_openai(client)
    line = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "x"}]}}\n'
    file = await official.files.create(file=("in.jsonl", line), purpose=cast("Any", "batch"))
    batch = await official.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert len(line) == file.bytes
    assert line == (await official.files.content(file.id)).content
    assert file.id == batch.input_file_id


def test_blocking_client_streams(kimi_simulator: KimiSimulator, kimi_client: AsyncKimi) -> None:
    """The blocking client calls and streams from a plain thread."""
    official = as_blocking_openai(kimi_client)
    kimi_simulator.say("Rivers bend.", "Rivers bend.")
    completion = official.chat.completions.create(model=MODEL, messages=asking("Hello"))
    with official.chat.completions.create(model=MODEL, messages=asking("Hello"), stream=True) as stream:
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]

    assert "Rivers bend." == completion.choices[0].message.content == "".join(pieces)


async def test_blocking_call_on_its_own_loop_says_so() -> None:
    """Blocking code that would wait for itself gets an error in place of a standstill."""

    async def inner() -> None:
        nothing = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="await it instead"):
            blocking(nothing)

    await asyncio.to_thread(blocking, inner())
