"""
After hundreds of calls that went wrong in every way: no descriptor, task, response, timer or slot is left.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import kimi_async.streaming.clocks
import kimi_async.streaming.reading
from kimi_async import AsyncKimi, KimiError, RetryPolicy, Timeout
from kimi_async.streaming.stream import AsyncStream
from kimi_async.transport.exchange import Request, Response
from support.fault_cases import CASES, Case
from support.raw_server import DONE, END, FINISH, HELLO, Conversation, RawServer, chunked, head, sends

# ruff: noqa: SIM117 (a server and its client read better one inside the other)

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]
KEY = "sk-test-0123456789abcdef"

SLOW = {
    "slow",
    "silence",
    "hangs",
    "stalls",
    "ever",
    "trickle",
    "never",
    "no reply",
    "late",
    "one byte",
    "past total",
    "rate limit in the middle",  # which tells a limit of 3 a minute, and it is kept
}
QUICK = [case for case in CASES if not case.options and not any(word in case.name for word in SLOW)]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def alive(*kinds: type) -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)


@pytest.mark.filterwarnings("ignore:.*without a finish_reason")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
async def test_nothing_left_after_everything_went_wrong(monkeypatch: pytest.MonkeyPatch):
    """One client, every quick fault there is, three times over, left early every second time."""
    monkeypatch.setattr(kimi_async.streaming.clocks, "GRACE", 0.02)
    monkeypatch.setattr(kimi_async.streaming.reading, "DRAIN", 0.02)

    async def script(conversation: Conversation) -> None:
        while (asked := await conversation.request()) is not None:
            case = by_name[asked.json()["messages"][0]["content"]]
            await case.answer(conversation)
            if conversation.writer.is_closing():
                return

    by_name = {case.name: case for case in QUICK}
    async with RawServer(script) as server:
        client = AsyncKimi(
            api_key=KEY,
            base_url=server.base_url,
            timeout=Timeout(connect=2, read=0.2, first_token=0.2, idle=0.1),
            max_retries=1,
            retry=RetryPolicy(base=0, cap=0, quota_cooldown=0, budget_patience=0),
        )

        async def one(case: Case, leave: bool) -> None:
            view = client.with_options()
            try:
                messages: list[Any] = [{"role": "user", "content": case.name}]
                answer: Any = await view.chat.completions.create(
                    model="kimi-k3", messages=messages, stream=case.stream
                )
                if case.stream:
                    async with answer:
                        async for _ in answer:
                            if leave:
                                break
            except KimiError:
                pass

        before = asyncio.all_tasks(), descriptors()
        of_others = alive(AsyncStream, Response, Request)
        for turn in range(3):
            await asyncio.gather(*(one(case, bool(turn % 2)) for case in QUICK))
        session: Any = client._stack.transport.session()  # type: ignore[attr-defined]
        assert 0 == len(session.connector._acquired)
        assert 0 == client.limiter.stats().in_flight
        del session
        await client.close()
        await server.quiet()
        await asyncio.sleep(0)

        assert len(QUICK) > 100
        assert before == (asyncio.all_tasks() - server.open, descriptors())
        client = None  # type: ignore[assignment]
        assert Counter() == alive(AsyncStream, Response, Request) - of_others


async def test_dropped_stream_closes_its_connection():
    """Dropping a stream is untidy, warned of, and tells the server to stop all the same."""
    async with RawServer(sends(head(), chunked(HELLO))) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:
            stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            await anext(stream)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del stream  # and no gc.collect(): nothing may refer to it in a circle
            assert [ResourceWarning] == [each.category for each in caught]
            await server.quiet()

            assert 0 == client.limiter.stats().in_flight


async def test_dropped_stream_in_another_thread():
    """Also when the last reference dies in another thread."""
    async with RawServer(sends(head(), chunked(HELLO))) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:
            holder: list[Any] = [
                await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            ]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                thread = threading.Thread(target=holder.clear)
                thread.start()
                thread.join()
            assert [ResourceWarning] == [each.category for each in caught]
            await server.quiet()

            assert 0 == client.limiter.stats().in_flight


async def test_dropped_events_close_their_connection():
    """The same for a stream of events whose `async with` was never left."""
    async with RawServer(sends(head(), chunked(HELLO))) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:
            manager: Any = client.chat.completions.stream(model="kimi-k3", messages=QUESTION)
            events = await manager.__aenter__()
            event: Any = await anext(events)
            assert "chunk" == event.type
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del events, manager, event
                gc.collect()
            assert [ResourceWarning] == [each.category for each in caught]
            await server.quiet()


async def test_raw_response_dropped():
    """A raw reply that was read to its end gives its connection back."""
    async with RawServer(sends(head(kind="text/plain"), chunked(b"hello"), END)) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:
            for _ in range(3):
                response = await client.get("/x", cast_to=Response)
                assert b"hello" == await response.read()
            assert 1 == server.connections


def test_loop_that_ends_with_a_stream_open():
    """A program that forgets a stream and its client ends with our warning, and no traceback."""
    program = """
        import asyncio, sys
        sys.path.insert(0, {tests!r})
        from support.raw_server import *
        from kimi_async import AsyncKimi
        async def main():
            async with RawServer(sends(head(), chunked(HELLO))) as server:
                client = AsyncKimi(api_key="sk-test", base_url=server.base_url)
                stream = await client.chat.completions.create(
                    model="kimi-k3", messages=[{{"role": "user", "content": "x"}}], stream=True)
                await anext(stream)
        asyncio.run(main())
        print("done")
    """
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "always::ResourceWarning",
            "-c",
            textwrap.dedent(program).format(tests=str(Path(__file__).parents[1])),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert "done\n" == ran.stdout
    assert "Traceback" not in ran.stderr
    assert "was dropped before its end" in ran.stderr


async def test_many_streams_leave_no_memory():
    """A thousand streams cost what ten cost: nothing is kept of one that has ended."""
    async with RawServer(sends(head(), chunked(HELLO + FINISH + DONE), END)) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:

            async def some(count: int) -> int:
                for _ in range(count):
                    async with await client.chat.completions.create(
                        model="kimi-k3", messages=QUESTION, stream=True
                    ) as stream:
                        async for _ in stream:
                            pass
                server.requests.clear()
                gc.collect()
                return len(gc.get_objects())

            await some(300)
            before = await some(10)
            after = await some(300)

            assert after - before < 200
