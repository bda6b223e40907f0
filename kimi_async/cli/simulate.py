"""
`kimi-async simulate`: the embedded simulator, alone.
"""

import asyncio
import signal
import sys

from .connect import simulated
from .terminal import Failure, notes, run_async

__all__ = ["main"]


def main(*, host: str, port: int, pace: float, exposed: bool) -> None:
    async def work() -> None:
        # SIGTERM is how a script or a container says Ctrl-C.
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        try:
            async with simulated(host=host, port=port, pace=pace, exposed=exposed) as sim:
                # Lines for `eval`, flushed: whoever started us is waiting for them.
                print(f"export KIMI_BASE_URL={sim.base_url}")
                print(f"export KIMI_API_KEY={sim.api_key}")
                sys.stdout.flush()
                notes().print("[dim]Simulating Kimi for programs on this machine. Ctrl-C stops it.[/]")
                await stop.wait()
        except OSError as exc:
            raise Failure(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc

    run_async(work())
