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

__all__ = ["GOALS", "Goal", "Verdict", "by_hand", "check"]

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

_BY_HAND = (
    ("burst64", "a burst stream", "cpu_us", 1.2, 1.2),
    ("trickle", "one event a packet, 200 streams", "cpu_us", 1.12, 1.2),
    ("final", "300 streams read for nothing but their end", "cpu_us", 0.38, 0.38),
    ("small", "a small call", "cpu_us", 1.2, 1.2),
    ("small64", "64 small calls at once", "cpu_us", 1.3, 1.3),
    ("large", "a call with a prompt of 1 MB", "cpu_us", 1.2, 1.2),
    ("ttft", "the first text", "p50_us", 1.3, 1.3),
)
"""Workload, words, figure, and at most so many times the hand-written loop, on asyncio and on uvloop."""


def by_hand(uvloop: bool = False) -> tuple[Goal, ...]:
    """The goals beside the loop that a good engineer writes: what `benchmarks.pythons` shows for each interpreter."""
    ours, floor = ("kimi-async-uvloop", "floor-uvloop") if uvloop else ("kimi-async", "floor")
    on = ", uvloop" if uvloop else ""
    return (
        *(
            Goal(
                f"{words}{on}: ≤ {bounds[uvloop]:g} × the hand-written loop",
                workload,
                metric,
                bounds[uvloop],
                (floor,),
                ours=ours,
            )
            for workload, words, metric, *bounds in _BY_HAND
        ),
        Goal(
            f"the stream helper{on}: ≤ 1.4 × plain iteration",
            "helper",
            "cpu_us",
            1.4,
            (ours,),
            "burst64",
            ours,
        ),
    )


GOALS: tuple[Goal, ...] = (
    *by_hand(),
    Goal(
        "a burst stream costs ≤ 1/50 of AsyncOpenAI",
        "burst64",
        "cpu_us",
        1 / 50,
        ("openai", "openai-aiohttp"),
    ),
    Goal("a small call costs ≤ 1/11 of AsyncOpenAI", "small", "cpu_us", 1 / 11, ("openai",)),
    Goal("streams read for their end: ≤ 1/18 of AsyncOpenAI", "final", "cpu_us", 1 / 18, ("openai",)),
    Goal("1,000 streams open at once: ≤ 18 KiB each", "many", "kb_each", 18),
    Goal("9,000 streams open at once: ≤ 18 KiB each", "many9000", "kb_each", 18),
    Goal("importing costs ≤ 1/4 of openai", "import", "cpu_ms", 0.25, ("openai",)),
    Goal(
        "the helper costs ≤ 1/60 of AsyncOpenAI's", "helper", "cpu_us", 1 / 60, ("openai", "openai-aiohttp")
    ),
    Goal("300 streams × 50 tokens/s: added p99 gap ≤ 10 ms", "paced300", "gap_p99_ms", 10),
    Goal("16 streams at full speed delay another task by ≤ 40 ms", "fair", "worst_ms", 40),
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
