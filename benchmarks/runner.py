"""
Starts the server and the workers, round by round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from benchmarks import cold
from benchmarks.clients import CLIENTS
from benchmarks.workloads import WORKLOADS

__all__ = ["cores", "run", "server", "serving", "work"]

MARK = "@@"


def cores() -> tuple[int | None, int | None]:
    """A core for the client and another for the server, or (None, None) where the system cannot pin or has but one."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    free = sorted(os.sched_getaffinity(0))
    return (free[0], free[1]) if len(free) > 1 else (None, None)


def server(core: int | None = None) -> AbstractContextManager[int]:
    """The benchmark server in its own process; its port."""
    return serving("-m", "benchmarks.server", *(() if core is None else ("--core", str(core))))


@contextmanager
def serving(*arguments: str) -> Iterator[int]:
    """A server in an interpreter of its own, which prints its port and ends with its standard input; that port."""
    argv = [sys.executable, *arguments]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()  # it ends when this does
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def work(spec: dict[str, Any], patience: float) -> list[dict[str, Any]]:
    """Results of one worker; workloads it did not get to are errors that say why."""
    argv = [sys.executable, "-m", "benchmarks.worker", json.dumps(spec)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=patience)
        out, why = done.stdout, (done.stderr.strip().splitlines() or ["ended early"])[-1]
    except subprocess.TimeoutExpired as exc:
        out = exc.stdout.decode() if isinstance(exc.stdout, bytes) else exc.stdout or ""
        why = f"took more than {patience:.0f} s"
    results = [json.loads(line[len(MARK) :]) for line in out.splitlines() if line.startswith(MARK)]
    ran = {result["workload"] for result in results}
    blank = {"client": spec["client"], "round": spec["round"], "error": why[:300]}
    return results + [{"workload": name, **blank} for name in spec["workloads"] if name not in ran]


def run(
    workloads: Sequence[str],
    clients: Sequence[str],
    *,
    rounds: int,
    quick: bool,
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """
    All results, one for each (workload, client, round).

    Each round visits every client, beginning with another one each time. In a full run every measurement has a process
    of its own; in a quick one a client's unpaced workloads share a process, because starting it (litellm imports for
    seconds) would take longer than measuring.
    """
    client_core, server_core = cores()
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    with server(server_core) as port:
        for number in range(rounds):
            turn = number % len(clients)
            for client in [*clients[turn:], *clients[:turn]]:
                peer = CLIENTS[client]
                if quick and number and peer.heavy >= 20:
                    continue  # what costs a hundred times as much need not be known to a percent
                mine = [
                    WORKLOADS[name]
                    for name in workloads
                    if (not WORKLOADS[name].only or client in WORKLOADS[name].only)
                    and not (quick and number >= (WORKLOADS[name].quick_rounds or rounds))
                ]
                bare = [workload for workload in mine if workload.drive is None]
                shared = [
                    workload.name for workload in mine if workload.drive and quick and not workload.alone
                ]
                single = [
                    [workload.name]
                    for workload in mine
                    if workload.drive and not (quick and not workload.alone)
                ]
                for workload in bare:
                    found = cold.measure(peer, workload.name, port, client_core)
                    results.append({"workload": workload.name, "client": client, "round": number, **found})
                for names in ([shared] if shared else []) + single:
                    spec = {
                        "client": client,
                        "workloads": names,
                        "port": port,
                        "core": client_core,
                        "quick": quick,
                        "round": number,
                    }
                    results += work(spec, patience=120 if quick else 400)
                say(f"{time.monotonic() - began:5.0f} s  round {number + 1} of {rounds}  {client}")
    return results
