"""
How the cost of a client grows: `python -m benchmarks.scale`.

Four series, each in processes of their own: deltas a second over many streams, the same where only the end of each is wanted, streams
held open, and calls in a row; then the same load in one process and in several. A straight line is fitted to each, and its residual printed beside it:
`benchmarks/SCALE.md` extrapolates from these lines and from nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.clients import CLIENTS
from benchmarks.runner import cores, server, work

__all__ = ["Line", "line", "main"]

STREAMS = (10, 30, 100, 300, 600, 1_000)
"""Streams at 20 tokens/s in the first series."""
ENDS = (100, 300, 900)
"""Streams at 50 tokens/s that are read for nothing but their end, in the second."""
OPEN = (1_000, 3_000, 9_000)
"""Streams open at once in the third."""
CALLS = (500, 5_000, 20_000)
"""Calls in a row in the fourth."""
PROCESSES = (1, 2, 4)
"""Processes that share 400 streams at 20 tokens/s in the last."""


class Line(tuple[float, float, float]):
    """y = a + b·x by least squares, and r, the largest distance of a point from it, as a share of the largest y."""

    __slots__ = ()

    @property
    def a(self) -> float:
        return self[0]

    @property
    def b(self) -> float:
        return self[1]

    @property
    def residual(self) -> float:
        return self[2]


def line(points: Sequence[tuple[float, float]]) -> Line:
    """The line through at least two points with different x; ValueError for fewer."""
    fit = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    worst = max(abs(y - fit.intercept - fit.slope * x) for x, y in points)
    return Line((fit.intercept, fit.slope, worst / max(abs(y) for _, y in points)))


def _one(client: str, port: int, workload: str, patience: float, **override: Any) -> dict[str, Any]:
    spec = {
        "client": client,
        "workloads": [workload],
        "port": port,
        "core": cores()[0],
        "quick": False,
        "round": 0,
        "override": override,
    }
    (result,) = work(spec, patience=patience)
    if "error" in result:
        print(f"  {client} {workload} {override}: {result['error']}", file=sys.stderr)
    return result


def measure(client: str, port: int) -> dict[str, Any]:
    """All series of one client."""
    found: dict[str, Any] = {"deltas": [], "ends": [], "open": [], "calls": [], "processes": []}
    for streams in STREAMS:
        result = _one(client, port, "trickle", 120, streams=streams, size=60)
        if "error" not in result:
            found["deltas"].append(
                (streams * 20, result["core_share"], result["cpu_us"], result["server_busy"])
            )
            print(f"  {client}: {streams} streams × 20/s: {result['cpu_us']:.1f} µs a delta", file=sys.stderr)
    for streams in ENDS:
        result = _one(client, port, "final", 120, streams=streams)
        if "error" not in result:
            found["ends"].append((streams * 50, result["core_share"], result["cpu_us"]))
            print(
                f"  {client}: {streams} streams for their end: {result['cpu_us']:.1f} µs a delta",
                file=sys.stderr,
            )
    for streams in OPEN:
        result = _one(client, port, "many", 300, size=streams)
        if "error" not in result:
            found["open"].append((streams, result["kb_each"] * streams / 1024, result["failed"]))
            print(f"  {client}: {streams} open: {result['kb_each']:.1f} KiB each", file=sys.stderr)
    for count in CALLS:
        result = _one(client, port, "small", 300, size=count // 2)  # half of them are the warm-up
        if "error" not in result:
            found["calls"].append((count, result["cpu_us"]))
            print(f"  {client}: {count} calls: {result['cpu_us']:.0f} µs each", file=sys.stderr)
    for processes in PROCESSES:
        with ThreadPoolExecutor(processes) as pool:
            each = [
                # A seed of its own, so that the server does not take the streams of two processes for one group.
                pool.submit(_one, client, port, "trickle", 120, streams=400 // processes, size=60, seed=seed)
                for seed in range(processes)
            ]
            results = [future.result() for future in each]
        if all("error" not in result for result in results):
            share = sum(result["core_share"] for result in results)
            cost = statistics.fmean(result["cpu_us"] for result in results)
            found["processes"].append((processes, share, cost))
            print(f"  {client}: 400 streams in {processes} processes: {cost:.1f} µs a delta", file=sys.stderr)
    return found


def markdown(found: dict[str, Any]) -> str:
    """The series and their lines."""
    lines: list[str] = []
    for client, series in found.items():
        lines += [f"### {client}", ""]
        if series["deltas"]:
            lines += ["| deltas/s | share of a core | CPU per delta |", "|---:|---:|---:|"]
            lines += [
                f"| {rate:,} | {share:.1%} | {cost:.1f} µs |" for rate, share, cost, _ in series["deltas"]
            ]
            fit = line([(rate, share) for rate, share, *_ in series["deltas"]])
            lines += [
                "",
                f"Share of a core = {fit.a:.3f} + {fit.b * 1e6:.1f} µs × deltas/s (residual {fit.residual:.0%}): a core is "
                f"full at {(1 - fit.a) / fit.b:,.0f} deltas/s, {(1 - fit.a) / fit.b / 50:,.0f} streams of 50 tokens/s.",
                "",
            ]
        if series["ends"]:
            lines += [
                "| deltas/s, only the end wanted | share of a core | CPU per delta |",
                "|---:|---:|---:|",
            ]
            lines += [f"| {rate:,} | {share:.1%} | {cost:.1f} µs |" for rate, share, cost in series["ends"]]
            lines += [""]
        if series["open"]:
            lines += ["| streams open | memory | failed |", "|---:|---:|---:|"]
            lines += [
                f"| {count:,} | {memory:.1f} MiB | {failed:.0f} |" for count, memory, failed in series["open"]
            ]
            fit = line([(count, memory) for count, memory, _ in series["open"]])
            lines += [
                "",
                f"Memory = {fit.a:.1f} MiB + {fit.b * 1024:.1f} KiB × streams (residual {fit.residual:.0%}): a GiB holds "
                f"{(1024 - fit.a) / fit.b:,.0f}.",
                "",
            ]
        if series["calls"]:
            lines += ["| calls in a row | CPU per call |", "|---:|---:|"]
            lines += [f"| {count:,} | {cost:.0f} µs |" for count, cost in series["calls"]]
            lines += [""]
        if series["processes"]:
            lines += [
                "| processes for 400 streams × 20/s | share of a core, together | CPU per delta |",
                "|---:|---:|---:|",
            ]
            lines += [
                f"| {count} | {share:.1%} | {cost:.1f} µs |" for count, share, cost in series["processes"]
            ]
            lines += [""]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints Markdown, and writes the points where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="How a client's cost grows."
    )
    parser.add_argument("--client", "-c", action="append", choices=CLIENTS, metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all points there")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {}
    with server(cores()[1]) as port:
        for client in options.client or ["kimi-async", "kimi-async-uvloop", "floor"]:
            missing = CLIENTS[client].missing()
            if missing:
                print(f"skipping {client}: {missing}", file=sys.stderr)
            else:
                found[client] = measure(client, port)
    print(markdown(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
