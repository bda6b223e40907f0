"""
The ledger of limits: what an organisation may use, and what it is told beyond it.
"""

import aiohttp
import pytest

from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits, Storm
from support.bare_client import Client, chat


async def test_limits_refuse_with_the_captured_headers() -> None:
    """
    A third-minute request at tier 0 gets the captured 429, its three hints included; the tier is in Msh-Gid.
    """
    async with KimiSimulator(limits="tier0") as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        replies = [await client.chat(chat(max_completion_tokens=50)) for _ in range(4)]

    _, body, headers = replies[-1]
    assert [200, 200, 200, 429] == [reply[0] for reply in replies]
    assert "rate_limit_reached_error" == body["error"]["type"]
    assert (
        "request reached organization max RPM: 3, please try again after 1 seconds"
        in body["error"]["message"]
    )
    assert ["1", "1", "1"] == [
        headers[name] for name in ("Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds")
    ]
    assert "enterprise-tier-0" == headers["Msh-Gid"]
    assert {"rpm": 1} == sim.stats.rejected


@pytest.mark.parametrize(
    ("limits", "kind", "text"),
    [
        (ServerLimits(concurrency=0), "concurrency", "max concurrency: 0, please try again after 1 seconds"),
        (ServerLimits(tpm=1_000), "tpm", "TPM rate limit, current: 1050, limit: 1000"),
        (ServerLimits(tpd=1_000), "tpd", "TPD rate limit, current: 1050, limit: 1000"),
    ],
)
def test_admit_names_the_limit_it_hit(limits: ServerLimits, kind: str, text: str) -> None:
    """Each dimension has its own text, with the numbers a client can learn from."""
    ledger = ServerLedger(limits)
    permit = ledger.admit(0.0, tokens=1_050)

    assert permit.refusal is not None
    assert (kind, 429) == (permit.refusal.kind, permit.refusal.status)
    assert text in permit.refusal.message


def test_admit_sliding_window_forgets_after_a_minute() -> None:
    """Exactly the last 60 seconds count."""
    ledger = ServerLedger(ServerLimits(rpm=2), rejects_count=False)
    times = [0.0, 30.0, 59.9, 60.0, 60.1, 90.0]

    assert [True, True, False, True, False, True] == [ledger.admit(at).refusal is None for at in times]


def test_admit_rejects_count_keeps_the_window_full() -> None:
    """Where refused requests are charged, one retry a second never gets through again."""
    ledger = ServerLedger(ServerLimits(rpm=3))
    admitted = sum(ledger.admit(float(second)).refusal is None for second in range(600))

    assert 3 == admitted


def test_admit_fixed_window_resets_on_the_minute() -> None:
    """Two bursts may straddle the boundary."""
    ledger = ServerLedger(ServerLimits(rpm=2), window="fixed")
    times = [59.0, 59.5, 59.9, 60.0, 60.1, 60.2]

    assert [True, True, False, True, True, False] == [ledger.admit(at).refusal is None for at in times]


def test_admit_bucket_refills_steadily() -> None:
    """A bucket of 60 per minute is full at first and gives one a second afterwards."""
    ledger = ServerLedger(ServerLimits(rpm=60), window="bucket")
    burst = sum(ledger.admit(0.0).refusal is None for _ in range(100))
    later = [ledger.admit(float(second)).refusal is None for second in range(1, 5)]

    assert 60 == burst
    assert [True] * 4 == later


def test_admit_tokens_are_not_charged_for_refused_requests() -> None:
    """A 429 costs no tokens, and a limit raised on the fly is used at once."""
    ledger = ServerLedger(ServerLimits(tpm=1_000), schedule=[(10.0, ServerLimits(tpm=2_000))])

    verdicts = [ledger.admit(at, tokens=600).refusal is None for at in (0.0, 1.0, 2.0, 10.0, 11.0, 12.0)]

    assert [True, False, False, True, True, False] == verdicts
    assert 1_800 == ledger.tokens_admitted


def test_admit_storm_takes_its_time_and_hints_nothing() -> None:
    """Overload holds the slot for the seconds it took live and carries no Retry-After."""
    ledger = ServerLedger(ServerLimits(concurrency=1), storms=[Storm(5.0, 10.0)])
    permit = ledger.admit(7.0)
    meanwhile = ledger.admit(7.1)
    permit.release()
    permit.release()

    assert permit.refusal is not None
    assert ("engine_overloaded_error", (), 8.0) == (permit.refusal.type, permit.refusal.headers, permit.delay)
    assert "concurrency" == (meanwhile.refusal.kind if meanwhile.refusal else None)
    assert 0 == ledger.in_flight
    assert ledger.admit(10.0).refusal is None


def test_admit_hidden_numbers_use_the_short_text() -> None:
    """A client that cannot read limits must still cope."""
    ledger = ServerLedger(ServerLimits(rpm=0), hide_numbers=True, retry_after=2.5)
    refusal = ledger.admit(0.0).refusal

    assert refusal is not None
    assert "Organization Rate limit exceeded, please try again after 2.5 seconds" == refusal.message
    assert {"2.5"} == {value for _, value in refusal.headers}


def test_unknown_tier_names_the_known_ones() -> None:
    """A misspelt tier is an error where it is written."""
    with pytest.raises(ValueError, match="tier0"):
        ServerLedger("tier9")
