"""
The workloads that are programs of their own: bulk work, limits, the event parser alone.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PROGRAMS", "Program", "run"]


@dataclass(frozen=True, slots=True)
class Program:
    """A module that prints figures; those with goals exit with 1 when one is missed."""

    name: str
    path: str
    module: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)
    """What makes it quick …"""
    full: tuple[str, ...] = ()
    """… and what is only asked for otherwise."""
    has_json: bool = True

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        return None if importlib.util.find_spec(self.module) else f"{self.module} is not there"


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Program("upload", "64 files × 16 MB: CPU per GB, memory", "benchmarks.bulk", ("uploads",)),
        Program(
            "map",
            "what map costs over the bare call, with and without a journal",
            "benchmarks.bulk",
            ("overhead",),
        ),
        Program("map-memory", "a million lazy items: memory", "benchmarks.bulk", ("memory",)),
        Program(
            "map-kill", "a map killed ten times: nothing lost, nothing twice", "benchmarks.bulk", ("kill",)
        ),
        Program("join", "a million lines of a batch's output, joined", "benchmarks.bulk", ("join",)),
        Program(
            "limits",
            "goodput under limits, beside AsyncOpenAI and other laws",
            "benchmarks.limits",
            ("--check",),
            ("--seeds", "1"),
            ("--sockets",),
        ),
        Program("sse", "the event parser alone, by branch", "benchmarks.micro_sse", quick=(), has_json=False),
    )
}
"""They run when named with `-w`, and after the others in a full run."""


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """Runs one, its output going where ours goes; its exit status and the figures it wrote."""
    program = PROGRAMS[name]
    argv = [sys.executable, "-m", program.module, *program.arguments]
    argv += program.quick if quick else program.full
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        if program.has_json:
            argv += ["--json", str(file)]
        status = subprocess.run(argv, check=False).returncode
        figures = json.loads(file.read_text()) if file.exists() else None
    return {"status": status, "figures": figures}
