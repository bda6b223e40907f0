"""
`python -m benchmarks.bulk`: bulk work against its goals, and against what one would use instead.

Each figure comes from a process of its own. The figures of uploads are medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.bulk.killing import killed

__all__ = ["main"]


def measured(name: str, **arguments: Any) -> dict[str, float]:
    """One measure, in a process of its own."""
    code = (
        "import json, sys; from benchmarks.bulk.measures import MEASURES; "
        f"print(json.dumps(MEASURES[{name!r}](**json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


class Report:
    """Prints as it goes; remembers which goals were missed."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.missed: list[str] = []

    def add(self, name: str, figures: dict[str, float]) -> None:
        self.figures[name] = figures
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()), flush=True)

    def goal(self, text: str, met: bool) -> None:
        print(f"  {'met   ' if met else 'MISSED'} {text}", flush=True)
        if not met:
            self.missed.append(text)


def uploads(report: Report, quick: bool) -> None:
    count, rounds = (16, 1) if quick else (64, 3)
    hows = ["kimi-async", "by hand", "by hand, streamed"]
    if importlib.util.find_spec("openai"):
        hows.append("openai")
    with tempfile.TemporaryDirectory() as directory:
        files = [os.path.join(directory, f"{n}.bin") for n in range(count)]
        for path in files:
            with open(path, "wb") as file:
                file.write(os.urandom(16 * 1024 * 1024))
        sink = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bulk.sink"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert sink.stdout is not None
            port = int(sink.stdout.readline())
            found: dict[str, list[dict[str, float]]] = {}
            for number in range(rounds):
                for how in hows[number % len(hows) :] + hows[: number % len(hows)]:
                    found.setdefault(how, []).append(
                        measured("uploads", how=how, port=port, files=files, concurrency=8)
                    )
        finally:
            sink.kill()
            sink.wait()
    median = {
        how: {key: statistics.median(each[key] for each in all_) for key in all_[0]}
        for how, all_ in found.items()
    }
    for how, figures in median.items():
        report.add(f"upload {count} × 16 MB, {how}", figures)
    ours = median["kimi-async"]
    ratio = ours["cpu_s_per_gb"] / median["by hand"]["cpu_s_per_gb"]
    report.goal(f"CPU at most 1.2 × an aiohttp form: {ratio:.2f} ×", ratio <= 1.2)
    report.goal(f"memory grows by at most 48 MB: {ours['memory_mb']:.1f}", ours["memory_mb"] <= 48)
    if "openai" in median:
        cpu = ours["cpu_s_per_gb"] / median["openai"]["cpu_s_per_gb"]
        report.goal(f"less CPU than AsyncOpenAI: {cpu:.2f} ×", cpu < 1)


def overhead(report: Report, quick: bool) -> None:
    found = measured("overhead", count=3000 if quick else 20_000, rounds=3, concurrency=64)
    report.add("map, µs a request over the bare call", found)
    for name, most in (("map", 60), ("ordered", 60), ("journal_process", 120), ("journal_disk", 120)):
        report.goal(
            f"{name} at most {most} µs: {found[f'{name}_wall_us']:.1f} (CPU {found[f'{name}_cpu_us']:.1f})",
            found[f"{name}_wall_us"] <= most,
        )


def memory(report: Report, quick: bool) -> None:
    count = 100_000 if quick else 1_000_000
    for journal in (False, True):
        found = measured("memory", count=count, journal=journal)
        name = f"map of {count:,} lazy items{' with a journal' if journal else ''}"
        report.add(name, found)
        report.goal(f"{name} under 150 MB: {found['peak_mb']:.0f}", found["peak_mb"] < 150)


def join(report: Report, quick: bool) -> None:
    count = 200_000 if quick else 1_000_000
    found = measured("join", count=count)
    report.add(f"join {count:,} lines", found)
    report.goal(f"at least 200,000 lines/s: {found['lines_per_s']:,.0f}", found["lines_per_s"] >= 200_000)
    report.add(f"check {count:,} lines", measured("check", count=count))


def kill(report: Report, quick: bool) -> None:
    count = 2000 if quick else 20_000
    with tempfile.TemporaryDirectory() as directory:
        for durability in ("process", "disk"):
            found = killed(count, 10, 32, durability, directory)
            report.add(f"map of {count:,} killed ten times, {durability}", found)
            report.goal(f"exactly {count:,} lines, each id once", found["lines"] == found["ids"] == count)
            report.goal(
                f"sent twice only what was in flight: {found['sent_twice']:.0f} of {found['allowed_twice']:.0f} allowed",
                found["sent_twice"] <= found["allowed_twice"],
            )


PARTS: dict[str, Callable[[Report, bool], None]] = {
    "uploads": uploads,
    "overhead": overhead,
    "memory": memory,
    "join": join,
    "kill": kill,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller amounts: a minute")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are: {', '.join(PARTS)}")
    report = Report()
    for part in options.parts or PARTS:
        PARTS[part](report, options.quick)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report.figures, file, indent=2)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
