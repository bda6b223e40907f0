"""
`python -m benchmarks.limits`: the limiter beside what else one would use, against its goals.

Virtual time by default; `--sockets` adds `AsyncOpenAI` and this package on a real loopback server.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.limits.draw import drawing
from benchmarks.limits.experiments import EXPERIMENTS, OURS, Experiment, Measured, measure
from benchmarks.limits.laws import LAWS

__all__ = ["main"]


def _row(name: str, runs: list[Measured]) -> str:
    median = statistics.median
    notes = "; ".join(
        f"{key} {median([run.notes[key] for run in runs]):,.4g}" for key in (runs[0].notes if runs else {})
    )
    return (
        f"| {name} | {100 * median([run.goodput for run in runs]):.1f} % | {median([run.refused for run in runs]):.3f} "
        f"| {median([run.lost for run in runs]):,.0f} | {median([run.seconds for run in runs]):,.1f} | {notes} |"
    )


def _missed(experiment: Experiment, runs: list[Measured]) -> list[str]:
    missed: list[str] = []
    for run in runs:
        if run.lost:
            missed.append(f"{experiment.name}: {run.client} lost {run.lost}")
        if experiment.goal is not None and run.client == OURS:
            goodput, refused = experiment.goal
            if run.goodput < goodput:
                missed.append(f"{experiment.name}: goodput {run.goodput:.3f} < {goodput}")
            if run.refused > refused:
                missed.append(f"{experiment.name}: {run.refused:.3f} refused a success > {refused}")
        if run.client.endswith("configured") and run.refused:
            missed.append(f"{experiment.name}: configured, and {run.refused:.4f} refused a success")
    return missed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("-e", "--experiment", action="append", choices=[each.name for each in EXPERIMENTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=101)
    parser.add_argument("--only-ours", action="store_true", help="leave the other laws out")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a goal is missed")
    parser.add_argument("--svg", type=Path, help="draw the tier 5 experiment here")
    parser.add_argument("--json", type=Path, help="all figures")
    parser.add_argument("--sockets", action="store_true", help="300 calls and ten slots on real sockets, too")
    options = parser.parse_args(arguments)
    missed: list[str] = []
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    for experiment in EXPERIMENTS:
        if options.experiment and experiment.name not in options.experiment:
            continue
        clients = [OURS]
        if experiment.known is not None:
            clients.append(f"{OURS}, configured")
        if not options.only_ours:
            clients += list(LAWS)
        print(f"\n### {experiment.title}\n", flush=True)
        print("| | of the quota | refused a success | lost | s | |\n|---|---|---|---|---|---|")
        drawn: list[Measured] = []
        for client in clients:
            runs = [
                measure(experiment, client, options.first_seed + number) for number in range(options.seeds)
            ]
            print(_row(client, runs), flush=True)
            missed += _missed(experiment, runs) if client.startswith(OURS) else []
            drawn.append(runs[0])
            figures.setdefault(experiment.name, {})[client] = [
                {
                    "goodput": run.goodput,
                    "refused": run.refused,
                    "lost": run.lost,
                    "seconds": run.seconds,
                    **run.notes,
                }
                for run in runs
            ]
        if options.svg is not None and experiment.name == "tier5":
            order = [OURS, f"{OURS}, configured", "AWS CUBIC", "AIMD", "openai-sdk"]
            runs = [run for name in order for run in drawn if run.client == name]
            options.svg.write_text(
                drawing(experiment.title + ", nothing known", runs, experiment.duration, 300)
            )
    if options.sockets:
        from benchmarks.limits.sockets import compare

        missed += compare()
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    for line in missed:
        print(f"MISSED {line}")
    if not missed:
        print("\nall goals met")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
