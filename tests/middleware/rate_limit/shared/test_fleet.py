"""
Eight processes on one quota, minutes of them on a virtual clock: killed, cut off, slow, with a ledger that forgets.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.testing.clock import run
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits
from support.limited_transport import jain
from support.shared_quota import Fleet

MINUTES = 2


async def eight(fleet: Fleet, *, kill_every: int = 0, away_at: int = 0, forget: bool = False) -> None:
    for number in range(8):
        fleet.start(str(number))
    number = 8
    for second in range(60 * MINUTES + 2):
        await asyncio.sleep(1)
        if kill_every and second % kill_every == kill_every - 1:
            await fleet.kill(next(iter(fleet.limiters)))
            fleet.start(str(number))
            number += 1
        if away_at and second == away_at:
            fleet.ledger.away = True
        if away_at and second == away_at + 10:
            fleet.ledger.away = False
            if forget:
                fleet.ledger.forget()


def test_fleet_uses_the_quota_up_and_shares_it_alike():
    """Eight equal processes: all of the quota, no refusal, the same for each; and messages within reason."""

    async def main() -> tuple[float, int, int, float, float]:
        fleet = Fleet.of()
        await eight(fleet)
        shares = [float(len(times)) for times in fleet.server.by_user.values()]
        told = fleet.ledger.messages / (60 * MINUTES) / 8
        goodput = fleet.goodput(300, MINUTES)
        await fleet.stop()
        assert {} == fleet.ledger.state.members
        return goodput, fleet.refusals, fleet.most_in_a_minute(), jain(shares), told

    goodput, refusals, most, fairness, messages = run(main())
    assert goodput >= 0.98
    assert (0, True) == (refusals, most <= 300)
    assert fairness >= 0.99
    assert messages < 10


def test_fleet_killed_every_ten_seconds_loses_next_to_nothing():
    """A process killed every ten seconds and replaced: the quota is still used up, and nothing refused."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of()
        await eight(fleet, kill_every=10)
        return fleet.goodput(300, MINUTES), fleet.refusals

    goodput, refusals = run(main())
    assert goodput >= 0.98
    assert 0 == refusals


@pytest.mark.parametrize("forget", [False, True])
def test_fleet_ledger_away_for_ten_seconds(forget: bool):
    """Without its ledger each goes on with what it had; with it again, or a new one that knows nothing, all go on together."""

    async def main() -> tuple[float, int, int]:
        fleet = Fleet.of()
        await eight(fleet, away_at=70, forget=forget)
        return fleet.goodput(300, MINUTES), fleet.refusals, fleet.most_in_a_minute()

    goodput, refusals, most = run(main())
    assert goodput >= 0.98
    assert (0, True) == (refusals, most <= 300)


@pytest.mark.parametrize("fault", ["lost before", "lost after", "twice", "slow"])
def test_fleet_wire_that_loses_repeats_and_delays(fault: str):
    """One message in ten is lost, or its answer is, or it comes twice, or late: next to nothing is refused, and nothing lost."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of()
        dice = random.Random(3)
        fleet.ledger.fault = lambda message: fault if dice.random() < 0.1 else ""
        await eight(fleet)
        return fleet.goodput(300, MINUTES), fleet.refusals

    goodput, refusals = run(main())
    assert goodput >= 0.98
    assert refusals <= 3  # of six hundred


def test_fleet_ledger_stopped_for_two_seconds_again_and_again():
    """A ledger that stands still (SIGSTOP, a slow disk) and then answers all that was asked meanwhile costs nothing."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of()
        for number in range(8):
            fleet.start(str(number))
        for _ in range(6):
            await asyncio.sleep(10)
            fleet.ledger.frozen = thaw = asyncio.Event()
            await asyncio.sleep(2)
            fleet.ledger.frozen = None
            thaw.set()
        await asyncio.sleep(60 * MINUTES - 72 + 2)
        return fleet.goodput(300, MINUTES), fleet.refusals

    goodput, refusals = run(main())
    assert goodput >= 0.98
    assert 0 == refusals


@pytest.mark.parametrize("jump", [30.0, -30.0])
def test_fleet_server_s_clock_jumps(jump: float):
    """The ledger's host has its clock set by half a minute: never more than 2 % above the limit in a real minute."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of()
        for number in range(8):
            fleet.start(str(number))
        await asyncio.sleep(70)
        fleet.ledger.skew += jump
        await asyncio.sleep(60 * MINUTES - 70 + 2)
        return fleet.goodput(300, MINUTES), fleet.most_in_a_minute()

    goodput, most = run(main())
    assert goodput >= 0.98
    assert most <= 306


def test_fleet_unknown_limits_are_learnt_by_all_together():
    """Nobody knows the limits: what one is refused for, all learn; eight members are no dearer than one."""

    async def main() -> tuple[float, int, int]:
        fleet = Fleet.of(limits=None)
        await eight(fleet)
        told = fleet.limiters["0"].stats()
        assert (300.0, "told") == (told.rpm.limit, told.rpm.source)
        return fleet.goodput(300, MINUTES), fleet.refusals, fleet.server.ledger.admitted

    goodput, refusals, admitted = run(main())
    assert goodput >= 0.9
    assert refusals <= 0.03 * admitted


def test_fleet_tokens_a_minute_are_never_overspent():
    """Requests of 10 and of 100,000 tokens on one limit of tokens: all that fits goes, and the server refuses none."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of(
            ServerLedger(ServerLimits(concurrency=100, rpm=300, tpm=2_000_000)),
            limits=RateLimits(concurrency=100, rpm=300, tpm=2_000_000),
        )
        fleet.costs = [10, 100_000]
        await eight(fleet)
        return fleet.server.ledger.tokens_admitted / (2_000_000 * MINUTES), fleet.refusals

    used, refusals = run(main())
    assert used >= 0.9
    assert 0 == refusals


def test_fleet_slots_are_all_used():
    """Where slots are what is scarce, they are all in use, whoever's turn it is."""

    async def main() -> tuple[float, int]:
        fleet = Fleet.of("tier1", limits="tier1", latency=20.0)
        await eight(fleet)
        ideal = 15 * 60 * MINUTES / 20.0
        return fleet.server.ledger.admitted / ideal, fleet.refusals

    used, refusals = run(main())
    assert used >= 0.95
    assert 0 == refusals
