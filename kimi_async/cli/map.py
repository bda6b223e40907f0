"""`kimi-async map`: every request of a file, many at a time."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from ..errors import ConfigurationError
from .connect import Kimi, asks_kimi, naming_models, simulated
from .inputs import Source, fields_of, output_beside, telling_bad_lines
from .limits import Quota, SharedBy
from .options import Fields, IdColumn, Input, Json, Model, Output, Prompt, Quiet, Repair, System
from .screens import Shown, interrupts, screen, shown_meanwhile
from .terminal import (
    INTERRUPTED,
    Failure,
    duration,
    explain,
    facts,
    notes,
    plural,
    print_json,
    run_async,
    size,
)
from .words import in_our_words

if TYPE_CHECKING:
    from ..bulk.map import Map, MapOptions, MapProgress, TokenPrice
    from ..client import AsyncKimi

__all__ = ["AlikeFailures", "app", "mended_words"]

app: typer.Typer = typer.Typer()

BY_HAND = "interrupted (Ctrl-C)"
ALIKE = "the first requests all failed alike, and none was answered"


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
            help="Requests at once.",
            show_default="as limits allow",
        ),
    ] = None,
    on_changed: Annotated[
        Literal["error", "resend", "keep"],
        typer.Option(
            "--on-changed",
            help="With --resume, for a request that is another than the one answered under its id: stop, send the new "
            "one, or keep the old answer.",
        ),
    ] = "error",
    tier: Annotated[
        Literal["tier0", "tier1", "tier2", "tier3", "tier4", "tier5"] | None,
        typer.Option(
            "--tier",
            metavar="TIER",
            help="Your account's tier, tier0 to tier5, which tells its limits.",
            show_default="found out",
        ),
    ] = None,
    shared: SharedBy = None,
    quota: Quota = None,
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
    from ..bulk.map import MapOptions

    target = output_beside(source, output)
    named = os.path.lexists(target)
    was_there = target.exists() and target.stat().st_size > 0
    if was_there and not resume:
        raise Failure(f"{target} exists: add --resume to go on with it, or choose another --output")
    if retry_failed and not resume:
        raise Failure("--retry-failed goes with --resume", status=2)
    if budget is not None and price is None:
        raise Failure("--budget needs --price: prices change too often to be built in", status=2)
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column, repair=repair)
    defaults = fields_of(fields)
    options = MapOptions(
        concurrency=concurrency,
        journal=target,
        model=model or (None if "model" in defaults else kimi.model(None)),
        defaults=defaults,
        redo="failed" if retry_failed else "transient",
        on_changed=on_changed,
        stream=stream,
        token_budget=budget_tokens,
        cost_budget=budget,
        price=_price(price),
        max_error_rate=max_error_rate,
        deadline=deadline,
        repair=repair,
        total=requests.total(),
    )
    sim = simulated(pace=0, words=(5, 20)) if kimi.simulator else None

    runs: list[Map] = []  # for what came of it, if its end is cut short

    async def work() -> Outcome:
        alike = AlikeFailures()
        # Who says how many may fail has thought of it.
        hooks = [alike] if max_error_rate is None else []
        async with kimi.connected(
            limits=tier, shared=shared, quota=quota, simulator=sim, hooks=hooks
        ) as client:
            outcome = await _run(client, requests, options, alike, runs, quiet=quiet)
        if outcome.stopped is None and in_order:
            await asyncio.to_thread(_sort, requests, target)
        return outcome

    with telling_bad_lines():
        try:
            outcome = run_async(work())
        except KeyboardInterrupt:  # while it was being finished, or what came of it was looked at
            if not runs:
                raise
            outcome = Outcome(runs[0].progress, runs[0].mended, BY_HAND)
    done = outcome.progress
    kept = was_there or done.ok > 0 or outcome.stopped is None
    if not kept:
        # Nothing but refusals: the mended command starts anew and must not be told that there is an output already.
        if not named:
            target.unlink(missing_ok=True)
        elif target.exists():
            os.truncate(target, 0)  # the file, or the link, is the caller's
    if not quiet:
        if words := mended_words(outcome.mended):
            notes().print(f"[dim]{target} was mended: {escape(words)}.[/]", soft_wrap=True)
        _summary(outcome, target if kept else None)
    if as_json:
        print_json(_measures(outcome, target if kept else None))
    if outcome.stopped is None:
        return 1 if done.failed else 0
    notes().print(
        f"[yellow]Stopped:[/] {escape(in_our_words(outcome.stopped))}", soft_wrap=not notes().is_terminal
    )
    if kept:
        again = shlex.join(["kimi-async", *sys.argv[1:], *([] if resume else ["--resume"])])
        notes().print(f"Go on with: [cyan]{escape(again)}[/]", soft_wrap=True)
    return INTERRUPTED if outcome.stopped == BY_HAND else 1


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    progress: "MapProgress"
    mended: Any = None
    stopped: str | None = None
    """Why it ended before its input did."""
    examples: dict[str, str] = field(default_factory=dict[str, str])
    """For each class of failure, what the first one said."""


class AlikeFailures:
    """
    Whether a run cannot succeed: its first calls are refused, all alike, and none is answered. Calls `stop`, once, when it is so.

    It listens as a hook, since results are handed out only after they are on disk: by then hundreds may have been sent. What is
    refused for its own sake (moderation, a prompt too long) says nothing about the next.
    """

    ENOUGH = 5
    OF_ONE = frozenset({"content_filter", "context_length"})

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self.stop = stop
        self._kind: tuple[str, str] | None = None
        self._count = 0
        self._over = False

    def __call__(self, event: Any) -> None:
        name = type(event).__name__
        if name == "ResponseFinished" and event.status < 400:
            self._over = True
        elif name == "CallFailed":
            self.failed(event.cause, event.reason)

    def failed(self, cause: str, reason: str) -> None:
        kind = (cause, re.sub(r"requests\[\d+\]|\d+", "", reason))
        if self._over or cause in self.OF_ONE or self._kind not in (None, kind):
            self._over = True
            return
        self._kind = kind
        self._count += 1
        if self._count == self.ENOUGH and self.stop is not None:
            self._over = True
            self.stop()


async def _run(
    client: "AsyncKimi",
    requests: Source,
    options: "MapOptions",
    alike: AlikeFailures,
    runs: "list[Map]",
    *,
    quiet: bool,
) -> Outcome:
    from ..bulk.map import Map, MapStoppedError

    stopped: str | None = None
    firsts: dict[str, Exception] = {}
    with screen(quiet) as seen:
        async with Map(client, requests.requests(), options) as results:
            runs.append(results)

            def stop() -> None:
                seen.say("Finishing what is under way. Ctrl-C again gives it up.")
                results.stop(BY_HAND)

            def refused() -> None:
                nonlocal stopped
                stopped = ALIKE  # also where all had been sent by then
                results.stop(ALIKE)

            alike.stop = refused
            with interrupts(stop) as scope:
                async with shown_meanwhile(seen, lambda: _line(results.progress, client)):
                    try:
                        async for result in results:
                            error = result.error
                            if error is None:
                                continue
                            firsts.setdefault(type(error).__name__, error)
                            if isinstance(error, (ConfigurationError, TypeError)):
                                # Refused before it was sent, which no hook sees.
                                alike.failed(type(error).__name__, str(error))
                    except MapStoppedError as exc:
                        stopped = exc.reason
        if scope.cancelled_caught:
            stopped = BY_HAND
        examples = {name: await _told(client, error) for name, error in firsts.items()}
        if stopped == ALIKE and examples:
            stopped = f"{ALIKE}: {next(iter(examples.values()))}"
        return Outcome(results.progress, results.mended, stopped, examples)


async def _told(client: "AsyncKimi", error: Exception) -> str:
    """What an error says, with the models that there are where the one asked for is not."""
    try:
        async with naming_models(client):
            raise error
    except Exception as exc:
        return explain(exc)


def mended_words(mended: Any) -> str:
    """What was put right in the output of an earlier run, in words."""
    if not mended:
        return ""
    parts: list[str] = []
    if mended.torn:
        parts.append(f"a last line cut short ({size(mended.torn)}) was taken away")
    if mended.damaged:
        parts.append(f"{plural(mended.damaged, 'unreadable line')} moved to a file beside it (.damaged)")
    if mended.replaced:
        parts.append(f"{plural(mended.replaced, 'line')} dropped that a later one replaces")
    if mended.redo:
        parts.append(f"{plural(mended.redo, 'failure')} taken out, to be sent again")
    return "; ".join(parts)


def _price(text: str | None) -> "TokenPrice | None":
    from ..bulk.map import TokenPrice

    if text is None:
        return None
    try:
        numbers = [float(each) for each in text.split(",")]
        return TokenPrice(*numbers)
    except (ValueError, TypeError):
        raise Failure(
            f"--price wants INPUT,OUTPUT or INPUT,OUTPUT,CACHED for a million tokens, not {text!r}", status=2
        ) from None


def _sort(source: Source, target: Path) -> None:
    """Put the output into the order of the input, in one step. It is still a journal, and nobody else may write to it meanwhile."""
    from ..bulk.journal import Journal

    with Journal.open(target, redo="none") as journal:
        journal.arrange(source.ids())


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


def _summary(outcome: Outcome, target: Path | None) -> None:
    done = outcome.progress
    rows: list[tuple[str, str]] = [("answered", f"{done.ok:,}"), ("failed", f"{done.failed:,}")]
    for name, count in sorted(done.errors.items(), key=lambda item: -item[1]):
        example = f": {outcome.examples[name]}" if name in outcome.examples else ""
        rows.append(("", f"{count:,} × {name}{example}"))
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
    rows.append(("output", str(target) if target is not None else "none: nothing was answered"))
    facts(rows)


def _measures(outcome: Outcome, target: Path | None) -> dict[str, object]:
    done = outcome.progress
    return {
        "answered": done.ok,
        "failed": done.failed,
        "errors": [
            {"class": name, "count": count, "example": outcome.examples.get(name)}
            for name, count in done.errors.items()
        ],
        "answered_before": done.skipped,
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "cost": done.cost,
        "seconds": round(done.elapsed, 3),
        "output": None if target is None else str(target),
        "stopped": outcome.stopped,
    }
