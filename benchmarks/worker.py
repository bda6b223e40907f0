"""
One process that measures: `python -m benchmarks.worker SPEC`, started by the runner.

SPEC is JSON: the client, the workloads, the server's port, the core, and what to change in the workloads (`override`). Each result is one line of standard output that
begins with `@@`; anything else there is some library's chatter.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import sys
import warnings
from dataclasses import replace
from typing import Any

import msgspec

from benchmarks.clients import CLIENTS
from benchmarks.clients.base import Unsupported
from benchmarks.measure import pin, raise_descriptor_limit, settle_memory
from benchmarks.workloads import WORKLOADS, Bench

__all__ = ["MARK", "main"]

MARK = "@@"


class Control:
    """The server's control paths, over one blocking connection that is opened before anything is counted."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def _get(self, path: str) -> dict[str, float]:
        self._connection.request("GET", path)
        return msgspec.json.decode(self._connection.getresponse().read(), type=dict[str, float])

    def stats(self) -> dict[str, float]:
        """CPU seconds so far, connections accepted, connections open."""
        return self._get("/_stats")

    def prepare(self, shape: str) -> None:
        """Renders a shape; the server's CPU is counted from here."""
        self.prepared = self._get("/_prepare/" + shape)["cpu"]


def _run(client: str, name: str, bench: Bench, control: Control, override: dict[str, Any]) -> dict[str, Any]:
    peer, workload = CLIENTS[client], replace(WORKLOADS[name], **override)
    assert workload.drive is not None
    try:
        if peer.loop == "uvloop":
            import uvloop

            found = uvloop.run(workload.drive(peer, bench, workload))  # type: ignore[arg-type]
        else:
            found = asyncio.run(workload.drive(peer, bench, workload))  # type: ignore[arg-type]
    except Unsupported as exc:
        return {"skipped": str(exc) or "not offered"}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"[:300]}
    # The server's share of its core, the warm-up's requests included: at most this busy.
    server = bench.stats()["cpu"] - control.prepared
    return {**found, "server_busy": server / found["wall_s"]}


def main() -> None:
    """Measures what the spec names."""
    spec = msgspec.json.decode(sys.argv[1])
    pin(spec["core"])
    raise_descriptor_limit()
    settle_memory()
    os.environ.update(CLIENTS[spec["client"]].environment)
    warnings.simplefilter("ignore")
    control = Control(spec["port"])
    bench = Bench(spec["port"], spec["quick"], control.stats, control.prepare)
    for name in spec["workloads"]:
        result = {
            "workload": name,
            "client": spec["client"],
            "round": spec["round"],
            **_run(spec["client"], name, bench, control, spec.get("override", {})),
        }
        print(MARK + msgspec.json.encode(result).decode(), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
