"""`kimi-async simulate`: the embedded simulator, alone, with a line for each request."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from .connect import simulated
from .options import Quiet
from .terminal import Failure, notes, run_async, size

if TYPE_CHECKING:
    from ..testing import FaultPlan, RecordedRequest

__all__ = ["app", "log_line"]

app: typer.Typer = typer.Typer()


@app.command()
def simulate(
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 for any that is free.")
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine can reach the default.")
    ] = "127.0.0.1",
    exposed: Annotated[
        bool, typer.Option("--exposed", help="Let --host be one that other machines can reach.")
    ] = False,
    pace: Annotated[
        float, typer.Option(min=0, help="Tokens a second that the model writes; 0 for as fast as it can.")
    ] = 40.0,
    first_token: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds before its first token.",
            show_default="0.3, or 0 with --pace 0",
        ),
    ] = None,
    words: Annotated[
        tuple[int, int], typer.Option(min=1, metavar="LEAST MOST", help="How long an answer is.")
    ] = (40, 120),
    seed: Annotated[int, typer.Option(help="Changes every text.")] = 0,
    api_key: Annotated[str, typer.Option(help="The one key that opens it.")] = "sk-simulator",
    limits: Annotated[
        Literal["tier0", "tier1", "tier2", "tier3", "tier4", "tier5"] | None,
        typer.Option(
            metavar="TIER", help="Refuse as Kimi does in this tier, tier0 to tier5.", show_default="no limits"
        ),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(
            help='A JSON list of troubles, one a chat request, such as {"fault": "drop"} or null.',
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    random_faults: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Trouble in half of the requests.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """
    Be a Kimi server for programs on this machine, until Ctrl-C.

    It answers deterministically and costs nothing. The two lines it prints point a program at it; each request is a line on
    standard error.
    """
    if faults is not None and random_faults is not None:
        raise Failure("--faults or --random-faults, not both", status=2)
    plan = _plan(faults, random_faults)

    async def work() -> None:
        # SIGTERM is how a script or a container says Ctrl-C.
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = simulated(
            host=host,
            port=port,
            exposed=exposed,
            pace=pace,
            first_token=first_token,
            words=words,
            seed=seed,
            api_key=api_key,
            limits=limits,
            faults=plan,
            on_finished=None if quiet else _log(notes(), loop.time),
        )
        try:
            await server.start()
        except OSError as exc:
            other = "; -p 0 takes any that is free" if port else ""
            reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc)
            raise Failure(f"cannot listen on {host}:{port}: {reason}{other}") from exc
        try:
            # Lines for `eval`, flushed: whoever started us is waiting for them.
            print(f"export KIMI_BASE_URL={server.base_url}")
            print(f"export KIMI_API_KEY={server.api_key}")
            sys.stdout.flush()
            if not quiet:
                notes().print("[dim]Simulating Kimi for programs on this machine. Ctrl-C stops it.[/]")
            await stop.wait()
        finally:
            await server.close()

    run_async(work())


def _plan(path: Path | None, seed: int | None) -> "FaultPlan | None":
    from ..testing import FaultPlan

    if seed is not None:
        return FaultPlan.random(seed)
    if path is None:
        return None
    try:
        return FaultPlan.from_json(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Failure(f"--faults {path}: {exc}", status=2) from None


def _log(out: Console, clock: Callable[[], float]) -> "Callable[[RecordedRequest], None]":
    def tell(record: "RecordedRequest") -> None:
        text, style = log_line(record, clock() - record.at)
        out.print(Text(f"{time.strftime('%H:%M:%S')} {text}", style), soft_wrap=True)

    return tell


def log_line(record: "RecordedRequest", seconds: float) -> tuple[str, str]:
    """What became of a request, in one line, and rich's style for it."""
    parts = [
        f"{record.status or '---'} {record.method} {record.path}",
        f"{seconds:.2f} s",
    ]
    if record.body:
        parts.append(size(len(record.body)))
    if record.events:
        parts.append(f"{record.events} events")
    if record.faults:
        parts.append(f"fault: {', '.join(record.faults)}")
    if record.client_gone:
        parts.append("the client left")
    style = "" if 200 <= record.status < 400 and not record.client_gone else "yellow"
    return " · ".join(parts), style
