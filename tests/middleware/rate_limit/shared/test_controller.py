"""
A limiter whose limits are kept elsewhere: order, deadlines, cancellation, errors, and what a client shows of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.errors import (
    ConfigurationError,
    RateLimitWaitError,
    RequestTooCostlyError,
    SharedLimitsError,
)
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.shared import (
    Ask,
    MemoryLedger,
    SharedController,
    SharedEngine,
    SharedQuota,
)
from kimi_async.testing.clock import run
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.transport.exchange import Request
from support.shared_quota import WireLedger

COMPLETION = b'{"id":"x","object":"chat.completion","created":1,"model":"kimi-k3","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'


async def answer(request: Request) -> Reply:
    return Reply(200, {"content-type": "application/json"}, COMPLETION)


def limiter_of(ledger: Any = None, on_lost: Any = "share", **limits: int) -> SharedController:
    return SharedController(SharedQuota(ledger or WireLedger(), limits=RateLimits(**limits), on_lost=on_lost))


def test_acquire_is_in_order_of_priority_and_then_of_coming():
    """Within a process the queue is the limiter's: more urgent first, then first come, first served."""

    async def main() -> list[str]:
        limiter = limiter_of(concurrency=1)
        order: list[str] = []

        async def one(name: str, priority: int) -> None:
            with await limiter.acquire(priority=priority):
                order.append(name)
                await asyncio.sleep(1)

        async with asyncio.TaskGroup() as group:
            for name, priority in [("a", 0), ("b", 0), ("c", 0), ("urgent", 5)]:
                group.create_task(one(name, priority))
                await asyncio.sleep(0.01)
        await limiter.aclose()
        return order

    assert ["a", "urgent", "b", "c"] == run(main())


def test_acquire_cancelled_gives_its_turn_to_the_next():
    """Whoever gives up, waiting or just granted, takes nothing along."""

    async def main() -> tuple[int, int, int]:
        ledger = WireLedger()
        limiter = limiter_of(ledger, concurrency=2, rpm=60)
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(6)]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for each in done:
            if not isinstance(each, BaseException):
                each.release()
        await asyncio.sleep(2)
        stats = limiter.stats()
        held = sum(member.held for member in ledger.state.members.values())
        await limiter.aclose()
        return stats.waiting, stats.in_flight, held

    assert (0, 0, 0) == run(main())


def test_acquire_fail_fast_asks_once():
    """`fail_fast` takes what there is, and raises at once where there is nothing."""

    async def main() -> tuple[str | None, float]:
        limiter = limiter_of(concurrency=1)
        held = await limiter.acquire(mode="fail_fast")
        with pytest.raises(RateLimitWaitError) as raised:
            await limiter.acquire(mode="fail_fast")
        now = asyncio.get_running_loop().time()
        held.release()
        await asyncio.sleep(0.1)
        (await limiter.acquire(mode="fail_fast")).release()
        await limiter.aclose()
        return raised.value.reason, now

    reason, now = run(main())
    assert "concurrency" == reason
    assert now < 0.1


def test_acquire_deadline_that_cannot_be_met_fails_at_once():
    """A wait that is certain to be too long is not waited out; one that is not certain ends with the deadline."""

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        limiter = limiter_of(rpm=1, concurrency=5)
        (await limiter.acquire()).release()
        with pytest.raises(RateLimitWaitError):
            await limiter.acquire(deadline=loop.time() + 5)
        certain = loop.time()
        other = limiter_of(concurrency=1)
        held = await other.acquire()
        with pytest.raises(RateLimitWaitError):
            await other.acquire(deadline=loop.time() + 5)
        held.release()
        await limiter.aclose()
        await other.aclose()
        return certain, loop.time()

    certain, late = run(main())
    assert certain < 0.2
    assert 5.0 <= late < 5.3


def test_acquire_cost_that_never_fits_is_refused():
    """A request larger than the minute is told so, whoever told the limit."""

    async def main() -> None:
        limiter = limiter_of(tpm=1000)
        with pytest.raises(RequestTooCostlyError):
            await limiter.acquire(1001)
        await limiter.aclose()

    run(main())


def test_acquire_error_of_the_ledger_is_ours_and_one_for_each():
    """What a back end raises reaches everybody who waits, as an error of this package's, each with one of its own."""

    class Broken:
        async def sync(self, message: Any) -> Any:
            raise ZeroDivisionError("broken script")

        async def aclose(self) -> None:
            pass

    async def main() -> list[Any]:
        limiter = limiter_of(Broken())
        got = await asyncio.gather(*[limiter.acquire() for _ in range(5)], return_exceptions=True)
        await limiter.aclose()
        return got

    errors = run(main())
    assert [SharedLimitsError] * 5 == [type(error) for error in errors]
    assert 5 == len({id(error) for error in errors})
    assert "broken script" in str(errors[0])


@pytest.mark.parametrize(("on_lost", "seconds"), [("raise", 1.0), ("share", 8.0)])
def test_acquire_ledger_never_reached_is_an_error_and_no_silence(on_lost: str, seconds: float):
    """A wrong address is told, soon, and nothing is sent on it."""

    async def main() -> float:
        ledger = WireLedger()
        ledger.away = True
        limiter = limiter_of(ledger, on_lost=on_lost)
        with pytest.raises(SharedLimitsError, match="refused"):
            await limiter.acquire()
        await limiter.aclose()
        return asyncio.get_running_loop().time()

    assert run(main()) < seconds


def test_acquire_blocks_until_the_ledger_is_back():
    """`on_lost="block"`: nothing goes without the ledger, and all goes on with it."""

    async def main() -> float:
        ledger = WireLedger()
        limiter = limiter_of(ledger, on_lost="block", concurrency=5)
        (await limiter.acquire()).release()
        ledger.away = True
        asyncio.get_running_loop().call_later(20, setattr, ledger, "away", False)
        await asyncio.sleep(5)
        (await limiter.acquire()).release()
        await limiter.aclose()
        return asyncio.get_running_loop().time()

    assert 20.0 <= run(main()) < 22.0


def test_acquire_alone_slots_are_the_member_s_part():
    """Without the ledger a member uses its part of the slots, and no more."""

    async def main() -> list[int]:
        ledger = WireLedger()
        limiters = [limiter_of(ledger, concurrency=5) for _ in range(2)]
        for limiter in limiters:
            (await limiter.acquire()).release()
        await asyncio.sleep(1.5)
        ledger.away = True
        await asyncio.sleep(2.0)
        tasks = [asyncio.create_task(limiter.acquire()) for limiter in limiters for _ in range(5)]
        await asyncio.sleep(0.5)
        held = [limiter.stats().in_flight for limiter in limiters]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for limiter in limiters:
            await limiter.aclose()
        return held

    assert [3, 2] == run(main())


def test_engine_says_nothing_when_there_is_nothing_to_do():
    """A member that has had nothing to do for a while leaves, and comes back with the next request."""

    async def main() -> tuple[int, int, int]:
        ledger = WireLedger()
        limiter = limiter_of(ledger, concurrency=5)
        (await limiter.acquire()).release()
        await asyncio.sleep(20)
        before, members = ledger.messages, len(ledger.state.members)
        await asyncio.sleep(600)
        idle = ledger.messages - before
        (await limiter.acquire()).release()
        back = len(ledger.state.members)
        await limiter.aclose()
        return members, idle, back

    assert (0, 0, 1) == run(main())


def test_engine_lease_unused_goes_back():
    """A lease given back unsent frees its slot and its place in the minute."""

    async def main() -> list[int]:
        ledger = MemoryLedger(asyncio.get_running_loop().time)
        engine = SharedEngine(ledger, RateLimits(concurrency=1, rpm=10))
        grants = await engine.lease([Ask(5)])
        engine.release([grant.lease for grant in grants], sent=False)
        await asyncio.sleep(2)
        used = [*engine.view().used]
        await engine.aclose()
        return used

    assert [0, 0, 0, 0] == run(main())


def test_engine_settles_what_a_request_really_cost():
    """What a request was charged in truth replaces what it was granted for."""

    async def main() -> int:
        ledger = MemoryLedger(asyncio.get_running_loop().time)
        engine = SharedEngine(ledger, RateLimits(tpm=1_000_000))
        (grant,) = await engine.lease([Ask(100_000)])
        engine.release([grant.lease], sent=True, tokens=1_234)
        await asyncio.sleep(2)
        used = engine.view().used[2]
        await engine.aclose()
        return used

    assert 1_234 == run(main())


def test_client_shares_and_leaves_when_closed():
    """Two clients on one ledger see each other in `stats()`; a closed one is gone at once."""

    async def main() -> tuple[float | None, int, int]:
        ledger = WireLedger()
        transport = MemoryTransport(answer)
        made = {"api_key": "k", "transport": transport, "limits": "tier5", "shared": ledger, "quota": "acme"}
        one, two = AsyncKimi(**made), AsyncKimi(**made)  # type: ignore[arg-type]
        for client in (one, two):
            await client.chat.completions.create(model="kimi-k3", messages=[{"role": "user", "content": "x"}])
        members = len(ledger.state.members)
        limit = two.limiter.stats().rpm.limit
        await one.close()
        left = len(ledger.state.members)
        await two.close()
        return limit, members, left

    assert (300.0, 2, 1) == run(main())


def test_client_is_closed_though_its_ledger_no_longer_answers():
    """A ledger that hangs is not waited for beyond two seconds: `close()` cannot be cancelled."""

    class Hangs(WireLedger):
        async def sync(self, message: Any) -> Any:
            if message.leave:
                await asyncio.Event().wait()
            return await super().sync(message)

    async def main() -> float:
        client = AsyncKimi(api_key="k", transport=MemoryTransport(answer), shared=Hangs(), quota="acme")
        await client.chat.completions.create(model="kimi-k3", messages=[{"role": "user", "content": "x"}])
        began = asyncio.get_running_loop().time()
        await client.close()
        return asyncio.get_running_loop().time() - began

    assert 2.0 == pytest.approx(run(main()), abs=0.1)


def test_client_limits_are_known_before_the_first_call():
    """`map` asks the limiter how much may be under way before anything was sent."""
    client = AsyncKimi(api_key="k", limits="tier5", shared=WireLedger())

    stats = client.limiter.stats()

    assert (100.0, 100.0, 300.0) == (stats.concurrency.limit, stats.concurrency.allowed, stats.rpm.limit)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"shared": "memcached://x"}, "redis"),
        ({"shared": "redis"}, "redis://"),
        ({"shared": object()}, "sync"),
        ({"shared": "host", "on_lost": "panic"}, "on_lost"),
        ({"shared": "host", "quota": "../x"}, "quota"),
    ],
)
def test_client_bad_sharing_is_refused_when_made(arguments: dict[str, Any], word: str):
    """What would fail at the first call fails when the client is made, and says what to write instead."""
    with pytest.raises(ConfigurationError, match=word):
        AsyncKimi(api_key="k", **arguments)


def test_client_address_with_a_password_is_not_shown():
    """An address that is none may still hold a password."""
    with pytest.raises(ConfigurationError) as raised:
        AsyncKimi(api_key="k", shared="rediss+odd://user:hunter2@host")

    assert "hunter2" not in str(raised.value)


def test_client_environment_says_where_and_false_says_no(monkeypatch: pytest.MonkeyPatch):
    """`KIMI_SHARED_LIMITS` is for programs that were not written for it; `shared=False` is stronger."""
    monkeypatch.setenv("KIMI_SHARED_LIMITS", "host")

    assert "Shared" in repr(AsyncKimi(api_key="k").limiter)
    assert "Shared" not in repr(AsyncKimi(api_key="k", shared=False).limiter)


async def test_client_key_from_a_function_needs_the_quota_s_name():
    """Which organisation such a key belongs to is known to its owner alone."""

    async def key() -> str:
        return "k"

    client = AsyncKimi(api_key=key, shared=WireLedger())
    with pytest.raises(ConfigurationError, match="quota="):
        _ = client.limiter
    assert "acme" in repr(AsyncKimi(api_key=key, shared=WireLedger(), quota="acme").limiter)


def test_client_extra_that_is_missing_is_told_when_made(monkeypatch: pytest.MonkeyPatch):
    """Which package is missing, and how to get it, before the first call."""
    monkeypatch.setattr("kimi_async.middleware.rate_limit.shared.quota.find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match=r"kimi-async\[redis\]"):
        AsyncKimi(api_key="k", shared="redis://127.0.0.1:1/0")


def test_client_learns_the_tier_that_the_server_names():
    """A reply's tier is what all go by, where nobody knows the limits."""

    async def main() -> tuple[float | None, float | None]:
        limiter = limiter_of()
        lease = await limiter.acquire()
        lease.admitted({"msh-gid": "enterprise-tier-5"})
        lease.release()
        await asyncio.sleep(2)
        (await limiter.acquire()).release()
        stats = limiter.stats()
        await limiter.aclose()
        return stats.rpm.limit, stats.concurrency.limit

    assert (300.0, 100.0) == run(main())


def test_acquire_cost_that_cannot_be_told_fails_who_waits():
    """A function that fails to tell a cost ends no task in silence."""

    def cost() -> int:
        raise ZeroDivisionError("no cost")

    async def main() -> BaseException:
        ledger = WireLedger()
        limiter = limiter_of(ledger, concurrency=1)
        held = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire(cost))
        await asyncio.sleep(0.5)
        held.refused("tpm", limit=1000, current=1001, retry_after=0.1)
        (got,) = await asyncio.gather(waiting, return_exceptions=True)
        await limiter.aclose()
        assert isinstance(got, BaseException)
        return got

    assert isinstance(run(main()), SharedLimitsError)


def test_fleet_says_once_that_others_use_the_quota(caplog: pytest.LogCaptureFixture):
    """A server that counts far more than the quota does is told of, once."""

    async def main() -> None:
        limiter = limiter_of(rpm=300, concurrency=10)
        for _ in range(2):
            lease = await limiter.acquire()
            lease.refused("rpm", limit=300, current=301, retry_after=1.0)
            await asyncio.sleep(3)
        await limiter.aclose()

    run(main())
    assert 1 == sum("others use" in record.message for record in caplog.records)


def test_engine_idle_while_the_ledger_is_away_comes_back_to_it():
    """A member that fell silent during an outage asks the ledger again with its next request, and does not stay alone."""

    async def main() -> tuple[str, str]:
        ledger = WireLedger()
        limiter = limiter_of(ledger, concurrency=5, rpm=300)
        (await limiter.acquire()).release()
        ledger.away = True
        await asyncio.sleep(1)
        (await limiter.acquire()).release()
        alone = limiter.view().mode
        await asyncio.sleep(60)
        ledger.away = False
        (await limiter.acquire()).release()
        await asyncio.sleep(2)
        mode = limiter.view().mode
        await limiter.aclose()
        return alone, mode

    assert ("alone", "shared") == run(main())
