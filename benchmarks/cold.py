"""
Import and first call, each in an interpreter that has loaded nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.clients.base import Peer

__all__ = ["measure"]

# Figures are taken before `json` is imported, which is only needed to print them.
_IMPORT = """
import os, sys, time
if CORE is not None and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {CORE})
def resident():
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
memory, modules = resident(), len(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
"""

_PRINT = """
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
memory, modules = resident() - memory, len(sys.modules) - modules
import json
print("@@" + json.dumps({"cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3, "memory_mb": memory / 2**20, "modules": modules}))
os._exit(0)  # what a library does at exit is not its import
"""


def measure(peer: type[Peer], workload: str, port: int, core: int | None) -> dict[str, float | str]:
    """CPU and wall milliseconds, resident MiB and modules that one import (`import`) or one first call (`cold`) adds."""
    if workload == "cold":
        act = f"""
import asyncio
from benchmarks.clients.{peer.__module__.rpartition(".")[2]} import {peer.__name__}
async def first():
    client = {peer.__name__}("http://127.0.0.1:{port}/reply")
    await client.open()
    await client.call([{{"role": "user", "content": "hello"}}])
{"import uvloop; uvloop.run(first())" if peer.loop == "uvloop" else "asyncio.run(first())"}
"""
    else:
        act = peer.imports
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT.replace("CORE", str(core)) + act + _PRINT],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | peer.environment,
    )
    for line in done.stdout.splitlines():
        if line.startswith("@@"):
            return json.loads(line[2:])  # type: ignore[no-any-return]
    return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
