"""
A stream that is read for its end lets what comes gather in the kernel: later by no more than it may, and nothing else is changed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import (
    AsyncKimi,
    ConfigurationError,
    EngineOverloadedError,
    ResumePolicy,
    StreamStalledError,
    Timeout,
)
from kimi_async.streaming.clocks import SHARE, TICK, Ticks, Turn
from kimi_async.streaming.reading import GATHER
from kimi_async.streaming.stream import AsyncStream
from kimi_async.testing import KimiSimulator, MemoryTransport, Reply
from kimi_async.testing.clock import run
from kimi_async.transport.exchange import Request, Response

ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Wire:
    """
    A connection that is read as long as its gate is open; what arrives meanwhile is kept.
    """

    def __init__(self, *, timeout: Timeout | None = None) -> None:
        self.kept = b""
        self.closed = self.ended = False
        self.open = True
        self.reads: list[tuple[float, int]] = []
        self.gates: list[bool] = []
        self.news = asyncio.Event()
        request = Request("POST", "http://h/v1/chat/completions", timeout=timeout or Timeout())
        self.response = Response(200, request=request, reader=self.read, closer=self.close, gate=self.gate)

    def say(self, data: bytes) -> None:
        self.kept += data
        if self.open:
            self.news.set()

    async def talk(self) -> float:
        """Ten seconds of fifty tokens each, to the end; when that was."""
        self.say(ROLE)
        for _ in range(500):
            await asyncio.sleep(0.02)
            self.say(TOKEN)
        self.ended = True
        self.say(END)
        return asyncio.get_running_loop().time()

    def gate(self, on: bool) -> None:
        self.gates.append(on)
        self.open = on
        if on and self.kept:
            self.news.set()
        elif not on:
            self.news.clear()

    def close(self) -> None:
        self.closed = True

    async def read(self) -> bytes:
        if not (self.ended and not self.kept and self.open):
            await self.news.wait()
        data, self.kept = self.kept, b""
        self.news.clear()
        self.reads.append((asyncio.get_running_loop().time(), len(data)))
        return data


class Sipped(Wire):
    """
    One of whose gathered bytes can be had behind the shut gate.
    """

    def __init__(self, *, timeout: Timeout | None = None) -> None:
        super().__init__(timeout=timeout)
        self.sips: list[bytes] = []
        self.response.sip = self.sip

    def sip(self) -> bytes:
        assert not self.open
        data, self.kept = self.kept, b""
        self.sips.append(data)
        return data


def test_gather_reads_seldom_after_first_token() -> None:
    """
    Until the first token every packet is read; then a read brings many, and the end is at most a pause late.
    """

    async def main() -> None:
        wire = Wire()
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()

        talking = asyncio.create_task(wire.talk())
        count = sum([1 async for _ in stream])
        late = loop.time() - await talking

        assert 502 == count
        assert len(wire.reads) < 70
        assert 0 <= late <= GATHER
        assert wire.open
        assert wire.closed

    run(main())


def test_gather_pause_is_no_silence() -> None:
    """
    `idle` counts from the end of a pause, and still ends a stream that falls silent.
    """

    async def main() -> None:
        wire = Wire(timeout=Timeout(idle=0.1))
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather(2.0)

        async def talk() -> None:
            wire.say(ROLE + TOKEN)
            for _ in range(100):
                await asyncio.sleep(0.05)
                wire.say(TOKEN)

        talking = asyncio.create_task(talk())
        count = 0
        with pytest.raises(StreamStalledError):
            async for _ in stream:
                count += 1
        await talking

        assert 102 == count
        assert wire.open

    run(main())


def test_gather_closed_in_a_pause_takes_up_reading() -> None:
    """
    A connection never goes back stopped: the next reply on it would not be heard.
    """

    async def main() -> None:
        wire = Wire()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        wire.say(ROLE + TOKEN)
        await anext(stream)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not wire.open
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.close()

        assert [False, True] == wire.gates

        await asyncio.sleep(1)
        assert [False, True] == wire.gates

    run(main())


@pytest.mark.parametrize("drops", [False, True])
def test_gather_sips_behind_the_gate(drops: bool) -> None:
    """
    What has gathered is read at the end of each pause, and the gate stays shut to the end; where nobody wants the chunks, nobody
    is woken for them. Nothing is lost, and the end is no later than a pause.
    """

    async def main() -> None:
        wire = Sipped()
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks(drops)

        talking = asyncio.create_task(wire.talk())
        count = sum([1 async for _ in stream])
        late = loop.time() - await talking
        completion = stream.snapshot()
        assert completion is not None

        assert (2 if drops else 502) == count
        assert "x" * 500 == completion.choices[0].message.content
        assert 502 == stream.chunks
        assert wire.open
        assert len(wire.gates) <= 6  # until tokens and ticks have met
        assert len(wire.sips) < 60
        assert 0 <= late <= GATHER
        assert wire.response.bytes_received == len(ROLE + TOKEN * 500 + END)

    run(main())


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("half", [b"", TOKEN[:20]])
def test_gather_opens_where_too_little_came(half: bytes, drops: bool) -> None:
    """
    After a pause that brought no whole event the connection is read as it comes, until there is one.
    """

    async def main() -> None:
        wire = Sipped()
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks(drops)
        await asyncio.sleep(1)
        wire.say(ROLE + TOKEN)
        chunks = [await anext(stream), await anext(stream)]
        wire.say(half)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        assert wire.open

        at = loop.time()
        wire.ended = True
        wire.say(TOKEN[len(half) :] + END)
        await asyncio.wait([reading])
        assert at == loop.time()

        chunks += [each async for each in stream]
        completion = stream.snapshot()
        assert completion is not None
        assert "xx" == completion.choices[0].message.content
        assert (2 if drops else 4) == len(chunks) + (reading.exception() is None)

    run(main())


def test_gather_fault_behind_the_gate_is_raised_where_it_is_read() -> None:
    """
    An error that is read while nobody is woken ends the stream as any.
    """

    async def main() -> None:
        await asyncio.sleep(1)
        wire = Sipped()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks()
        wire.say(ROLE + TOKEN)
        await anext(stream)
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        wire.say(TOKEN + b'data: {"error":{"message":"too much","type":"engine_overloaded_error"}}\n\n')

        with pytest.raises(EngineOverloadedError) as caught:
            await reading
        assert "xx" == caught.value.partial.choices[0].message.content
        assert wire.open

    run(main())


def test_gather_cancelled_in_a_pause_loses_nothing() -> None:
    """
    What a pause brought after its reader had been cancelled is there for the next one.
    """

    async def main() -> None:
        await asyncio.sleep(1)
        wire = Sipped()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks()
        wire.say(ROLE + TOKEN)
        await anext(stream)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        stream.drop_chunks(False)
        wire.say(TOKEN)
        await asyncio.sleep(1)

        assert "x" == (await anext(stream)).choices[0].delta.content

        wire.say(END)
        assert ["stop"] == [each.choices[0].finish_reason async for each in stream]

    run(main())


def test_gather_silence_behind_the_gate_stalls() -> None:
    """
    A server that falls silent is found out, `idle` after the last pause that brought something.
    """

    async def main() -> None:
        wire = Sipped(timeout=Timeout(idle=3.0))
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks()

        async def talk() -> float:
            wire.say(ROLE)
            for _ in range(100):
                wire.say(TOKEN)
                await asyncio.sleep(0.1)
            return loop.time()

        talking = asyncio.create_task(talk())
        with pytest.raises(StreamStalledError):
            async for _ in stream:
                pass
        assert 3.0 <= loop.time() - await talking <= 3.0 + 2 * GATHER

    run(main())


def test_gather_is_for_what_comes_slowly() -> None:
    """
    A reply that is here as fast as it can be read is not held up.
    """

    async def main() -> None:
        wire = Sipped()
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather()
        stream.drop_chunks()

        async def talk() -> None:
            wire.say(ROLE + TOKEN)
            for _ in range(200):
                await asyncio.sleep(0.001)
                wire.say(TOKEN * 1200)
            wire.say(END)

        talking = asyncio.create_task(talk())
        async for _ in stream:
            pass
        await talking

        assert 240_003 == stream.chunks
        assert loop.time() < 1

    run(main())


async def test_gather_bounds() -> None:
    """
    A pause longer than a reader may take is refused.
    """
    stream: AsyncStream[Any] = AsyncStream(Wire().response)

    with pytest.raises(ConfigurationError, match="gather"):
        stream.gather(60.0)
    stream.gather(0)
    await stream.close()


def test_gather_shorter_than_a_tick_is_kept() -> None:
    """
    Who asks for sixty pictures a second is not made to wait for the common beat.
    """

    async def main() -> None:
        wire = Wire()
        loop = asyncio.get_running_loop()
        stream: AsyncStream[Any] = AsyncStream(wire.response)
        stream.gather(0.01)
        wire.say(ROLE + TOKEN)
        await anext(stream)
        await anext(stream)
        for _ in range(5):
            before = loop.time()
            wire.say(TOKEN)
            await anext(stream)

            assert before + 0.01 == pytest.approx(loop.time())
        await stream.close()

    run(main())


class Counting:
    """
    A transport whose replies can be stopped: counts how often.
    """

    def __init__(self, body: list[bytes]) -> None:
        self.stopped = 0
        self.inner = MemoryTransport(self.serve)
        self.body = body

    async def serve(self, _: Request) -> Reply:
        async def pieces() -> AsyncIterator[bytes]:
            for each in self.body:
                await asyncio.sleep(0.06)
                yield each

        return Reply(headers={"content-type": "text/event-stream"}, body=pieces())

    async def send(self, request: Request) -> Response:
        response = await self.inner.send(request)
        response.gate = self.gate
        return response

    def gate(self, on: bool) -> None:
        self.stopped += not on


async def opened(client: AsyncKimi, how: str, **options: Any) -> Any:
    completions = client.chat.completions
    asked: Any = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}], **options}
    if how == "create":
        return await completions.create(stream=True, **asked)
    if how == "raw":
        return (await completions.with_raw_response.create(stream=True, **asked)).parse()
    if how == "stream":
        return await completions.stream(**asked).__aenter__()
    if how == "raw_events":
        return (await completions.create(stream=True, **asked)).raw_events()
    if how == "mended":
        return await completions.create(stream=True, leaked_tools="mend", **asked)
    if how == "run_tools":
        return completions.run_tools(stream=True, tools=[], **asked)
    raise AssertionError(how)


@pytest.mark.virtual_clock
@pytest.mark.parametrize("how", ["create", "raw", "stream", "raw_events", "mended", "run_tools"])
async def test_gather_as_an_option(how: str) -> None:
    """
    At every door to a stream that is iterated, `gather=` pauses the reading, and its absence does not.
    """
    stopped = []
    for options in ({}, {"gather": 0.05}):
        transport = Counting([ROLE, *[TOKEN] * 20, END])
        client = AsyncKimi(api_key="sk-test", transport=transport)
        stream = await opened(client, how, **options)
        async for _ in stream:
            pass
        stopped.append(transport.stopped)

    assert 0 == stopped[0]
    assert 10 < stopped[1] <= 21


@pytest.mark.virtual_clock
@pytest.mark.parametrize(
    "options", [{}, {"leaked_tools": "mend", "tools": []}, {"resume": ResumePolicy()}, {"empty": "raise"}]
)
async def test_final_text_is_whole_where_chunks_gather(options: Any) -> None:
    """
    Whatever stands between the chunks and the reader of their end gets all of it.
    """
    transport = Counting([ROLE, *[TOKEN] * 20, END])
    client = AsyncKimi(api_key="sk-test", transport=transport)
    asked: Any = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}], **options}

    async with client.chat.completions.stream(**asked) as stream:
        assert "x" * 20 == await stream.get_final_text()
    assert 1 < transport.stopped


@pytest.mark.parametrize("given", [0, -1, 5.1, float("nan"), float("inf"), True, "0.05"])
async def test_gather_option_is_checked_when_given(given: Any) -> None:
    """
    Before anything is sent, and by `stream()` before it is entered.
    """
    transport = Counting([])
    client = AsyncKimi(api_key="sk-test", transport=transport)

    with pytest.raises(ConfigurationError, match=r"gather must be seconds above 0, 5 at most; got"):
        await opened(client, "create", gather=given)
    with pytest.raises(ConfigurationError, match="gather"):
        client.chat.completions.stream(model="kimi-k3", messages=[], gather=given)
    assert [] == transport.inner.requests


async def test_gather_option_needs_a_stream() -> None:
    """
    A whole reply has nothing to gather.
    """
    client = AsyncKimi(api_key="sk-test", transport=Counting([]))

    with pytest.raises(ConfigurationError, match="gather= needs stream=True"):
        await client.chat.completions.create(model="kimi-k3", messages=[], gather=0.05)


async def test_final_completion_over_sockets_reuses_connection() -> None:
    """
    Answers read for their end are whole, and their connection carries the next.
    """
    async with (
        KimiSimulator() as server,
        AsyncKimi(api_key=server.api_key, base_url=server.base_url) as client,
    ):
        texts = []
        for _ in range(3):
            async with client.chat.completions.stream(
                model="kimi-k3", messages=[{"role": "user", "content": "Hello?"}]
            ) as stream:
                texts.append(await stream.get_final_text())
        session: Any = client._stack.transport.session()  # type: ignore[attr-defined]

        assert all(texts)
        assert 1 == sum(map(len, session.connector._conns.values()))


def test_ticks_serve_many_with_one_timer() -> None:
    """
    Pauses that end at nearly the same time end together, and none later than it may.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ticks = Ticks(loop)
        ended: list[float] = []
        for each in range(10):
            ticks.call(loop.time() + each / 1000, 0.2, lambda _: ended.append(loop.time()))
        begun = loop.time()
        await asyncio.sleep(1)

        assert 10 == len(ended)
        assert all(0.2 - TICK <= each - begun <= 0.21 for each in ended)

    run(main())


def test_ticks_let_others_have_the_loop() -> None:
    """
    Where many pauses end together not all of them are seen to in one turn, and one that fails keeps nobody from being called.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ticks, told, failed, turns = Ticks(loop), [], [], 0
        loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))

        def look(number: int) -> None:
            until = time.perf_counter() + SHARE / 4
            while time.perf_counter() < until:
                pass
            if number == 7:
                raise ZeroDivisionError
            told.append(number)

        for number in range(20):
            ticks.call(loop.time(), 0, lambda _, number=number: look(number))
        while len(told) < 19:
            turns += bool(told)
            await asyncio.sleep(0)

        assert {*range(20)} - {7} == {*told}
        assert [ZeroDivisionError] == list(map(type, failed))
        assert turns > 4

    asyncio.run(main())


def test_turn_serves_those_who_wait_in_order() -> None:
    """
    Who stepped aside is served first come, first served, as many in a turn as fit into the share.
    """

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.took(SHARE)
        served: list[int] = []

        async def step(number: int) -> None:
            await turn.wait()
            served.append(number)

        tasks = [asyncio.create_task(step(number)) for number in range(20)]
        await asyncio.sleep(0)
        assert turn.is_over(0.0)
        tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert [number for number in range(20) if number != 3] == served
        assert not turn.is_over(0.0)

    run(main())
