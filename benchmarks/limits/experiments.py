"""
The experiments, on a virtual clock: ten minutes of traffic each, in about a second.

The server is `kimi_async.testing.ServerLedger` with the times of `tests/support/limited_transport.py`: 30 ms there and back, answers that take
a lognormal time, headers 0.8 s after the request (as with streams) or with the answer.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.limits.laws import LAWS
from kimi_async.testing.simulator.server_limits import ServerLimits, Storm

__all__ = ["EXPERIMENTS", "OURS", "Experiment", "Measured", "measure"]


def _world() -> Any:
    """The crowd and the server of the tests: one model of Kimi, not two."""
    path = Path(__file__).resolve().parents[2] / "tests" / "support" / "limited_transport.py"
    spec = importlib.util.spec_from_file_location("limited_transport", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.get("limited_transport") or importlib.util.module_from_spec(spec)
    if "limited_transport" not in sys.modules:
        sys.modules["limited_transport"] = module
        spec.loader.exec_module(module)
    return module


OURS = "kimi_async"


@dataclass(frozen=True)
class Measured:
    """What one client got out of one experiment."""

    client: str
    goodput: float
    """Admitted ÷ allowed."""
    refused: float
    """Refusals for each success."""
    lost: int
    """Calls that failed for good."""
    seconds: float
    """Until the last call was done; the duration where the work never ends."""
    notes: dict[str, float] = field(default_factory=dict)
    log: list[tuple[float, bool]] = field(default_factory=list)
    """When each request arrived, and whether it was admitted."""


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    limits: ServerLimits | str
    allowed: float
    """Requests that the limits allow in `duration`."""
    slots: int
    """What a law that must be told a concurrency is told: the truth."""
    duration: float = 600.0
    tasks: int = 100
    calls: int | None = None
    known: Any = None
    """`limits=` of an extra run of ours, where they are configured."""
    ledger: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    goal: tuple[float, float] | None = None
    """Goodput at least, refusals for each success at most."""
    notes: Callable[[Any], dict[str, float]] | None = None


def _changed(outcome: Any) -> dict[str, float]:
    ledger = outcome.ledger
    admitted = sorted(at for at, kind in ledger.log if not kind and at >= 420)
    reached = next(
        (
            at
            for at in (420 + step * 0.25 for step in range(720))
            if sum(1 for other in admitted if at <= other < at + 5) >= 0.9 * 1000 / 12
        ),
        None,
    )
    return {
        "refused while low": float(ledger.rejected_between(180, 420)),
        "s to 90 % of the raise": reached - 420 if reached is not None else float("inf"),
    }


def _storm(outcome: Any) -> dict[str, float]:
    ledger = outcome.ledger
    before = ledger.admitted_between(120, 200) / 80
    back = next(
        (
            at - 260
            for at in (260 + step * 0.25 for step in range(600))
            if ledger.admitted_between(at, at + 5) / 5 >= 0.9 * before
        ),
        float("inf"),
    )
    return {
        "calls into it": float(sum(1 for at, _ in ledger.log if 200 <= at < 260)),
        "s until 90 % again": back,
    }


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("tier5", "Tier 5: 100 at once, 300 a minute", "tier5", 3000, 100, known="tier5", goal=(0.99, 0.02)),
    Experiment(
        "tier1", "Tier 1: 15 at once, 100 a minute, 50 tasks", "tier1", 1000, 15, tasks=50, known="tier1",
        goal=(0.96, 0.02),
    ),
    Experiment(
        "tier0", "Tier 0: one at once, 3 a minute, half an hour", "tier0", 90, 1, duration=1800, tasks=10,
        known="tier0", timing={"latency": 4.0}, goal=(0.95, 0.2),
    ),
    Experiment(
        "hidden", "Tier 5, refusals name no limit and no number", "tier5", 3000, 100, ledger={"hide_numbers": True},
        goal=(0.93, 0.06),
    ),
    Experiment(
        "tokens", "5 M tokens a minute, 36,000 a request", ServerLimits(100, None, 5_000_000), 1388.9, 100,
        known={"concurrency": 100, "tpm": 5_000_000}, timing={"tokens": 36_000, "cost": 36_000}, goal=(0.99, 0.03),
    ),
    Experiment(
        "sliding", "500 a minute, refusals free, sliding window", ServerLimits(100, 500), 5000, 100,
        ledger={"rejects_count": False}, goal=(0.99, 0.02),
    ),
    Experiment(
        "fixed", "500 a minute, refusals free, minutes of the clock", ServerLimits(100, 500), 5000, 100,
        ledger={"rejects_count": False, "window": "fixed"}, goal=(0.99, 0.02),
    ),
    Experiment(
        "bucket", "500 a minute, refusals free, token bucket", ServerLimits(100, 500), 5000, 100,
        ledger={"rejects_count": False, "window": "bucket"}, goal=(0.99, 0.02),
    ),
    Experiment(
        "change", "500, from 180 s 200, from 420 s 1,000 a minute", ServerLimits(150, 500), 1500 + 800 + 3000, 150,
        tasks=150,
        ledger={"schedule": [(180.0, ServerLimits(150, 200)), (420.0, ServerLimits(150, 1000))]},
        notes=_changed,
    ),
    Experiment(
        "storm", "100 at once, a minute of overload from 200 s on", ServerLimits(100), 100 * 540 / 10, 100,
        timing={"latency": 10.0}, tasks=150, ledger={"storms": [Storm(200, 260)]}, notes=_storm,
    ),
    Experiment(
        "slots", "300 calls of 0.2 s, 10 at once", ServerLimits(10), 300, 10, duration=60, tasks=300, calls=300,
        known={"concurrency": 10}, timing={"latency": 0.2, "sigma": 0.0, "rtt": 0.004, "ack": None},
    ),
    Experiment(
        "rows", "2,000 rows at 500 a minute: how long", ServerLimits(100, 500), 2000, 100, duration=1200, tasks=200,
        calls=2000, known={"concurrency": 100, "rpm": 500}, ledger={"rejects_count": False},
    ),
)  # fmt: skip


def measure(experiment: Experiment, client: str, seed: int) -> Measured:
    """
    One run. `client` is a name of `LAWS`, `OURS`, or `OURS` + ", configured".
    """
    world = _world()
    law = None
    if client in LAWS:
        chosen = LAWS[client]

        def law(_: Any, send: Any) -> Any:
            return chosen(send, experiment.slots, random.Random(seed))

    outcome = world.simulate(
        experiment.limits,
        client=experiment.known if client.endswith("configured") else None,
        duration=experiment.duration,
        tasks=experiment.tasks,
        calls=experiment.calls,
        seed=seed,
        law=law,
        ledger=dict(experiment.ledger),
        **experiment.timing,
    )
    allowed = experiment.allowed
    return Measured(
        client,
        outcome.goodput(allowed),
        outcome.rejected_per_success,
        len(outcome.lost),
        outcome.finished_at,
        experiment.notes(outcome) if experiment.notes else {},
        [(at, not kind) for at, kind in outcome.ledger.log],
    )
