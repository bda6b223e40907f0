"""
Cancellation at every suspension point in turn: connect, headers, body, queue, retry sleep, drain. Nothing is left behind, nothing
swallowed, and the client goes on working.
"""

# ruff: noqa: SIM117 (a server and its client read better one inside the other)

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from kimi_async import AsyncKimi, RateLimits, RetryPolicy, Timeout
from kimi_async.streaming.resume import ResumePolicy
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.testing.clock import run
from kimi_async.transport.exchange import Request
from support.raw_server import (
    COMPLETION,
    DONE,
    END,
    FINISH,
    HELLO,
    WHOLE,
    Conversation,
    RawServer,
    chunked,
    every,
    head,
    reply,
)

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]
KEY = "sk-test-0123456789abcdef"


class Steps:
    """
    Drives a coroutine, counts its suspensions, and cancels the task at the one numbered `at` (1 is the first).
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = functools.partial(coroutine.send, None)
        while True:
            try:
                waited = step()
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count == self.at:
                task.cancel()  # takes effect as the task suspends, below
            try:
                yield waited
            except BaseException as exc:
                step = functools.partial(coroutine.throw, exc)
            else:
                step = functools.partial(coroutine.send, None)

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await self.drive(coroutine)


async def cancelled_at(at: int, scenario: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Runs the scenario in a task, cancelled at this suspension. False if it had ended before."""
    steps = Steps(at)
    task = asyncio.ensure_future(steps.run(scenario()))
    await asyncio.wait([task])
    if steps.count < at:
        assert task.exception() is None
        return False
    assert task.cancelled(), f"the cancellation at suspension {at} was swallowed: {task!r}"
    return True


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- without sockets ---------------------------------------------------------------------------------------------------------


async def pieces(*data: bytes, every: float = 0.01) -> AsyncIterator[bytes]:
    for each in data:
        await asyncio.sleep(every)
        yield each


async def read(client: AsyncKimi, **options: Any) -> None:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True, **options
    ) as stream:
        async for _ in stream:
            pass


async def read_slowly(client: AsyncKimi) -> None:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True
    ) as stream:
        async for _ in stream:
            await asyncio.sleep(0.02)


async def read_events(client: AsyncKimi) -> None:
    async with client.chat.completions.stream(model="kimi-k3", messages=QUESTION) as stream:
        async for _ in stream.text_stream():
            pass
        await stream.get_final_completion()


async def leave_early(client: AsyncKimi) -> None:
    async with await client.chat.completions.create(
        model="kimi-k3", messages=QUESTION, stream=True
    ) as stream:
        async for chunk in stream:
            if chunk.choices[0].finish_reason:
                break


async def create(client: AsyncKimi) -> None:
    await client.chat.completions.create(model="kimi-k3", messages=QUESTION)


async def several(client: AsyncKimi) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(read(client))


async def several_of_anyio(client: AsyncKimi) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(read, client)


async def within_a_scope(client: AsyncKimi) -> None:
    with anyio.move_on_after(0.015):
        await read(client)


STREAM = (HELLO, FINISH, DONE)


def always(body: Callable[[], Any], status: int = 200) -> Callable[[int], Reply]:
    return lambda _: Reply(status, body=body())


def first(count: int, bad: Callable[[int], Reply], good: Callable[[int], Reply]) -> Callable[[int], Reply]:
    return lambda number: (bad if number < count else good)(number)


whole = always(lambda: pieces(*STREAM))
refused = always(lambda: pieces(b'{"error": {"message": "boom", "type": "server_error"}}'), 500)
limited = always(lambda: pieces(b'{"error": {"message": "max RPM: 3, please try again after 1 seconds", "type": "rate_limit_reached_error"}}'), 429)  # fmt: skip
broken = always(lambda: pieces(HELLO))
completion = always(lambda: pieces(b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'))

SCENARIOS: dict[str, tuple[Callable[[AsyncKimi], Awaitable[None]], Callable[[int], Reply], dict[str, Any]]] = {
    "stream": (read, whole, {}),
    "stream, slowly": (read_slowly, whole, {}),
    "events": (read_events, whole, {}),
    "break at finish_reason": (leave_early, whole, {}),
    "late end": (read, always(lambda: pieces(*STREAM, b": \n", b": \n", b": \n", every=0.05)), {}),
    "no end": (read, always(lambda: pieces(HELLO + FINISH, b"", every=100.0)), {}),
    "reply": (create, completion, {}),
    "retry": (read, first(2, refused, whole), {}),
    "retry of a reply": (create, first(2, refused, completion), {}),
    "rate limited": (read, first(2, limited, whole), {}),
    "first event late": (read, first(1, always(lambda: pieces(b'data: {"error": {"message": "boom"}}\n\n')), whole), {}),
    "queue": (several, whole, {"limits": RateLimits(concurrency=1)}),
    "queue of anyio": (several_of_anyio, whole, {"limits": RateLimits(concurrency=1)}),
    "a scope that ends": (within_a_scope, whole, {}),
    "resume": (lambda client: read(client, resume=ResumePolicy(max_attempts=3)), first(2, broken, whole), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_cancel_at_every_suspension(name: str):
    """
    Whatever the call was waiting for: the cancellation comes out, and no response, slot, place in a queue or task stays.
    """
    act, answer, options = SCENARIOS[name]

    async def main() -> int:
        at = 0
        while True:
            at += 1
            count = 0

            async def handler(request: Request) -> Reply:
                nonlocal count
                await asyncio.sleep(0.01)
                count += 1
                return answer(count - 1)

            transport = MemoryTransport(handler)
            client = AsyncKimi(
                api_key=KEY, transport=transport, max_retries=3, retry=RetryPolicy(jitter="none"), **options
            )
            before = asyncio.all_tasks()
            went_on = await cancelled_at(at, lambda: act(client))  # noqa: B023
            await settle()

            assert 0 == transport.open
            stats = client.limiter.stats()
            assert (0, 0) == (stats.in_flight, stats.waiting)
            assert before == asyncio.all_tasks()
            if at % 5 == 1:
                count = 100  # from here on the server is well
                await act(client)  # the client goes on working
            await client.close()
            if not went_on:
                return at - 1

    assert run(main()) >= (1 if name in ALONE else 2)


# Their work is done in tasks of their own, or stopped by a scope: few suspensions are the caller's.
ALONE = ("queue", "queue of anyio", "a scope that ends")


@pytest.mark.parametrize("name", SCENARIOS)
def test_cancel_at_every_moment(name: str):
    """
    The same from outside, every few milliseconds: groups of calls that queue for one slot are caught at every stage.
    """
    act, answer, options = SCENARIOS[name]

    async def once(after: float) -> bool:
        count = 0

        async def handler(request: Request) -> Reply:
            nonlocal count
            await asyncio.sleep(0.01)
            count += 1
            return answer(count - 1)

        transport = MemoryTransport(handler)
        client = AsyncKimi(
            api_key=KEY, transport=transport, max_retries=3, retry=RetryPolicy(jitter="none"), **options
        )
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(act(client))
        asyncio.get_running_loop().call_later(after, task.cancel)
        await asyncio.wait([task])
        await settle()

        assert 0 == transport.open
        stats = client.limiter.stats()
        assert (0, 0) == (stats.in_flight, stats.waiting)
        assert before == asyncio.all_tasks()
        await client.close()
        return task.cancelled()

    outcomes = [run(once(i * 0.0037)) for i in range(40)]

    assert outcomes[0]
    assert sorted(outcomes, reverse=True) == outcomes  # cancelled early, done late, and nothing odd between


# --- on sockets ---------------------------------------------------------------------------------------------------------------


async def answer_stream(conversation: Conversation) -> None:
    await conversation.send(head())
    for each in (HELLO, FINISH, DONE):
        await asyncio.sleep(0.002)
        await conversation.send(chunked(each))
    await asyncio.sleep(0.002)
    await conversation.send(END)


async def answer_reply(conversation: Conversation) -> None:
    data = reply(COMPLETION)
    await conversation.send(data[:300])
    await asyncio.sleep(0.002)
    await conversation.send(data[300:])


async def answer_closing(conversation: Conversation) -> None:
    if conversation.number % 2 == 0:
        conversation.writer.close()
    else:
        await answer_stream(conversation)


ON_SOCKETS: dict[
    str, tuple[Callable[[AsyncKimi], Awaitable[None]], Callable[[Conversation], Awaitable[None]]]
] = {
    "stream": (read, answer_stream),
    "break at finish_reason": (leave_early, answer_stream),
    "reply": (create, answer_reply),
    "retry": (read, answer_closing),
}


@pytest.mark.parametrize("name", ON_SOCKETS)
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "pooled connection"])
async def test_cancel_at_every_suspension_on_a_socket(name: str, warm: bool):
    """
    The same on real connections: each is given back to the pool or closed, and the server sees the latter.
    """
    act, answer = ON_SOCKETS[name]
    async with RawServer(every(answer)) as server:
        at = 0
        went_on = True
        while went_on:
            at += 1
            client = AsyncKimi(
                api_key=KEY,
                base_url=server.base_url,
                timeout=Timeout(connect=2, read=2, first_token=2, idle=2),
                max_retries=2,
                retry=RetryPolicy(base=0.001, cap=0.001),
            )
            async with client:
                if warm:
                    await act(client)
                before = asyncio.all_tasks() - server.open
                went_on = await cancelled_at(at, lambda: act(client))  # noqa: B023
                await settle()
                session: Any = client._stack.transport.session()  # type: ignore[attr-defined]
                assert 0 == len(session.connector._acquired)
                assert before == asyncio.all_tasks() - server.open
                assert 0 == client.limiter.stats().in_flight
            await server.quiet()

    assert at >= 3


async def test_cancel_close():
    """A cancelled `close()` has still let the connection go."""
    async with RawServer(every(lambda c: c.send(head(), chunked(WHOLE)))) as server:
        async with AsyncKimi(api_key=KEY, base_url=server.base_url) as client:
            stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)
            closing = asyncio.ensure_future(stream.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await server.quiet()

            assert stream.response.is_closed
