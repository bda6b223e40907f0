"""
Queues and leases on a loop, the middleware around one attempt, and whole crowds on a virtual clock.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.errors import (
    APIConnectionError,
    RateLimitReachedError,
    RateLimitWaitError,
    RequestTooCostlyError,
)
from kimi_async.middleware.chain import chain
from kimi_async.middleware.rate_limit.controller import AdmissionController, Lease
from kimi_async.middleware.rate_limit.cost import tokens_of
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.middleware import RateLimitMiddleware
from kimi_async.middleware.retry.middleware import RetryMiddleware
from kimi_async.testing.clock import run
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.testing.simulator.server_limits import ServerLimits
from kimi_async.transport.exchange import Request, Response
from support.limited_transport import BODY, URL, Outcome, Storm, jain, simulate


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Lets everything happen that can happen without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def post(**fields: Any) -> Request:
    return Request("POST", URL, body=BODY, **fields)


def limited(text: str, *, retry_after: str | None = "1", status: int = 429) -> Reply:
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    kind = "rate_limit_reached_error" if "overloaded" not in text else "engine_overloaded_error"
    return Reply(status, headers, json.dumps({"error": {"message": text, "type": kind}}))


# --- the queue ----------------------------------------------------------------------------------------------------------


def test_acquire_waiters_go_first_come_first_served():
    """
    One slot, ten callers: they go in the order of their coming.
    """

    async def main() -> list[int]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        order: list[int] = []

        async def caller(number: int) -> None:
            with await limiter.acquire():
                order.append(number)
                await asyncio.sleep(1)

        await asyncio.gather(*[caller(number) for number in range(10)])
        return order

    assert list(range(10)) == run(main())


def test_acquire_large_request_is_not_overtaken_for_ever():
    """
    A request for most of the minute's tokens goes before the small ones that came after it.
    """

    async def main() -> list[str]:
        limiter = AdmissionController(RateLimits(tpm=100))
        order: list[str] = []

        async def caller(name: str, tokens: int) -> None:
            with await limiter.acquire(tokens):
                order.append(name)

        (await limiter.acquire(50)).release()
        await asyncio.gather(caller("large", 90), *[caller("small", 1) for _ in range(5)])
        return order

    assert ["large", *["small"] * 5] == run(main())


def test_acquire_higher_priority_goes_first():
    """
    Of those who wait, the more urgent go first; among equals, the earlier.
    """

    async def main() -> list[str]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        order: list[str] = []

        async def caller(name: str, priority: int) -> None:
            with await limiter.acquire(priority=priority):
                order.append(name)
                await asyncio.sleep(1)

        held = await limiter.acquire()
        tasks = [
            asyncio.create_task(caller(name, priority))
            for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", -1), ("e", 5))
        ]
        await settle()
        held.release()
        await asyncio.gather(*tasks)
        return order

    assert ["c", "e", "a", "b", "d"] == run(main())


def test_acquire_least_urgent_is_not_starved():
    """
    While more urgent requests keep coming, one in eight places goes to whoever has waited longest.
    """

    async def main() -> int:
        limiter = AdmissionController(RateLimits(concurrency=1))
        urgent_first = 0
        done = asyncio.Event()

        async def patient() -> None:
            with await limiter.acquire(priority=-10):
                done.set()

        async def urgent() -> None:
            nonlocal urgent_first
            while not done.is_set():
                with await limiter.acquire(priority=10):
                    urgent_first += 1
                    await asyncio.sleep(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(urgent())
            await settle()
            group.create_task(patient())
        return urgent_first

    assert run(main()) <= 20


def test_acquire_requeued_request_keeps_its_place():
    """
    Who comes again after a refusal goes before those who came later.
    """

    async def main() -> list[str]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        order: list[str] = []

        async def caller(name: str, queued: float | None) -> None:
            with await limiter.acquire(queued=queued):
                order.append(name)

        held = await limiter.acquire()
        await asyncio.sleep(10)
        tasks = [asyncio.create_task(caller("later", None))]
        await settle()
        tasks.append(asyncio.create_task(caller("again", 0.0)))
        await settle()
        held.release()
        await asyncio.gather(*tasks)
        return order

    assert ["again", "later"] == run(main())


def test_acquire_deadline_certainly_missed_raises_at_once():
    """
    If the minute is spent for 60 s, a call with 10 s left is told so now, with what it would wait for.
    """

    async def main() -> tuple[float, RateLimitWaitError]:
        limiter = AdmissionController(RateLimits(rpm=1))
        (await limiter.acquire()).release()
        with pytest.raises(RateLimitWaitError) as caught:
            await limiter.acquire(deadline=now() + 10)
        return now(), caught.value

    at, error = run(main())
    assert 0.0 == at
    assert ("rpm", 1.0) == (error.reason, error.limit)
    assert error.eta == pytest.approx(60, abs=0.2)
    assert "our own limiter" in str(error)


def test_acquire_deadline_reached_in_the_queue_raises_then():
    """
    Where nobody can know when a slot opens, a call waits until its deadline, not longer, and leaves no trace.
    """

    async def main() -> tuple[float, int]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        held = await limiter.acquire()
        with pytest.raises(RateLimitWaitError, match="concurrency 1"):
            await limiter.acquire(deadline=now() + 10)
        waiting = limiter.stats().waiting
        held.release()
        (await limiter.acquire(deadline=now() + 10)).release()
        return now(), waiting

    assert (10.0, 0) == run(main())


def test_acquire_fail_fast_tells_the_eta():
    """
    `fail_fast` never queues: it raises with the expected wait.
    """

    async def main() -> RateLimitWaitError:
        limiter = AdmissionController(RateLimits(rpm=2))
        for _ in range(2):
            (await limiter.acquire(mode="fail_fast")).release()
        with pytest.raises(RateLimitWaitError) as caught:
            await limiter.acquire(mode="fail_fast")
        assert 0.0 == now()
        assert 0 == limiter.stats().waiting
        return caught.value

    error = run(main())
    assert error.eta == pytest.approx(60, abs=0.2)
    assert "rpm" == error.reason


def test_acquire_request_that_can_never_fit_is_refused():
    """
    More tokens than a minute has: an error that says what to change, at once.
    """

    async def main() -> RequestTooCostlyError:
        limiter = AdmissionController(RateLimits(tpm=1_000))
        with pytest.raises(RequestTooCostlyError) as caught:
            await limiter.acquire(131_072)
        return caught.value

    error = run(main())
    assert ("tpm", 1_000.0) == (error.reason, error.limit)
    assert "max_completion_tokens" in str(error)


@pytest.mark.parametrize("granted", [False, True])
def test_acquire_cancelled_gives_its_place_to_the_next(granted: bool):
    """
    Cancelled while waiting, or in the very turn in which it was its turn: no slot is lost.
    """

    async def main() -> str:
        limiter = AdmissionController(RateLimits(concurrency=1))
        held = await limiter.acquire()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await settle()
        if granted:
            held.release()  # wakes the first, which has not run yet
            first.cancel()
        else:
            first.cancel()
            held.release()
        lease = await second
        with pytest.raises(asyncio.CancelledError):
            await first
        lease.release()
        stats = limiter.stats()
        return f"{stats.in_flight} {stats.waiting}"

    assert "0 0" == run(main())


def test_acquire_hundreds_cancelled_at_random_lose_nothing():
    """
    Callers that give up at any moment leave the queue and the slots as they should be.
    """
    import random

    async def main() -> tuple[int, int, int]:
        dice = random.Random(7)
        limiter = AdmissionController(RateLimits(concurrency=3, rpm=1_000_000))
        served = 0

        async def caller() -> None:
            nonlocal served
            async with asyncio.timeout(dice.random() * 3):
                with await limiter.acquire(priority=dice.randrange(3)):
                    await asyncio.sleep(dice.random() * 0.05)
                    served += 1

        await asyncio.gather(*[caller() for _ in range(400)], return_exceptions=True)
        stats = limiter.stats()
        return stats.in_flight, stats.waiting, served

    in_flight, waiting, served = run(main())
    assert (0, 0) == (in_flight, waiting)
    assert served > 100


def test_acquire_idle_sets_no_timer():
    """
    While nobody waits, nothing is scheduled; while all wait for a slot, nothing is either.
    """

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        timers = lambda: len([t for t in loop._scheduled if not t.cancelled()])  # type: ignore[attr-defined]  # noqa: E731
        limiter = AdmissionController(RateLimits(concurrency=1, rpm=100))
        held = await limiter.acquire()
        counts = [timers()]
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(100)]
        await settle()
        counts.append(timers())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        held.release()
        counts.append(timers())
        return counts

    assert [0, 0, 0] == run(main())


def test_acquire_many_waiters_share_one_timer():
    """
    A thousand who wait for the minute to pass need one timer.
    """

    async def main() -> int:
        loop = asyncio.get_running_loop()
        limiter = AdmissionController(RateLimits(rpm=10))
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(1_000)]
        await settle()
        timers = len([t for t in loop._scheduled if not t.cancelled()])  # type: ignore[attr-defined]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return timers

    assert 1 == run(main())


# --- several loops ------------------------------------------------------------------------------------------------------


def test_limiter_reused_by_a_second_loop_after_the_first():
    """
    What the first loop left behind, waiters included, never holds up the second.
    """
    limiter = AdmissionController(RateLimits(concurrency=1))
    leases: list[Lease] = []

    async def first() -> None:
        leases.append(await limiter.acquire())
        waiting = asyncio.create_task(limiter.acquire())
        await settle()
        assert not waiting.done()

    async def second() -> float:
        leases[0].release()
        (await limiter.acquire()).release()
        return now()

    run(first())
    assert 0.0 == run(second())


def test_limiter_shared_by_loops_in_two_threads():
    """
    Two loops, one slot: both get through, and never together.
    """
    limiter = AdmissionController(RateLimits(concurrency=1))
    inside, most, served = 0, 0, 0
    lock = threading.Lock()

    async def caller() -> None:
        nonlocal inside, most, served
        for _ in range(25):
            with await limiter.acquire():
                with lock:
                    inside += 1
                    most = max(most, inside)
                await asyncio.sleep(0)
                with lock:
                    inside -= 1
                    served += 1

    async def main() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*[caller() for _ in range(4)])

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1, 200) == (most, served)


# --- the middleware -----------------------------------------------------------------------------------------------------


def test_middleware_slot_is_held_until_the_stream_is_closed():
    """
    Headers do not free a slot; the end of the body, or closing it early, does.
    """

    async def main() -> list[int]:
        limiter = AdmissionController(RateLimits(concurrency=2))

        async def handler(_: Request) -> Reply:
            return Reply(body=[b"one", b"two"])

        send = chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)
        read, closed = await send(post()), await send(post())
        counts = [limiter.stats().in_flight]
        await read.read()
        counts.append(limiter.stats().in_flight)
        await closed.readany()
        closed.close()
        counts.append(limiter.stats().in_flight)
        return counts

    assert [2, 1, 0] == run(main())


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
def test_middleware_slot_is_given_back_when_sending(how: str):
    """
    A connection that fails, and a caller that gives up, leave no slot taken.
    """

    async def main() -> int:
        limiter = AdmissionController(RateLimits(concurrency=1))

        async def handler(_: Request) -> Reply:
            if how == "raises":
                raise ConnectionResetError("reset")
            await asyncio.sleep(3600)
            raise AssertionError("cancelled before")

        send = chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)
        task = asyncio.ensure_future(send(post()))
        await settle()
        if how == "raises":
            with pytest.raises(APIConnectionError):
                await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return limiter.stats().in_flight

    assert 0 == run(main())


def test_middleware_only_inference_is_limited():
    """
    Lists, balances, uploads and token counts go past the limits on inference.
    """

    async def main() -> float:
        limiter = AdmissionController(RateLimits(concurrency=1, rpm=1))

        async def handler(_: Request) -> Reply:
            return Reply()

        send = chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)
        held = await limiter.acquire()
        for _ in range(20):
            (await send(Request("GET", "https://api.moonshot.ai/v1/models"))).close()
            (await send(Request("POST", "https://api.moonshot.ai/v1/files", body=b"x"))).close()
            (
                await send(Request("POST", "https://api.moonshot.ai/v1/tokenizers/estimate-token-count"))
            ).close()
        held.release()
        return now()

    assert 0.0 == run(main())


def test_middleware_retry_wait_holds_no_slot():
    """
    While a call waits before its next attempt, others have the slot.
    """

    async def main() -> list[str]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        log: list[str] = []

        async def handler(request: Request) -> Reply:
            name = request.headers["x-name"]
            log.append(name)
            if name == "fails" and log.count("fails") == 1:
                return Reply(500)
            return Reply()

        send = chain(
            [RetryMiddleware(limiter=limiter, dice=lambda: 0.5), RateLimitMiddleware(limiter)],
            MemoryTransport(handler).send,
        )

        async def call(name: str) -> None:
            request = post(max_retries=2)
            request.headers["x-name"] = name
            (await send(request)).close()

        await asyncio.gather(call("fails"), call("other"))
        return log

    assert ["fails", "other", "fails"] == run(main())


def test_middleware_refused_goes_first_and_uses_no_attempt():
    """
    With others being admitted, a call may be refused more often than `max_retries` says, and all succeed.
    """

    async def main() -> tuple[int, int]:
        limiter = AdmissionController()
        refusals = 0

        async def handler(request: Request) -> Reply:
            nonlocal refusals
            await asyncio.sleep(0.02)
            if request.headers.get("x-name") == "unlucky" and refusals < 6:
                refusals += 1
                return limited("request reached organization max RPM: 500, please try again after 1 seconds")
            await asyncio.sleep(0.5)
            return Reply()

        send = chain(
            [RetryMiddleware(limiter=limiter), RateLimitMiddleware(limiter)], MemoryTransport(handler).send
        )
        statuses: list[int] = []

        async def call(name: str) -> None:
            request = post(max_retries=1)
            request.headers["x-name"] = name
            response = await send(request)
            statuses.append(response.status)
            response.close()

        async def others() -> None:
            for _ in range(40):
                await call("lucky")

        await asyncio.gather(others(), call("unlucky"))
        return refusals, statuses.count(200)

    assert (6, 41) == run(main())


def test_middleware_server_that_only_refuses_ends_the_call():
    """
    Where nobody is ever admitted, `max_retries` ends it: no loop, and the server's own error.
    """

    async def main() -> tuple[int, int]:
        limiter = AdmissionController()
        sent = 0

        async def handler(_: Request) -> Reply:
            nonlocal sent
            sent += 1
            await asyncio.sleep(0.03)
            return limited("Organization Rate limit exceeded, please try again after 1 seconds")

        send = chain(
            [RetryMiddleware(limiter=limiter), RateLimitMiddleware(limiter)], MemoryTransport(handler).send
        )
        response = await send(post(max_retries=2))
        response.close()
        return response.status, sent

    assert (429, 3) == run(main())


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("request reached organization max concurrency: 7, please try again after 1 seconds", "concurrency"),
        ("request reached organization max RPM: 7, please try again after 1 seconds", "rpm"),
        ("request reached organization TPM rate limit, current: 8, limit: 7", "tpm"),
    ],
)
def test_middleware_learns_the_number_from_the_text(text: str, limit: str):
    """
    The number in a refusal is the limit from then on, and the statistics name its source.
    """

    async def main() -> tuple[float | None, str]:
        limiter = AdmissionController()

        async def handler(_: Request) -> Reply:
            return limited(text)

        send = chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)
        assert text.encode() in await (await send(post())).read()
        stats = getattr(limiter.stats(), limit)
        return stats.limit, stats.source

    assert (7.0, "told") == run(main())


def test_middleware_learns_the_tier_from_its_header():
    """
    `Msh-Gid` on any answer seeds all limits at once.
    """

    async def main() -> list[float | None]:
        limiter = AdmissionController()

        async def handler(_: Request) -> Reply:
            return Reply(headers={"Msh-Gid": "enterprise-tier-1"})

        (await chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)(post())).close()
        stats = limiter.stats()
        return [stats.concurrency.limit, stats.rpm.limit, stats.tpm.limit]

    assert [15.0, 100.0, 2_000_000.0] == run(main())


def test_middleware_hint_silences_everybody_and_longer_than_allowed_raises():
    """
    One refusal asks for 30 s: all others wait, and a call that has only 5 s left is told at once that the server asked.
    """

    async def main() -> tuple[float, str | None]:
        limiter = AdmissionController(RateLimits(rpm=100), dice=lambda: 0.0)
        times: list[float] = []

        async def handler(_: Request) -> Reply:
            times.append(now())
            if len(times) == 1:
                return limited("request reached organization max RPM: 100", retry_after="30")
            return Reply()

        send = chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)
        (await send(post())).close()
        with pytest.raises(RateLimitWaitError, match="the server asked") as caught:
            await send(post(deadline=now() + 5))
        (await send(post())).close()
        return times[1] - times[0], caught.value.reason

    waited, reason = run(main())
    assert waited >= 30.0
    assert "gate" == reason


def test_middleware_error_of_the_server_keeps_its_own_class():
    """
    What the server refuses is a `RateLimitReachedError`, what we hold back a `RateLimitWaitError`; neither is the other.
    """

    async def main() -> None:
        async def handler(_: Request) -> Reply:
            return limited("request reached organization max RPM: 1, please try again after 1 seconds")

        async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), max_retries=0) as client:
            messages = [{"role": "user", "content": "hi"}]
            with pytest.raises(RateLimitReachedError):
                await client.chat.completions.create(model="kimi-k3", messages=messages)
            with pytest.raises(RateLimitWaitError):
                await client.with_options(mode="fail_fast").chat.completions.create(
                    model="kimi-k3", messages=messages
                )

    run(main())


def test_clones_share_one_limiter_and_other_keys_have_their_own():
    """
    `with_options` shares; another key is another organisation.
    """

    async def handler(_: Request) -> Reply:
        return Reply()

    client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), limits="tier0")

    assert client.limiter is client.with_options(max_retries=9).limiter
    assert client.limiter is not client.with_options(api_key="sk-other").limiter
    assert "sk-" not in repr(client.limiter)


# --- what a request costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model": "kimi-k3", "messages": [], "max_completion_tokens": 500}, (500, False)),
        ({"model": "kimi-k3", "messages": [], "max_tokens": 77}, (77, False)),
        ({"model": "kimi-k3", "messages": []}, (131_072, True)),
        ({"model": "moonshotai/kimi-k2.6", "messages": []}, (32_768, True)),
        ({"model": "k3", "messages": []}, (131_072, True)),
        ({"model": "k3-256k", "messages": []}, (131_072, True)),
        ({"model": "kimi-for-coding", "messages": []}, (32_768, True)),
        ({"model": "us.moonshotai.kimi-k3.1", "messages": []}, (131_072, True)),
        ({"model": "moonshotai/Kimi-K3", "messages": []}, (131_072, True)),
        ({"model": "nothing-that-we-know", "messages": []}, (32_768, True)),
        ({"model": "moonshot-v1-8k", "messages": []}, (1_024, True)),
        ({"messages": [{"content": '"max_completion_tokens":5'}], "model": "kimi-k3"}, (131_072, True)),
        ({"messages": [{"content": "x" * 50_000}], "max_completion_tokens": 9, "tools": []}, (9, False)),
        (
            {"tools": [{"properties": {"max_tokens": {"type": "integer"}}}], "max_completion_tokens": 3},
            (3, False),
        ),
    ],
)
def test_tokens_of_budget(body: dict[str, Any], expected: tuple[int, bool]):
    """
    The budget is found wherever it stands, is never taken from inside a text, and is the model's default if absent.
    """
    for separators in ((",", ":"), (", ", ": ")):
        _, budget, defaulted = tokens_of(json.dumps(body, separators=separators).encode())
        assert expected == (budget, defaulted)


def test_tokens_of_prompt_is_a_quarter_of_its_bytes_and_pictures_are_flat():
    """
    A megabyte of base64 is a picture, not a quarter of a million tokens.
    """
    text = json.dumps({"messages": [{"content": "word " * 4_000}]}).encode()
    picture = json.dumps(
        {"messages": [{"image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}]}
    ).encode()

    assert tokens_of(text)[0] == pytest.approx(5_000, rel=0.02)
    assert 1_400 <= tokens_of(picture)[0] <= 1_700


def test_default_budget_that_eats_the_quota_is_warned_of_once(caplog: pytest.LogCaptureFixture):
    """
    Without `max_completion_tokens` each call is charged the model's default; the log says so, once.
    """

    async def main() -> None:
        async def handler(_: Request) -> Reply:
            return Reply()

        send = chain(
            [RateLimitMiddleware(AdmissionController(RateLimits(tpm=500_000)))], MemoryTransport(handler).send
        )
        for _ in range(3):
            request = Request("POST", URL, body=b'{"model":"kimi-k3","messages":[]}')
            (await send(request)).close()

    with caplog.at_level(logging.WARNING, logger="kimi_async"):
        run(main())

    assert 1 == len([record for record in caplog.records if "131072" in record.getMessage()])


def test_cost_hint_is_charged_as_given():
    """
    A caller that knows better than our estimate is believed.
    """

    async def main() -> int:
        async def handler(_: Request) -> Reply:
            return Reply()

        limiter = AdmissionController(RateLimits(tpm=500_000))
        (await chain([RateLimitMiddleware(limiter)], MemoryTransport(handler).send)(post(cost=1_234))).close()
        return limiter.stats().tpm.used

    assert 1_234 == run(main())


def test_stats_say_what_is_waiting_and_why():
    """
    Ten requests, a limit of three a minute: seven wait for `rpm`, for about two minutes and a half.
    """

    async def main() -> None:
        limiter = AdmissionController(RateLimits(concurrency=50, rpm=3))
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(10)]
        await settle()
        stats = limiter.stats()
        assert (7, "rpm", 3, 3.0, "config") == (
            stats.waiting,
            stats.waiting_for,
            stats.rpm.used,
            stats.rpm.limit,
            stats.rpm.source,
        )
        assert stats.eta > 60
        assert "7 waiting" in repr(limiter)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())


def test_lease_released_twice_frees_one_slot():
    """
    Releasing again is harmless.
    """

    async def main() -> int:
        limiter = AdmissionController(RateLimits(concurrency=2))
        first, _ = await limiter.acquire(), await limiter.acquire()
        first.release()
        first.release()
        return limiter.stats().in_flight

    assert 1 == run(main())


def test_abandoned_limiter_leaves_no_cycle_behind():
    """
    A limiter that nobody uses any more is freed without the collector.
    """
    import weakref

    async def main() -> weakref.ref[AdmissionController]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        (await limiter.acquire()).release()
        return weakref.ref(limiter)

    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()


# --- whole crowds: ten minutes each --------------------------------------------------------------------------------------


def check(outcome: Outcome, allowed: float, goodput: float, rejected: float) -> None:
    assert [] == outcome.lost
    assert outcome.goodput(allowed) >= goodput
    assert outcome.rejected_per_success <= rejected


@pytest.mark.parametrize(("seed", "ack"), [(11, 0.8), (12, None)])
def test_crowd_tier5_unknown(seed: int, ack: float | None):
    """
    100 concurrent, 300 a minute, refusals counted, nothing known: 99 % of the quota, 0.02 refused per success, none lost.
    """
    check(simulate("tier5", seed=seed, ack=ack), 3000, 0.99, 0.02)


@pytest.mark.parametrize(
    ("tier", "rpm", "seconds"), [("tier5", 300, 600), ("tier1", 100, 600), ("tier0", 3, 1800)]
)
def test_crowd_configured(tier: str, rpm: int, seconds: int):
    """
    With the limits configured the quota is used up and nothing is refused.
    """
    outcome = simulate(tier, client=tier, duration=seconds, tasks=50, latency=4.0, seed=5)
    check(outcome, rpm * seconds / 60, 0.995, 0.0)


def test_crowd_tier1_unknown():
    """
    50 tasks want into 15 slots and 100 a minute: 96 %.
    """
    check(simulate("tier1", tasks=50, seed=13), 1000, 0.96, 0.02)


def test_crowd_tier0_unknown():
    """
    One slot and three a minute, half an hour: 95 %.
    """
    check(simulate("tier0", tasks=10, duration=1800, seed=14), 90, 0.95, 0.15)


def test_crowd_numbers_hidden():
    """
    Refusals that name neither limit nor number: 93 % all the same.
    """
    check(simulate("tier5", seed=15, ledger={"hide_numbers": True}), 3000, 0.93, 0.06)


def test_crowd_bound_by_tokens():
    """
    36,000 tokens a request and five million a minute: 99 % of 138 whole requests a minute.
    """
    check(simulate(ServerLimits(100, None, 5_000_000), cost=36_000, seed=16), 1388.9, 0.99, 0.03)


@pytest.mark.parametrize("window", ["sliding", "fixed", "bucket"])
@pytest.mark.parametrize("counted", [True, False])
def test_crowd_windows(window: str, counted: bool):
    """
    However the server cuts its minutes, and whether it counts refusals or not: 99 %.
    """
    ledger = {"window": window, "rejects_count": counted}
    check(simulate(ServerLimits(100, 500), seed=17, duration=300.0, ledger=ledger), 2500, 0.99, 0.02)


def test_crowd_limit_falls_and_rises():
    """
    500, 200, 1,000 a minute: few refusals while it is low, and 90 % of the new limit within 10 s of the raise.
    """
    for seed in (21, 22):
        schedule = [(180.0, ServerLimits(100, 200)), (420.0, ServerLimits(200, 1000))]
        outcome = simulate(
            ServerLimits(100, 500), tasks=150, seed=seed, duration=460, ledger={"schedule": schedule}
        )
        assert [] == outcome.lost
        assert outcome.ledger.rejected_between(180, 420) <= 35
        assert outcome.ledger.admitted_between(430, 440) / 10 >= 0.9 * 1000 / 60


@pytest.mark.parametrize("ack", [0.8, None])
def test_crowd_overload_storm(ack: float | None):
    """
    A minute of overload, each refusal 8 s late: at most 120 calls into it, 90 % of the rate 15 s after it, none lost.
    """
    outcome = simulate(
        ServerLimits(100), seed=23, ack=ack, latency=10.0, duration=320, ledger={"storms": [Storm(200, 260)]}
    )
    ledger = outcome.ledger
    assert [] == outcome.lost
    assert sum(1 for at, _ in ledger.log if 200 <= at < 260) <= 120
    before = ledger.admitted_between(120, 200) / 80
    assert ledger.admitted_between(275, 295) / 20 >= 0.9 * before


def test_crowd_two_strangers_share():
    """
    A second process joins a first that fills the window: alike within minutes, and little is wasted.
    """
    for counted in (True, False):
        outcome = simulate(
            "tier5", tasks=100, seed=24, users=2, join=120.0, ledger={"rejects_count": counted}
        )
        shares = [
            float(len([at for at in outcome.server.by_user[user] if 300 <= at < 600])) for user in ("0", "1")
        ]
        assert [] == outcome.lost
        assert jain(shares) >= 0.99
        assert sum(shares) >= 0.95 * 1500


def test_crowd_unknown_concurrency_short_answers():
    """
    300 calls of 0.2 s into ten slots that nobody knows of: 1.25 times the ideal time, 6 % refused; known, 1.08 and none.
    """
    for client, slower, refused in ((None, 1.25, 18), ({"concurrency": 10}, 1.08, 0)):
        outcome = simulate(
            ServerLimits(10), client=client, calls=300, tasks=300, latency=0.2, sigma=0.0, rtt=0.004, ack=None
        )
        assert (300, []) == (outcome.succeeded, outcome.lost)
        assert outcome.finished_at <= slower * 6.0
        assert sum(outcome.ledger.rejected.values()) <= refused


def test_crowd_through_the_client():
    """
    The same through `AsyncKimi(transport=MemoryTransport(handler))`, as users would.
    """
    from kimi_async.testing.simulator.server_limits import ServerLedger
    from support.limited_transport import LimitedServer

    answer = json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "kimi-k3",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
            ],
        }
    ).encode()

    async def main() -> tuple[int, int]:
        server = LimitedServer(ServerLedger("tier1"), ack=None, latency=3.0)

        async def handler(request: Request) -> Reply:
            reply = await server(request)
            return Reply(reply.status, reply.headers, answer if reply.status == 200 else reply.body)

        async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler)) as client:

            async def call() -> None:
                await client.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=16
                )

            await asyncio.gather(*[call() for _ in range(400)])
        return server.ledger.admitted, sum(server.ledger.rejected.values())

    admitted, rejected = run(main())
    assert 400 == admitted
    assert rejected <= 12


def test_response_type_is_what_the_chain_gives():
    """
    A refusal read by the limiter can be read again by whoever is above.
    """

    async def main() -> bytes:
        async def handler(_: Request) -> Reply:
            return limited("request reached organization max RPM: 3")

        send = chain([RateLimitMiddleware(AdmissionController())], MemoryTransport(handler).send)
        response = await send(post())
        assert isinstance(response, Response)
        return await response.read()

    assert b"max RPM: 3" in run(main())


@pytest.mark.parametrize("client", [None, {"concurrency": 100}])
def test_crowd_storm_at_the_start_loses_nobody(client: dict[str, int] | None):
    """
    200 calls into 20 s of overload: all succeed, with at most 2.2 requests for each.
    """
    storm = Storm(0, 20, 1.0, 0.5)
    outcome = simulate(
        ServerLimits(100),
        client=client,
        calls=200,
        tasks=200,
        latency=0.5,
        ack=None,
        seed=3,
        ledger={"storms": [storm]},
    )
    assert (200, []) == (outcome.succeeded, outcome.lost)
    assert outcome.server.requests <= 2.2 * 200


def test_acquire_all_cancelled_in_one_turn_are_counted_once():
    """
    When everybody who waits gives up in the same turn, the next caller finds an empty queue, and not less than that.
    """

    async def main() -> tuple[int, float]:
        limiter = AdmissionController(RateLimits(concurrency=1))
        held = await limiter.acquire()
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(20)]
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waiting = limiter.stats().waiting
        held.release()
        (await limiter.acquire()).release()
        return waiting, now()

    assert (0, 0.0) == run(main())


def test_middleware_refused_upload_waits_in_retry():
    """
    What is not held back by the limiter is repeated at retry's pace, not at once.
    """

    async def main() -> tuple[int, float]:
        limiter = AdmissionController()
        sent = 0

        async def handler(_: Request) -> Reply:
            nonlocal sent
            sent += 1
            return limited("Organization Rate limit exceeded, please try again after 1 seconds")

        send = chain(
            [RetryMiddleware(limiter=limiter), RateLimitMiddleware(limiter)], MemoryTransport(handler).send
        )
        request = Request("POST", "https://api.moonshot.ai/v1/files", body=b"x", max_retries=2)
        (await send(request)).close()
        return sent, now()

    sent, took = run(main())
    assert 3 == sent
    assert took >= 2.0


async def test_acquire_in_the_turn_in_which_the_only_waiter_was_cancelled() -> None:
    """
    A waiter that was cancelled a moment ago, and has not yet taken itself off the count, is in nobody's way.
    """
    controller = AdmissionController(RateLimits(concurrency=1))
    first = await controller.acquire()
    waiter = asyncio.ensure_future(controller.acquire())
    await asyncio.sleep(0)
    waiter.cancel()
    first.release()

    second = await controller.acquire()
    await asyncio.wait([waiter])

    assert waiter.cancelled()
    assert 0 == controller.stats().waiting
    second.release()
