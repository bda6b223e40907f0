"""
Results as JSON, as a Markdown table, and in words.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.clients import CLIENTS
from benchmarks.goals import Verdict
from benchmarks.measure import spread
from benchmarks.workloads import WORKLOADS

__all__ = ["figure", "machine", "markdown", "summary", "verdicts_in_words"]

Summary = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def machine() -> dict[str, Any]:
    """What the figures were made on, as far as the system tells; no name of the host."""
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(
                (line.partition(":")[2].strip() for line in file if line.startswith("model name")), ""
            )
    except OSError:
        model = platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": model,
        "cores": cores,
        "load": load,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
    }


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Workload → client → figure → median, low, high over the rounds."""
    collected: dict[str, dict[str, dict[str, list[float]]]] = {}
    for result in results:
        for metric, value in result.items():
            if metric != "round" and isinstance(value, int | float):
                into = collected.setdefault(result["workload"], {}).setdefault(result["client"], {})
                into.setdefault(metric, []).append(float(value))
    return {
        workload: {
            client: {metric: spread(values) for metric, values in metrics.items()}
            for client, metrics in clients.items()
        }
        for workload, clients in collected.items()
    }


_UNITS = {
    "cpu_us": "µs",
    "p50_us": "µs",
    "gap_p99_ms": "ms",
    "worst_ms": "ms",
    "kb_each": "KiB",
    "cpu_ms": "ms",
    "connections": "",
}


def figure(value: float, metric: str = "") -> str:
    """A number with three significant digits and its unit."""
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    if metric == "connections":
        text = f"{value:.0f}"
    return f"{text} {_UNITS.get(metric, '')}".rstrip()


def markdown(
    found: Summary, notes: Mapping[tuple[str, str], str], versions: Mapping[str, Mapping[str, str]]
) -> str:
    """A table with a row for each workload and a column for each client; the notes that explain its gaps below it."""
    noted = {client for _, client in notes}
    clients = [name for name in CLIENTS if name in noted or any(name in row for row in found.values())]
    lines = [
        "| workload | " + " | ".join(clients) + " |",
        "|---|" + "---:|" * len(clients),
    ]
    footnotes: list[str] = []
    for name, workload in WORKLOADS.items():
        if name not in found and not any(name == noted_name for noted_name, _ in notes):
            continue
        cells = []
        for client in clients:
            metrics = found.get(name, {}).get(client)
            if metrics and workload.metric in metrics:
                middle = metrics[workload.metric]
                cells.append(figure(middle["median"], workload.metric))
            elif (name, client) in notes:
                footnotes.append(f"{client}, {name}: {' '.join(notes[name, client].split())[:160]}")
                cells.append(f"– [{len(footnotes)}]")
            else:
                cells.append("–")
        label = {
            "gap_p99_ms": "added p99 gap",
            "worst_ms": "worst delay",
            "kb_each": "memory",
            "p50_us": "wall",
            "connections": "connections",
        }
        lines.append(
            f"| {name} ({label.get(workload.metric, 'CPU')} per {workload.unit}) | "
            + " | ".join(cells)
            + " |"
        )
    lines += ["", *(f"[{number}] {note}  " for number, note in enumerate(footnotes, 1))]
    lines += [
        "",
        "Versions: "
        + "; ".join(
            f"{client}: {', '.join(f'{package} {number}' for package, number in made.items())}"
            for client, made in versions.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def verdicts_in_words(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each goal that could be judged, and at the end how many could not."""
    lines = []
    unjudged = [verdict for verdict in verdicts if verdict.value is None]
    for verdict in verdicts:
        goal = verdict.goal
        if verdict.value is None:
            continue
        bound, value = f"{goal.at_most:.3g}", f"{verdict.value:.3g}"
        if goal.against and goal.at_most < 1:
            bound, value = f"1/{1 / goal.at_most:.3g}", f"1/{1 / verdict.value:.3g}"
        lines.append(f"{'  ok' if verdict.met else 'MISS'}  {goal.text}: {value} (at most {bound})")
    if unjudged:
        lines.append(f"   ?  {len(unjudged)} not judged, the first because {unjudged[0].why}")
    return lines
