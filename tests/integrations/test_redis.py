"""
A quota in a real Redis: the script answers as the arithmetic in Python does, and what happens to servers happens to this one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kimi_async.errors import ConfigurationError, SharedLimitsError
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.shared import Ask, LedgerUnavailable, SharedEngine, SharedQuota, Sync
from kimi_async.middleware.rate_limit.shared.ledger import State, sync
from support.redis_server import RedisServer, redis_is_installed

pytest.importorskip("redis", reason="redis-py is not installed")

from kimi_async.integrations.redis import RedisLedger

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(not redis_is_installed(), reason="redis-server is not installed"),
]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def messages(seed: int, count: int) -> Iterator[Sync]:
    """Anything that members may say, and some of what they may not."""
    dice = random.Random(seed)
    now, mono, seqs, epochs = 1_700_000_000_000, 0, dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 0)
    confs = [(0, 0, 0, 0), (6, 60, 100_000, 0), (20, 300, 5_000_000, 1_500_000), (0, 120, 0, 0)]
    conf = dice.choice(confs)
    for _ in range(count):
        now += dice.choice([0, 1, 30, 100, 400, 900, 1_800]) + (
            dice.choice([30_000, -30_000, 70_000, 200_000]) if dice.random() < 0.01 else 0
        )
        mono += dice.choice([0, 1, 30, 100, 400, 900])
        who = dice.choice("abcde")
        seqs[who] += dice.choice([0, 1, 1, 1, 1])
        seq = seqs[who]
        items: list[Any] = []
        for _ in range(dice.choice([0, 0, 1, 3])):
            kind = dice.choice(["sent", "sent", "good", "slots", "rpm", "tpm", "tpd", "some", "over"])
            first = dice.choice([0, 1, 3, 20, 60]) if kind != "sent" else dice.choice([-1, 1, 3])
            hint = dice.choice([0, 100, 1_500, 5_000]) if kind not in ("sent", "good") else 0
            items.append(
                (
                    max(1, seq - dice.choice([0, 0, 1])),
                    kind,
                    dice.randrange(0, 61_000),
                    first,
                    dice.randrange(0, 5_000),
                    hint,
                )
            )
        wants = [
            (dice.choice([0, 10, 900, 40_000]), dice.choice([0, 0, 0, 2]))
            for _ in range(dice.choice([0, 1, 2, 9]))
        ]
        if dice.random() < 0.05:
            conf = dice.choice(confs)
        yield Sync(
            member=who * 6,
            name=f"host:{who}",
            seq=seq,
            seen=max(0, seq - dice.choice([1, 1, 1, 2])),
            epoch=dice.choice([0, epochs[who], epochs[who], 12345 if dice.random() < 0.05 else epochs[who]]),
            seed=dice.randrange(1, 1 << 40),
            mono=mono,
            held=dice.randrange(0, 4),
            want=wants,
            waiting=len(wants) + dice.choice([0, 0, 5]) if wants else 0,
            items=items,
            conf=conf,
            leave=dice.choice([0] * 30 + [1, 2]),
            now=now,
        )


@pytest.mark.parametrize("seed", range(4))
def test_script_answers_as_the_python_ledger_does(shared_server: RedisServer, seed: int):
    """The same 500 random messages to both: the same answers."""

    async def main() -> None:
        ledger = RedisLedger(shared_server.url, quota=f"same-{seed}")
        state = State()
        for number, message in enumerate(messages(seed, 500)):
            expected = sync(state, message, message.now)
            got = await ledger.sync(message)
            expected.peers.sort(key=lambda peer: peer.member)
            got.peers.sort(key=lambda peer: peer.member)
            assert expected == got, (number, message)
        await ledger.aclose()

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.05)  # an engine tells nobody of what it hears
    raise AssertionError("it never came to that")


def engine_of(server: RedisServer, quota: str, **limits: int) -> SharedEngine:
    return SharedEngine(RedisLedger(server.url, quota=quota), RateLimits(**limits))


def test_redis_members_share_slots_and_leave(shared_server: RedisServer):
    """Two members of one quota have its slots together; who leaves gives them back; another quota is another."""

    async def main() -> list[int]:
        one, two, other = (
            engine_of(shared_server, quota, concurrency=2) for quota in ("acme", "acme", "other")
        )
        got = [len(await one.lease([Ask(), Ask()]))]
        got.append(len(await two.lease([Ask()], wait=False)))
        got.append(len(await other.lease([Ask()], wait=False)))
        await one.aclose()
        got.append(len(await two.lease([Ask(), Ask()])))
        await two.aclose()
        await other.aclose()
        return got

    assert [2, 0, 1, 2] == asyncio.run(main())


def test_redis_scripts_flushed_and_connections_killed(shared_server: RedisServer):
    """Nobody notices when the scripts are flushed or the connections cut."""
    import redis

    async def main() -> int:
        member = engine_of(shared_server, "flushed", concurrency=100)
        leases = 0
        admin = redis.Redis.from_url(shared_server.url)
        for _ in range(5):
            leases += len(await member.lease([Ask()]))
            admin.script_flush()
            admin.client_kill_filter(_type="normal", skipme=True)
        admin.close()
        leases += len(await member.lease([Ask()]))
        await member.aclose()
        return leases

    assert 6 == asyncio.run(main())


def test_redis_restarted_empty_is_told_what_was_sent(server: RedisServer):
    """A server that comes back without memory hears from the survivors, and then from then on counts."""

    async def main() -> tuple[int, int]:
        member = engine_of(server, "acme", rpm=300, concurrency=100)
        for _ in range(4):
            (grant,) = await member.lease([Ask()])
            member.release([grant.lease], sent=True)
        epoch = member._epoch
        server.kill()
        server.start()
        await until(
            lambda: member._epoch != epoch and member.view().mode == "shared" and member.view().used[1] >= 4
        )
        used = member.view().used[1]
        (grant,) = await member.lease([Ask()])
        await member.aclose()
        return used, grant.lease

    used, lease = asyncio.run(asyncio.wait_for(main(), 30))
    assert 4 == used
    assert lease > 0


def test_redis_stopped_goes_on_alone_and_comes_back(server: RedisServer):
    """A server that stands still is away after its timeouts; what it finds when it goes on does no harm."""

    async def main() -> tuple[str, str]:
        member = engine_of(server, "acme", rpm=300, concurrency=10)
        (grant,) = await member.lease([Ask()])
        server.stop()
        await until(lambda: member.view().mode == "alone")
        (alone,) = await member.lease([Ask()])
        mode = member.view().mode
        server.go_on()
        await until(lambda: member.view().mode == "shared")
        member.release([grant.lease, alone.lease], sent=True)
        back = member.view().mode
        await member.aclose()
        return mode, back

    assert ("alone", "shared") == asyncio.run(asyncio.wait_for(main(), 30))


def test_redis_not_there_is_an_error_of_ours():
    """An address at which nobody listens is `LedgerUnavailable`, and for a caller `SharedLimitsError`."""

    async def main() -> None:
        with pytest.raises(LedgerUnavailable):
            await RedisLedger("redis://127.0.0.1:1/0").sync(Sync(member="m", seq=1))
        quota = SharedQuota("redis://127.0.0.1:1/0", limits="tier5", on_lost="raise")
        with pytest.raises(SharedLimitsError):
            await quota.engine().lease([Ask()])
        await quota.aclose()

    asyncio.run(main())


def test_redis_fault_of_the_script_is_no_outage(shared_server: RedisServer):
    """A refusal of the script is told to those who wait, and does not look like a server that is away."""
    import redis

    async def main() -> SharedLimitsError:
        admin = redis.Redis.from_url(shared_server.url)
        admin.lpush("kimi:{spoilt}:limits", "not a ledger")
        admin.close()
        member = engine_of(shared_server, "spoilt", concurrency=1)
        with pytest.raises(SharedLimitsError, match="WRONGTYPE") as raised:
            await member.lease([Ask()])
        await member.aclose()
        return raised.value

    assert not isinstance(asyncio.run(main()), LedgerUnavailable)


def test_redis_client_of_the_caller_stays_its_own(shared_server: RedisServer):
    """A client that was passed in is used and not closed."""
    import redis.asyncio

    async def main() -> bool:
        client = redis.asyncio.Redis.from_url(shared_server.url)
        ledger = RedisLedger(client=client, quota="mine")
        await ledger.sync(Sync(member="m", seq=1, seed=5))
        await ledger.aclose()
        alive = await client.ping()
        await client.aclose()
        return bool(alive)

    assert asyncio.run(main())


def test_redis_neither_address_nor_client_is_refused():
    """One of the two, and not both."""
    with pytest.raises(ConfigurationError):
        RedisLedger()
    with pytest.raises(ConfigurationError):
        RedisLedger("redis://x", client=object())
