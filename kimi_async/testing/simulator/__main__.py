"""
`python -m kimi_async.testing.simulator`: a simulated Kimi until Ctrl-C.
"""

import argparse
import asyncio
import importlib
import signal
from collections.abc import Sequence
from pathlib import Path

from ..faults import FaultPlan
from .replies import Pace
from .server import KimiSimulator
from .server_limits import TIERS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted. The first line printed is the base URL."""
    parser = argparse.ArgumentParser(
        prog="python -m kimi_async.testing.simulator",
        description="A Kimi server on loopback. Prints its base URL, then serves until interrupted.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--exposed", action="store_true", help="let --host be one that other machines reach")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose (default)")
    parser.add_argument(
        "--api-key", default="sk-simulator", help="the one key that opens it (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="changes every text")
    parser.add_argument("--words", type=int, nargs=2, default=(40, 120), metavar=("LEAST", "MOST"))
    trouble = parser.add_argument_group("trouble")
    trouble.add_argument("--limits", choices=sorted(TIERS), help="refuse as this tier does")
    trouble.add_argument(
        "--faults", type=Path, metavar="FILE", help="a FaultPlan as JSON, one entry per chat request"
    )
    trouble.add_argument(
        "--random-faults", type=int, metavar="SEED", help="a random fault in half of the requests"
    )
    pace = parser.add_argument_group("pace (default: as fast as it can)")
    pace.add_argument("--headers-delay", type=float, default=0.0, metavar="SECONDS")
    pace.add_argument("--first-token", type=float, default=0.0, metavar="SECONDS")
    pace.add_argument("--tokens-per-second", type=float, default=0.0, metavar="N")
    pace.add_argument("--tokens-per-chunk", type=int, default=1, metavar="N")
    pace.add_argument("--events-per-write", type=int, default=1, metavar="N")
    parser.add_argument("--uvloop", action="store_true", help="serve on uvloop, if it is installed")
    options = parser.parse_args(arguments)
    factory = None
    if options.uvloop:
        factory = importlib.import_module("uvloop").new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(options))
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(options: argparse.Namespace) -> None:
    faults: FaultPlan | None = None
    if options.faults is not None:
        faults = FaultPlan.from_json(options.faults.read_bytes())
    elif options.random_faults is not None:
        faults = FaultPlan.random(options.random_faults)
    server = KimiSimulator(
        limits=options.limits,
        faults=faults,
        host=options.host,
        exposed=options.exposed,
        port=options.port,
        api_key=options.api_key,
        seed=options.seed,
        words=tuple(options.words),
        pace=Pace(
            options.headers_delay,
            options.first_token,
            options.tokens_per_second,
            options.tokens_per_chunk,
            options.events_per_write,
        ),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: the interrupt arrives as KeyboardInterrupt
            pass
    async with server:
        print(server.base_url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    raise SystemExit(main())
