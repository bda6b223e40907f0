"""
The goals, and the arithmetic of `--check`.

A goal compares figures of one run: of each round by itself, since the rounds are interleaved and a machine that is busy
for a minute is busy for everybody; the median of the rounds' ratios is what is judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["GOALS", "Goal", "Verdict", "check"]

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """
    `ours` in a workload, compared with `against` in the same or another one, at most `at_most`.

    Without `against` the figure itself is compared. Where several clients are named, the quickest of those that ran
    counts. `against_workload` is where the other side is read, if not in the same workload.
    """

    text: str
    workload: str
    metric: str
    at_most: float
    against: tuple[str, ...] = ()
    against_workload: str | None = None
    ours: str = "kimi-async"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a goal came to; `value` is None where it could not be judged, and `why` says what was missing."""

    goal: Goal
    value: float | None
    met: bool
    why: str = ""


# The generated SDKs: each must cost five times ours or more, on every workload that the client has a say in.
GENERATED = ("openai", "openai-aiohttp", "groq", "mistralai", "litellm")
_EVERYWHERE = (
    "burst1",
    "burst64",
    "burst1024",
    "reasoning",
    "tools",
    "helper",
    "trickle",
    "small",
    "small64",
    "ttft",
)

GOALS: tuple[Goal, ...] = (
    Goal("a burst stream costs ≤ 1.25 × the hand-written loop", "burst64", "cpu_us", 1.25, ("floor",)),
    Goal("… and ≤ 1/50 of AsyncOpenAI", "burst64", "cpu_us", 1 / 50, ("openai", "openai-aiohttp")),
    Goal(
        "one event a packet, 200 streams: ≤ 1.15 × the hand-written loop",
        "trickle",
        "cpu_us",
        1.15,
        ("floor",),
    ),
    Goal(
        "a small call costs ≤ 1.3 × a bare aiohttp POST with typed decode", "small", "cpu_us", 1.3, ("floor",)
    ),
    Goal("… and ≤ 1/11 of AsyncOpenAI", "small", "cpu_us", 1 / 11, ("openai",)),
    Goal("9,000 streams open at once: ≤ 24 KiB each", "many9000", "kb_each", 24),
    Goal("importing costs ≤ 1/4 of openai", "import", "cpu_ms", 0.25, ("openai",)),
    Goal(
        "the stream helper costs ≤ 1.5 × plain iteration", "helper", "cpu_us", 1.5, ("kimi-async",), "burst64"
    ),
    Goal("… and ≤ 1/60 of AsyncOpenAI's helper", "helper", "cpu_us", 1 / 60, ("openai", "openai-aiohttp")),
    Goal("300 streams × 50 tokens/s: added p99 gap ≤ 10 ms", "paced300", "gap_p99_ms", 10),
    Goal("20 streams in a row open one connection, though their ends come late", "reuse", "connections", 1),
    *(
        Goal(
            f"{workload}: ≤ 1/5 of every generated SDK",
            workload,
            "p50_us" if workload == "ttft" else "cpu_us",
            0.2,
            GENERATED,
        )
        for workload in _EVERYWHERE
    ),
)


def check(results: Iterable[Result], goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """The verdict on each goal; one whose workload or opponent did not run is neither met nor missed."""
    figures: dict[tuple[str, str, str], dict[int, float]] = {}
    for result in results:
        for metric, value in result.items():
            if isinstance(value, int | float) and metric != "round":
                key = (result["workload"], result["client"], metric)
                figures.setdefault(key, {})[result["round"]] = float(value)
    return [_judge(goal, figures) for goal in goals]


def _judge(goal: Goal, figures: Mapping[tuple[str, str, str], Mapping[int, float]]) -> Verdict:
    ours = figures.get((goal.workload, goal.ours, goal.metric))
    if not ours:
        return Verdict(goal, None, False, f"{goal.ours} did not run {goal.workload}")
    if not goal.against:
        value = statistics.median(ours.values())
        return Verdict(goal, value, value <= goal.at_most)
    workload = goal.against_workload or goal.workload
    ratios = []
    for name in goal.against:
        theirs = figures.get((workload, name, goal.metric), {})
        both = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
        if both:
            ratios.append(statistics.median(both))
    if not ratios:
        return Verdict(goal, None, False, f"none of {', '.join(goal.against)} ran {workload}")
    worst = max(ratios)
    return Verdict(goal, worst, worst <= goal.at_most)
