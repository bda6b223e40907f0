"""
Beside the loop written by hand, on each Python that is found: `python -m benchmarks.pythons`.

Each interpreter gets a virtual environment of its own with this checkout and uvloop, and rounds go round the interpreters. A cell is
the median of the rounds' ratios, `!` behind it where it is above the goal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import by_hand, check

__all__ = ["interpreters", "main", "table"]

_MINORS = range(11, 20)
_WORKLOADS = [*dict.fromkeys(goal.workload for goal in by_hand())]
_CLIENTS = ("kimi-async", "floor", "kimi-async-uvloop", "floor-uvloop")
_ROOT = Path(__file__).parent.parent


def interpreters() -> dict[str, str]:
    """`3.11` and so on to a CPython of that version that can make environments: on PATH, of pyenv, or this one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in _MINORS:
        ours = sys.executable if sys.version_info[:2] == (3, minor) else None
        for candidate in (
            ours,
            shutil.which(f"python3.{minor}"),
            *sorted(versions.glob(f"3.{minor}.*/bin/python")),
        ):
            if candidate and _is(str(candidate), minor):
                found[f"3.{minor}"] = str(candidate)
                break
    return found


def _is(python: str, minor: int) -> bool:
    asked = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    return subprocess.run([python, "-c", asked], capture_output=True, check=False).returncode == 0


def _environment(python: str, at: Path) -> str:
    """The interpreter of a virtual environment with this checkout, made where it is not there yet."""
    inside = at / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", str(at)], check=True)
        wanted = ["--editable", f"{_ROOT}[uvloop]"]
        subprocess.run([str(inside), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(inside)


def _round(python: str, workloads: Sequence[str], quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        argv = [python, "-m", "benchmarks", "--rounds", "1", "--json", str(file)]
        argv += ["--quick"] if quick else []
        for name in workloads:
            argv += ["--workload", name]
        for name in _CLIENTS:
            argv += ["--client", name]
        subprocess.run(argv, cwd=_ROOT, capture_output=True, check=True)
        return list(json.loads(file.read_text())["results"])


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """
    Results by interpreter as Markdown, two rows each: asyncio and uvloop; a column for each goal beside the hand-written loop.

    The last column is the memory of one of 1,000 open streams (300 with `--quick`) in KiB.
    """
    names = [f"{goal.workload} (≤ {goal.at_most:g})" for goal in by_hand()]
    lines = [
        "| Python | " + " | ".join([*names, "KiB a stream"]) + " |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for version, results in found.items():
        for uvloop in (False, True):
            cells = []
            for verdict in check(results, by_hand(uvloop)):
                text = "–" if verdict.value is None else f"{verdict.value:.2f}"
                cells.append(text if verdict.value is None or verdict.met else f"{text} !")
            client = "kimi-async-uvloop" if uvloop else "kimi-async"
            sizes = [
                result["kb_each"] for result in results if result["client"] == client and "kb_each" in result
            ]
            cells.append(f"{sum(sizes) / len(sizes):.1f}" if sizes else "–")
            lines.append(f"| {version}{', uvloop' if uvloop else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, whatever the figures; 1 where no interpreter is found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pythons",
        description="Beside the loop written by hand, on each Python that is found.",
    )
    parser.add_argument(
        "--python", "-p", action="append", metavar="3.N", help="only this version (repeatable)"
    )
    parser.add_argument("--workload", "-w", action="append", metavar="NAME", choices=[*_WORKLOADS, "many"])
    parser.add_argument("--rounds", "-r", type=int, default=3, metavar="N")
    parser.add_argument("--full", action="store_true", help="larger amounts")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument(
        "--environments", type=Path, metavar="DIRECTORY", help="keep the environments there, to be used again"
    )
    options = parser.parse_args(argv)
    found = {
        version: python
        for version, python in interpreters().items()
        if not options.python or version in options.python
    }
    if not found:
        print("none of the Pythons was found", file=sys.stderr)
        return 1
    results: dict[str, list[dict[str, Any]]] = {version: [] for version in found}
    with tempfile.TemporaryDirectory() as directory:
        kept = options.environments or Path(directory)
        environments = {version: _environment(python, kept / version) for version, python in found.items()}
        for number in range(options.rounds):
            for version, python in environments.items():
                made = _round(python, options.workload or [*_WORKLOADS, "many"], not options.full)
                results[version] += [{**result, "round": number} for result in made]
                print(f"round {number + 1} of {options.rounds}, {version}", file=sys.stderr)
    text = table(results)
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
