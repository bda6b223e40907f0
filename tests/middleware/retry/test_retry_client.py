"""
Retry and limiter together, through the whole client, in virtual time.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from kimi_async import AsyncKimi
from kimi_async.errors import (
    APIStatusError,
    CircuitOpenError,
    EngineOverloadedError,
    KimiError,
    RateLimitReachedError,
    RateLimitWaitError,
)
from kimi_async.middleware.events import Event, RequestStarted, ResponseFinished, RetryScheduled
from kimi_async.middleware.retry.policy import RetryPolicy
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

pytestmark = pytest.mark.virtual_clock


def refusal(message: str, type_: str, status: int = 429, **headers: str) -> Reply:
    return Reply(status, headers, msgspec.json.encode({"error": {"message": message, "type": type_}}))


def good() -> Reply:
    message = {"role": "assistant", "content": "hi"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return Reply(
        body=msgspec.json.encode(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "kimi-k3",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            }
        )
    )


def overloaded() -> Reply:
    return refusal("The engine is currently overloaded, please try again later", "engine_overloaded_error")


def quota() -> Reply:
    return refusal(
        "You exceeded your current token quota: <org> 0, please check your account balance",
        "exceeded_current_quota_error",
    )


Handler = Callable[[Request], Awaitable[Reply]]


class Server:
    """Counts what is sent to a handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.sent = 0

    async def __call__(self, request: Request) -> Reply:
        self.sent += 1
        return await self.handler(request)


def client(handler: Handler, **options: Any) -> AsyncKimi:
    options.setdefault("api_key", "sk-test-0123456789abcdef")
    options = {"base_url": "https://api.moonshot.ai/v1", **options}
    return AsyncKimi(transport=MemoryTransport(handler), **options)


async def ask(kimi: AsyncKimi, **options: Any) -> Any:
    return await kimi.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=10, **options
    )


async def ask_many(kimi: AsyncKimi, calls: int) -> list[Any]:
    return await asyncio.gather(*[ask(kimi) for _ in range(calls)], return_exceptions=True)


def now() -> float:
    return asyncio.get_running_loop().time()


async def answering(_: Request) -> Reply:
    await asyncio.sleep(0.2)
    return good()


@pytest.mark.parametrize("streamed", [False, True])
async def test_client_frees_its_slot_after_each_reply(streamed: bool) -> None:
    """
    A finished call holds no slot, whether its reply came whole or in pieces.
    """

    async def in_pieces(_: Request) -> Reply:
        reply = good()
        assert isinstance(reply.body, bytes)
        return Reply(body=[reply.body[:50], reply.body[50:]])

    async with client(in_pieces if streamed else answering, limits={"concurrency": 1}) as kimi:
        for _ in range(3):
            await ask(kimi)

        assert kimi.limiter.stats().in_flight == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("takes", [0.05, 8.0])
@pytest.mark.parametrize("start", [0.0, 3.0])
async def test_client_storm_of_20_s(seed: int, takes: float, start: float) -> None:
    """
    200 calls under 20 s of overloads, quick or slow to be told, all get through with no more than 2.2 requests each.
    """
    rnd = random.Random(seed)

    async def handler(_: Request) -> Reply:
        if start <= now() < start + 20:
            await asyncio.sleep(takes * rnd.uniform(0.8, 1.2))
            return overloaded()
        await asyncio.sleep(rnd.lognormvariate(0.0, 0.5))
        return good()

    server = Server(handler)
    async with client(server) as kimi:
        replies = await ask_many(kimi, 200)

    assert Counter({"ChatCompletion": 200}) == Counter(type(reply).__name__ for reply in replies)
    assert server.sent <= 2.2 * 200
    assert now() < start + 20 + 40


async def test_client_storm_of_a_minute_over_a_thousand_calls() -> None:
    """
    A thousand calls are there when a minute of overload begins: 120 requests at most are sent into it, and all are answered.
    """
    into = 0

    async def handler(_: Request) -> Reply:
        nonlocal into
        if now() < 60:
            into += 1
            await asyncio.sleep(0.5)
            return overloaded()
        await asyncio.sleep(1.0)
        return good()

    async with client(handler) as kimi:
        replies = await ask_many(kimi, 1_000)

    assert {"ChatCompletion"} == {type(reply).__name__ for reply in replies}
    assert into <= 120


async def test_client_overload_without_end() -> None:
    """
    500 calls to a service that is down fail within two minutes and some sixty requests, with what was seen.
    """

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.05)
        return overloaded()

    server = Server(handler)
    async with client(server) as kimi:
        errors = await ask_many(kimi, 500)

        assert {"CircuitOpenError", "EngineOverloadedError"} >= {type(error).__name__ for error in errors}
        assert server.sent <= 70
        assert now() < 120
        for error in [error for error in errors if isinstance(error, CircuitOpenError)]:
            assert {"overloaded"} == {attempt.cause for attempt in error.attempts}
        assert kimi.limiter.stats().waiting == 0


@pytest.mark.parametrize("takes", [0.05, 8.0])
async def test_client_overload_that_ends_is_noticed_within_seconds(takes: float) -> None:
    """
    While the breaker is open every call fails at once, and one in three seconds is sent; so the first is answered that soon after
    the end of four minutes of overload.
    """
    served: list[float] = []

    async def handler(_: Request) -> Reply:
        at = now()
        if at < 240:
            await asyncio.sleep(takes)
            return overloaded()
        await asyncio.sleep(0.5)
        served.append(at)
        return good()

    server = Server(handler)
    async with client(server) as kimi:

        async def work() -> None:
            while now() < 250:
                try:
                    await ask(kimi)
                except KimiError:
                    await asyncio.sleep(0.5)

        await asyncio.gather(*(work() for _ in range(8)))

    assert served[0] < 240 + 3.5
    assert server.sent - len(served) <= 240 / 2


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 20])
async def test_client_overload_at_the_start_is_outlived_by_few_as_by_one(calls: int) -> None:
    """
    Seven seconds of overload, told at once, before anybody was served: all are answered, whether one calls or many; and where one of
    many is served the others wait no longer.
    """

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.01)
        return overloaded() if now() < 7 else good()

    server = Server(handler)
    async with client(server) as kimi:
        replies = await ask_many(kimi, calls)

    assert {"ChatCompletion"} == {type(reply).__name__ for reply in replies}
    assert now() < (11.5 if calls == 20 else 17)
    assert server.sent <= 2 * calls + 6


async def test_client_overload_that_asks_for_an_hour_is_not_waited_out() -> None:
    """
    A server without capacity that says to come back in an hour: those who queue are told so at once, and so are those that come.
    """

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.05)
        return refusal("busy", "engine_overloaded_error", 503, **{"Retry-After": "3600"})

    server = Server(handler)
    async with client(server, limits={"concurrency": 8}) as kimi:
        errors = await ask_many(kimi, 50)
        with pytest.raises(RateLimitWaitError, match=r"the server asked for silence.*only 120 s are allowed"):
            await ask(kimi)

        assert {"RateLimitWaitError", "EngineOverloadedError"} == {type(error).__name__ for error in errors}
        assert now() < 0.2
        assert server.sent < 24
        assert 0 == kimi.limiter.stats().waiting


async def test_client_overload_of_a_lone_call() -> None:
    """
    One call alone is repeated on the slow curve, and then fails with its own history.
    """

    async def handler(_: Request) -> Reply:
        return overloaded()

    server = Server(handler)
    async with client(server) as kimi:
        with pytest.raises(EngineOverloadedError) as caught:
            await ask(kimi)

    assert server.sent == 3
    assert 8.0 <= now() <= 30.0
    assert len(caught.value.attempts) == 2
    assert "all 2 retries are used" in str(caught.value)


async def test_client_quota_ends_all_waiting() -> None:
    """
    When the money runs out, hundreds of queued calls fail in that moment; only the one whose turn had come is still sent.
    """

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.1)
        return quota()

    server = Server(handler)
    async with client(server, limits="tier0") as kimi:
        errors = await ask_many(kimi, 500)

        assert now() <= 0.2
        assert server.sent <= 2
        assert {"CircuitOpenError", "QuotaExceededError"} == {type(e).__name__ for e in errors}
        assert kimi.limiter.stats().waiting == 0


async def test_client_that_loops_on_an_open_breaker() -> None:
    """
    A caller's loop around calls that fail at once does not spin: time passes.
    """

    async def handler(_: Request) -> Reply:
        return quota()

    failures = 0
    async with client(handler) as kimi:
        while now() < 50:
            with pytest.raises(KimiError):
                await ask(kimi)
            failures += 1

    assert failures < 700


@pytest.mark.parametrize("calls", [1, 30])
@pytest.mark.parametrize(
    "text", ["Organization Rate limit exceeded, please try again after 1 seconds", "max RPM: 300", ""]
)
async def test_client_server_that_only_refuses(calls: int, text: str) -> None:
    """
    A server that only ever answers 429 ends every call after its retries.
    """

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.05)
        return refusal(text, "rate_limit_reached_error", **{"Retry-After": "1"})

    server = Server(handler)
    async with client(server) as kimi:
        errors = await ask_many(kimi, calls)

    assert {RateLimitReachedError} == {type(error) for error in errors}
    assert server.sent == 3 * calls


async def test_client_wait_that_the_caller_does_not_allow() -> None:
    """
    A Retry-After beyond the caller's deadline raises at once, as the server's own error, and says so.
    """

    async def handler(_: Request) -> Reply:
        return refusal("slow down", "rate_limit_reached_error", **{"Retry-After": "60"})

    async with client(handler) as kimi:
        with pytest.raises(RateLimitReachedError, match="asks to wait 60 s, and only 30 s are allowed"):
            await ask(kimi.with_options(deadline=30))

    assert now() == 0.0


async def test_client_silence_that_nobody_waits_out() -> None:
    """
    When the server asks for an hour, queued calls fail at once, and so do those that come meanwhile; afterwards all is well.
    """
    loop = asyncio.get_running_loop()

    async def handler(_: Request) -> Reply:
        await asyncio.sleep(0.1)
        if loop.time() < 3_000:
            return refusal("slow down", "rate_limit_reached_error", **{"Retry-After": "3600"})
        return good()

    server = Server(handler)
    async with client(server, limits={"concurrency": 2}) as kimi:
        errors = await ask_many(kimi, 50)
        assert now() < 1.0
        assert server.sent <= 5
        assert {"RateLimitReachedError", "RateLimitWaitError"} == {type(error).__name__ for error in errors}
        with pytest.raises(RateLimitWaitError, match="and only 120 s are allowed"):
            await ask(kimi)
        assert now() < 1.0
        await asyncio.sleep(5_000)
        await ask(kimi)


async def test_client_stream_whose_first_event_is_an_error() -> None:
    """
    A stream that begins with an error is tried again, and the caller sees only the good one.
    """
    bodies = [
        b'data: {"error":{"message":"The engine is currently overloaded","type":"engine_overloaded_error"}}\n\n',
        b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
        b'{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    ]

    async def handler(_: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=[bodies.pop(0)])

    async with client(handler) as kimi:
        stream = await ask(kimi, stream=True)
        async with stream:
            text = [chunk.choices[0].delta.content async for chunk in stream]

    assert text == ["hi"]
    assert not bodies


async def test_client_max_retries_of_policy_and_call() -> None:
    """
    A policy's `max_retries` is the client's; one given to a view wins.
    """

    async def handler(_: Request) -> Reply:
        return Reply(500)

    server = Server(handler)
    async with client(server, retry=RetryPolicy(max_retries=4)) as kimi:
        for view, sent in (
            (kimi, 5),
            (kimi.with_options(max_retries=1), 2),
            (kimi.with_options(max_retries=0), 1),
        ):
            server.sent = 0
            with pytest.raises(APIStatusError):
                await ask(view)
            assert sent == server.sent


async def test_client_hooks_see_one_call() -> None:
    """
    A hook follows a call from its beginning through a retry to the usage of its reply.
    """
    replies = [Reply(503), good()]
    seen: list[Event] = []

    async def handler(_: Request) -> Reply:
        return replies.pop(0)

    async with client(handler, hooks=[seen.append]) as kimi:
        await ask(kimi)

    names = [type(event).__name__ for event in seen if type(event).__name__ != "LimiterWaited"]
    assert ["RequestStarted", "AttemptFailed", "RetryScheduled", "ResponseFinished"] == names
    started, finished = seen[0], seen[-1]
    assert isinstance(started, RequestStarted)
    assert isinstance(finished, ResponseFinished)
    assert {started.call} == {event.call for event in seen}
    assert finished.attempts == 2
    assert finished.usage.completion_tokens == 4
    assert any(isinstance(event, RetryScheduled) and event.cause == "unavailable" for event in seen)
