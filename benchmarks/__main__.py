"""
`python -m benchmarks`: which workloads, which clients, how many rounds; and what to do with the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, programs, report
from benchmarks.clients import CLIENTS
from benchmarks.picture import picture
from benchmarks.programs import PROGRAMS
from benchmarks.runner import run
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare kimi_async with what one would use instead, on this machine.",
        epilog="Workloads and clients: --list. What the figures mean: benchmarks/README.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="smaller amounts, two rounds: within five minutes on two cores")
    add(
        "--workload",
        "-w",
        action="append",
        metavar="NAME",
        choices=[*WORKLOADS, *PROGRAMS],
        help="only this one (repeatable)",
    )
    add("--client", "-c", action="append", metavar="NAME", choices=CLIENTS, help="only this one (repeatable)")
    add("--rounds", "-r", type=int, default=None, metavar="N", help="default 5, with --quick 2")
    add("--json", type=Path, metavar="FILE", help="write all results there")
    add("--markdown", type=Path, metavar="FILE", help="write the table there")
    add("--svg", type=Path, metavar="FILE", help="write the picture there")
    add("--check", action="store_true", help="compare with the goals; exit status 1 if one is missed")
    add(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="do not measure: read the results of a --json",
    )
    add("--list", action="store_true", help="show workloads and clients, and what is not installed")
    return parser.parse_args(argv)


def _list() -> None:
    print("workloads (* not in --quick)")
    for workload in WORKLOADS.values():
        print(f"  {workload.name + ('' if workload.quick else '*'):<12} {workload.path}")
    print("programs (only when named, or without --quick)")
    for program in PROGRAMS.values():
        missing = program.missing()
        print(f"  {program.name:<12} {program.path}{f'  [skipped: {missing}]' if missing else ''}")
    print("clients")
    for name, peer in CLIENTS.items():
        missing = peer.missing()
        print(f"  {name:<18} {peer.label}{f'  [skipped: {missing}]' if missing else ''}")


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    chosen = options.workload or [
        *(name for name, work in WORKLOADS.items() if work.quick or not options.quick),
        *(() if options.quick else PROGRAMS),
    ]
    workloads = [name for name in chosen if name in WORKLOADS]
    clients = []
    skipped = {}
    for name in options.client or CLIENTS:
        missing = CLIENTS[name].missing()
        if missing:
            skipped[name] = missing
            print(f"skipping {name}: {missing}", file=sys.stderr)
        else:
            clients.append(name)
    rounds = options.rounds or (2 if options.quick else 5)
    results = (
        run(
            workloads,
            clients,
            rounds=rounds,
            quick=options.quick,
            say=lambda line: print(line, file=sys.stderr),
        )
        if workloads
        else []
    )
    ran = {}
    for name in chosen:
        if name in PROGRAMS:
            missing = PROGRAMS[name].missing()
            if missing:
                print(f"skipping {name}: {missing}", file=sys.stderr)
            else:
                print(f"\n{name}: {PROGRAMS[name].path}", flush=True)
                ran[name] = programs.run(name, quick=options.quick)
    return {
        "machine": report.machine(),
        "rounds": rounds,
        "quick": options.quick,
        "versions": {name: CLIENTS[name].versions() for name in clients},
        "skipped": skipped,
        "results": results,
        "programs": ran,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; with `--check`, 1 if a goal was missed."""
    options = _options(argv)
    if options.list:
        _list()
        return 0
    found = json.loads(options.source.read_text()) if options.source else _measure(options)
    results = found["results"]
    table = report.summary(results)
    notes = {
        (result["workload"], result["client"]): result.get("error") or result.get("skipped")
        for result in results
        if "error" in result or "skipped" in result
    }
    text = report.markdown(table, notes, found["versions"])
    if results:
        print(text)
        at = found["machine"]
        print(
            f"{at['processor']}, {at['cores']} cores, {at['system']}, {at['python']}; {found['rounds']} rounds, medians."
        )
        busiest = max((result.get("server_busy", 0.0) for result in results), default=0.0)
        print(f"The server's core was at most {busiest:.0%} busy.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)
    if options.svg:
        options.svg.write_text(picture(table))
    if not options.check:
        return 0
    verdicts = goals.check(results)
    print("\n".join(report.verdicts_in_words(verdicts)))
    missed = [verdict for verdict in verdicts if verdict.value is not None and not verdict.met]
    failed = [name for name, made in found.get("programs", {}).items() if made["status"]]
    for name in failed:
        print(f"MISS  {name}: see its output")
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
