"""
What belongs to one event loop goes with it, also where nobody closes it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from kimi_async import APIConnectionError, AsyncKimi, RateLimits
from kimi_async.testing import KimiSimulator
from kimi_async.transport.loops import PerLoop

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
NOWHERE = "http://127.0.0.1:9/v1"


class Thing:
    """
    What a loop may have; it holds its loop, as most do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop


def test_per_loop_value_goes_with_its_loop():
    """
    A loop that nobody holds is collected with what it has, though that holds the loop and others list it.
    """
    things: PerLoop[Thing] = PerLoop()
    loop, other = asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop()
    for each in (loop, other):
        things.put(each, Thing(each))
    gone = weakref.ref(things.get(loop))  # type: ignore[arg-type]

    assert {loop, other} == {each for each, _ in things.all()}
    loop.close()
    del loop, each
    gc.collect()

    assert gone() is None
    assert [other] == [each for each, _ in things.all()]
    assert (True, False) == (things.clean(), things.clean())
    assert 1 == len(things)
    other.close()
    assert things.clean()
    assert (None, 0) == (things.get(other), len(things))


def test_per_loop_value_goes_with_its_owner():
    """
    A loop that runs for years does not gather what the clients of the past had on it.
    """
    things: PerLoop[Thing] = PerLoop()
    loop = asyncio.SelectorEventLoop()
    things.put(loop, Thing(loop))
    gone = weakref.ref(things.get(loop))  # type: ignore[arg-type]
    del things
    gc.collect()

    assert gone() is None
    loop.close()


def test_per_loop_value_that_was_taken_out():
    """
    It is known no more, and may be taken out twice.
    """
    things: PerLoop[Thing] = PerLoop()
    loop = asyncio.SelectorEventLoop()
    things.put(loop, Thing(loop))
    things.pop(loop)
    things.pop(loop)

    assert (None, [], 0) == (things.get(loop), things.all(), len(things))
    loop.close()


@pytest.fixture(scope="module")
def sim() -> Iterator[KimiSimulator]:
    """
    A server in a thread of its own, since the loops of these tests come and go.
    """
    ready, started = threading.Event(), list[Any]()

    async def serve() -> None:
        async with KimiSimulator() as simulator:
            over = asyncio.Event()
            started.extend((simulator, asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield started[0]
    started[1].call_soon_threadsafe(started[2].set)
    thread.join()


async def call(client: AsyncKimi) -> None:
    await client.chat.completions.create(model="kimi-k3", messages=MESSAGES)


async def streamed(client: AsyncKimi) -> None:
    async for _ in await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True):
        pass


async def left_open(client: AsyncKimi) -> None:
    stream = await client.chat.completions.create(model="kimi-k3", messages=MESSAGES, stream=True)
    await stream.__anext__()


async def under_way(client: AsyncKimi) -> None:
    reached = asyncio.Event()

    async def read() -> None:
        async with await client.chat.completions.create(
            model="kimi-k3", messages=MESSAGES, stream=True
        ) as stream:
            await stream.__anext__()
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await reached.wait()
    del task


async def queued(client: AsyncKimi) -> None:
    await client.limiter.acquire()
    tasks = [asyncio.create_task(call(client)) for _ in range(3)]
    while client.limiter.stats().waiting < len(tasks):  # noqa: ASYNC110
        await asyncio.sleep(0)


async def out_of_reach(client: AsyncKimi) -> None:
    with pytest.raises(APIConnectionError):
        await call(client.with_options(base_url=NOWHERE, max_retries=0))


async def between_retries(client: AsyncKimi) -> None:
    scheduled = asyncio.Event()
    there = AsyncKimi(base_url=NOWHERE, api_key="sk-test", hooks=[lambda _: scheduled.set()])
    del client
    task = asyncio.create_task(call(there))
    await scheduled.wait()
    await asyncio.sleep(0)
    del task


async def mapped(client: AsyncKimi) -> None:
    async with client.map([{"model": "kimi-k3", "messages": MESSAGES}] * 3) as answers:
        async for _ in answers:
            pass


@pytest.mark.parametrize(
    "use", [call, streamed, left_open, under_way, queued, out_of_reach, between_retries, mapped]
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_that_is_dropped_is_collected(
    use: Callable[[AsyncKimi], Awaitable[None]], sim: KimiSimulator, capsys: pytest.CaptureFixture[str]
):
    """
    The client lives on and does not keep a loop that nobody closed: its connections and slots are given back, with no word of
    aiohttp's, and the next loop is served.
    """
    client = AsyncKimi(base_url=sim.base_url, api_key=sim.api_key, limits=RateLimits(concurrency=1))
    loop = asyncio.SelectorEventLoop()
    gone = weakref.ref(loop)
    loop.run_until_complete(use(client))  # type: ignore[arg-type]
    del loop
    gc.collect()

    assert gone() is None

    async def again() -> None:
        async with client:
            await asyncio.wait_for(call(client), 5)

    asyncio.run(again())
    assert "Unclosed" not in capsys.readouterr().err
