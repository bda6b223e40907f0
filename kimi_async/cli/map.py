"""
`kimi-async map`: every request of a file, many at a time.
"""

import asyncio
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .connect import Kimi, asks_kimi, simulated
from .inputs import Source, fields_of, telling_bad_lines
from .options import Fields, IdColumn, Input, Json, Model, Output, Prompt, Quiet, Repair, System
from .screens import Shown, first_interrupt, screen
from .terminal import INTERRUPTED, Failure, duration, explain, facts, notes, print_json, run_async

if TYPE_CHECKING:
    from ..bulk.map import MapProgress, Price
    from ..client import AsyncKimi

__all__ = ["app"]

app: typer.Typer = typer.Typer()

BY_HAND = "interrupted (Ctrl-C)"


@app.command("map")
@asks_kimi(simulator=True)
def map_(
    kimi: Kimi,
    source: Input,
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", "-r", help="Go on where an earlier run with this output stopped.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="With --resume: send every failed request again, not only passing failures.",
        ),
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            help="Requests at once. [default: as limits allow]",
            show_default=False,
        ),
    ] = None,
    tier: Annotated[
        Literal["tier0", "tier1", "tier2", "tier3", "tier4", "tier5"] | None,
        typer.Option(
            "--tier",
            help="Your account's tier, which tells its limits. [default: found out]",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    prompt: Prompt = None,
    system: System = None,
    id_column: IdColumn = None,
    fields: Fields = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream the answers: no silence for a gateway to cut.")
    ] = False,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="When all is done, sort the output like the input.")
    ] = False,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many tokens, in and out.", show_default=False)
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Stop after spending this much; needs --price.", show_default=False),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            help="Money for a million tokens: INPUT,OUTPUT or INPUT,OUTPUT,CACHED. Shows what it costs.",
            show_default=False,
        ),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.999,
            help="Stop when more than this share of the last 100 failed.",
            show_default=False,
        ),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds.", show_default=False)
    ] = None,
    repair: Repair = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """
    Send every request of a file, many at a time, and write the answers as they come.

    Each answer is on disk before it counts: after Ctrl-C, a crash or kill -9, the same command with --resume sends only what
    is missing. The output has the Batch API's format.
    """
    from ..bulk.map import MapOptions, MapStoppedError

    target = output or source.with_suffix(".out.jsonl")
    if target.resolve() == source.resolve():
        raise Failure("the output would overwrite the input; choose another --output")
    if target.exists() and target.stat().st_size and not resume:
        raise Failure(f"{target} exists: add --resume to go on with it, or choose another --output")
    if budget is not None and price is None:
        raise Failure("--budget needs --price: prices change too often to be built in", status=2)
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column)
    options = MapOptions(
        concurrency=concurrency,
        journal=target,
        model=model,
        defaults=fields_of(fields),
        redo="failed" if retry_failed else "transient",
        stream=stream,
        token_budget=budget_tokens,
        cost_budget=budget,
        price=_price(price),
        max_error_rate=max_error_rate,
        deadline=deadline,
        repair=repair,
        total=requests.total(),
        progress_interval=0.25,
    )

    async def work() -> int:
        from ..bulk.map import Map

        stopped: str | None = None
        sim = simulated(pace=0, words=(5, 20)) if kimi.simulator else None
        async with kimi.connected(limits=tier, simulator=sim) as client:
            with screen(quiet) as seen:
                options.on_progress = lambda progress: seen.show(_line(progress, client))
                async with Map(client, requests.requests(), options) as results:

                    def stop() -> None:
                        seen.say("Finishing what is under way. Ctrl-C again gives it up.")
                        results.stop(BY_HAND)

                    with first_interrupt(stop):
                        try:
                            async for _ in results:
                                pass
                        except MapStoppedError as exc:
                            stopped = exc.reason
                    done = results.progress
                    mended = results.mended
        if not quiet:
            if mended:
                notes().print(f"[dim]The journal was mended: {mended}.[/]")
            _summary(done, target)
        if as_json:
            print_json(_measures(done, target, stopped))
        if stopped is None and in_order:
            await asyncio.to_thread(_sort, requests, target)
        if stopped is not None:
            again = shlex.join(["kimi-async", *sys.argv[1:], *([] if resume else ["--resume"])])
            notes().print(f"[yellow]Stopped:[/] {explain(Exception(stopped)).removeprefix('Exception: ')}")
            notes().print(f"Go on with: [cyan]{again}[/]", soft_wrap=True)
            return INTERRUPTED if stopped == BY_HAND else 1
        return 1 if done.failed else 0

    with telling_bad_lines():
        return run_async(work())


def _price(text: str | None) -> "Price | None":
    from ..bulk.map import Price

    if text is None:
        return None
    try:
        numbers = [float(each) for each in text.split(",")]
        return Price(*numbers)
    except (ValueError, TypeError):
        raise Failure(
            f"--price wants INPUT,OUTPUT or INPUT,OUTPUT,CACHED for a million tokens, not {text!r}", status=2
        ) from None


def _sort(source: Source, target: Path) -> None:
    """
    Put the output into the order of the input, in one step.
    """
    from ..bulk.journal import ResultFiles

    temporary = target.with_name(target.name + ".sorted")
    with ResultFiles([target]) as results, open(temporary, "wb") as file:
        for name in source.ids():
            line = results.line(name)
            if line is not None:
                file.write(line + b"\n")
    temporary.replace(target)


def _line(progress: "MapProgress", client: "AsyncKimi") -> Shown:
    done = progress.done + progress.skipped
    parts = [f"{progress.rate:,.1f}/s", f"{progress.token_rate:,.0f} tok/s"]
    if progress.cost is not None:
        parts.append(f"cost {progress.cost:,.4g}")
    if progress.failed:
        parts.append(f"[red]{progress.failed:,} failed[/]")
    stats = client.limiter.stats()
    limit = stats.concurrency.limit
    parts.append(f"{stats.in_flight}{f'/{limit:g}' if limit is not None else ''} at once")
    if stats.waiting_for is not None and stats.waiting_for != "concurrency":
        parts.append(f"[yellow]waiting for {stats.waiting_for}[/]")
    return Shown(done, progress.total, " · ".join(parts), progress.eta)


def _summary(done: "MapProgress", target: Path) -> None:
    rows: list[tuple[str, str]] = [
        ("answered", f"{done.ok:,}"),
        ("failed", f"{done.failed:,}"),
        *(
            (f"  {name}", f"{count:,}")
            for name, count in sorted(done.errors.items(), key=lambda item: -item[1])
        ),
    ]
    if done.skipped:
        rows.append(("answered before", f"{done.skipped:,}"))
    rows += [
        ("tokens in", f"{done.prompt_tokens:,}"),
        ("tokens out", f"{done.completion_tokens:,}"),
    ]
    if done.cost is not None:
        rows.append(("cost", f"{done.cost:,.4f}"))
    rows.append(("time", duration(done.elapsed)))
    if done.elapsed > 0:
        rows.append(("rate", f"{done.done / done.elapsed:,.1f} requests/s"))
    rows.append(("output", str(target)))
    facts(rows)


def _measures(done: "MapProgress", target: Path, stopped: str | None) -> dict[str, object]:
    return {
        "answered": done.ok,
        "failed": done.failed,
        "errors": dict(done.errors),
        "answered_before": done.skipped,
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "cost": done.cost,
        "seconds": round(done.elapsed, 3),
        "output": str(target),
        "stopped": stopped,
    }
