"""`kimi-async batch …`: the same requests through the Batch API."""

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from ..bulk.output_files import refuse_overwriting
from .connect import Kimi, asks_kimi, simulated
from .inputs import Source, fields_of, output_beside, telling_bad_lines
from .options import (
    Delete,
    Fields,
    IdColumn,
    Input,
    Json,
    Model,
    Output,
    Overwrite,
    Prompt,
    Quiet,
    Repair,
    System,
)
from .screens import Shown, screen
from .terminal import Column, Failure, explain, facts, notes, plural, print_json, run_async, table

if TYPE_CHECKING:
    from ..bulk.batch_jobs import BatchHandle, BatchProgress, BatchResults
    from ..client import AsyncKimi
    from ..types.batches import Batch

__all__ = ["app", "is_window"]

app: typer.Typer = typer.Typer(
    no_args_is_help=True,
    help="Send many requests as a batch: hours instead of minutes, at 60 % of the price, outside your rate limits.",
)

Window = Annotated[str, typer.Option("--window", help="Time the batch may take: 12h to 7d.")]
State = Annotated[
    Path | None,
    typer.Option("--state", help="Where to remember the job.", show_default="INPUT with .batch.json"),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Forget the job that --state remembers, and make a new one.")
]
Job = Annotated[str, typer.Argument(help="A batch id, or the state file of a job.", show_default=False)]
Poll = Annotated[float, typer.Option("--poll", min=0.1, help="Seconds between looks, at first.")]


@app.command("run")
@asks_kimi(simulator=True)
def run(
    kimi: Kimi,
    source: Input,
    output: Output = None,
    via: Annotated[
        Literal["batch", "auto", "live"],
        typer.Option(
            help="auto sends live, afterwards, what the batch left unanswered; live sends everything live."
        ),
    ] = "batch",
    model: Model = None,
    prompt: Prompt = None,
    system: System = None,
    id_column: IdColumn = None,
    fields: Fields = None,
    window: Window = "24h",
    state: State = None,
    poll: Poll = 5.0,
    restart: Restart = False,
    repair: Repair = False,
    delete: Delete = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Check, upload, create, wait, download and join. The same command goes on where an interrupted one was."""
    target = output_beside(source, output)
    plan = _Plan.of(source, state=state, window=window, restart=restart)
    if not overwrite and not plan.state.exists():
        # A job that is remembered may write the same once more; a new one may not replace what was paid for.
        refuse_overwriting(target)
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column, repair=repair)
    sim = simulated(pace=0, words=(5, 20)) if kimi.simulator else None

    async def work() -> int:
        async with kimi.connected(simulator=sim) as client:
            asked = await _for_batch(client, requests, model, fields, repair=repair, check=via == "batch")
            if not quiet and not kimi.simulator:
                plan.announce()
            with screen(quiet) as seen:
                results = await client.batches.run(
                    requests.requests(),
                    completion_window=window,
                    model=model,
                    defaults=asked,
                    directory=plan.directory,
                    state=None if kimi.simulator else plan.state,
                    via=via,
                    repair=repair,
                    poll_interval=0.1 if kimi.simulator else poll,
                    on_progress=lambda progress: seen.show(_line(progress)),
                )
            return await _finished(
                client if delete else None,
                results,
                target,
                plan.state,
                overwrite=overwrite,
                quiet=quiet,
                as_json=as_json,
            )

    try:
        with telling_bad_lines():
            return run_async(work())
    except KeyboardInterrupt:
        if plan.state.exists():
            again = shlex.join(["kimi-async", "batch", "wait", str(plan.state), "-o", str(target)])
            notes().print(f"The batch goes on. Wait for it with: [cyan]{escape(again)}[/]", soft_wrap=True)
        raise


@app.command("submit")
@asks_kimi(simulator=False)
def submit(
    kimi: Kimi,
    source: Input,
    model: Model = None,
    prompt: Prompt = None,
    system: System = None,
    id_column: IdColumn = None,
    fields: Fields = None,
    window: Window = "24h",
    state: State = None,
    restart: Restart = False,
    repair: Repair = False,
    as_json: Json = False,
) -> int:
    """Check, upload and create; print the batch ids and return."""
    plan = _Plan.of(source, state=state, window=window, restart=restart)
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column, repair=repair)

    async def work() -> int:
        async with kimi.connected() as client:
            asked = await _for_batch(client, requests, model, fields, repair=repair, check=True)
            plan.announce()
            handle = await client.batches.submit(
                requests.requests(),
                completion_window=window,
                model=model,
                defaults=asked,
                directory=plan.directory,
                state=plan.state,
                repair=repair,
            )
        if as_json:
            print_json(handle)
        else:
            for id_ in handle.batch_ids:
                print(id_)
        again = shlex.join(["kimi-async", "batch", "wait", str(plan.state)])
        notes().print(
            f"{plural(handle.lines, 'request')}. Wait for them with: [cyan]{escape(again)}[/]", soft_wrap=True
        )
        return 0

    with telling_bad_lines():
        return run_async(work())


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a job is remembered, beside its input."""

    state: Path
    directory: Path

    @classmethod
    def of(cls, source: Path, *, state: Path | None, window: str, restart: bool) -> "_Plan":
        if not is_window(window):
            raise Failure(f"--window {window!r}: a batch may take 12h to 7d, such as 24h or 3d", status=2)
        plan = cls(state or source.with_suffix(".batch.json"), source.with_suffix(".batch"))
        if not plan.state.parent.is_dir():
            raise Failure(f"--state {plan.state}: there is no folder {plan.state.parent}", status=2)
        if restart:
            plan.state.unlink(missing_ok=True)
        return plan

    def announce(self) -> None:
        notes().print(
            f"[dim]The job is remembered in {escape(str(self.state))}; its files are in {escape(str(self.directory))}/.[/]",
            soft_wrap=True,
        )


def is_window(text: str) -> bool:
    """Whether a batch may be given this time: hours or days, 12 hours at least and 7 days at most."""
    found = re.fullmatch(r"(\d{1,4})([hd])", text)
    return found is not None and 12 <= int(found[1]) * (24 if found[2] == "d" else 1) <= 168


async def _for_batch(
    client: "AsyncKimi",
    requests: Source,
    model: str | None,
    fields: list[str] | None,
    *,
    repair: bool,
    check: bool,
) -> dict[str, Any]:
    """
    What --set asks for, once it is known that the model can be batched: uploading gigabytes only to be refused is no way to
    learn that.
    """
    from ..bulk.request_files import check_lines
    from ..providers.models import MODELS

    asked = fields_of(fields)
    given = model or asked.get("model")
    host = client.provider
    if not check or (host is not None and not host.name.startswith("moonshot")):
        return asked
    today = date.today()
    able = [name for name, known in MODELS.items() if known.batch and known.is_available(today)]
    these = f"These can: {', '.join(able)}"
    named: set[str] = {given} if given else set()
    if requests.is_whole:
        found = await asyncio.to_thread(
            lambda: check_lines(requests.path, batch=True, model=given, repair=repair, keep=0)
        )
        named |= set(found.models)
    elif requests.template is not None and not named:
        raise Failure(f"say with --model which model the batch is for. {these}", status=2)
    for name in sorted(named):
        if name in MODELS and not MODELS[name].batch:
            raise Failure(f"{name} has no batches. {these}. `kimi-async map` sends the same file live")
    return asked


@app.command("status")
@asks_kimi(simulator=False)
def status(
    kimi: Kimi,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help="Batch ids or state files.", show_default="the latest batches"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Tell how batches are doing."""

    async def work() -> int:
        found: list[Batch] = []
        async with kimi.connected() as client:
            if jobs:
                for job in jobs:
                    handle = await _handle(client, job)
                    found += [await client.batches.retrieve(id_) for id_ in handle.batch_ids]
            else:
                found = (await client.batches.list(limit=20)).data
        _show(found, as_json)
        return 0

    return run_async(work())


@app.command("wait")
@asks_kimi(simulator=False)
def wait(
    kimi: Kimi,
    job: Job,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Results, in the order of the requests.",
            show_default="JOB with .out.jsonl",
        ),
    ] = None,
    poll: Poll = 5.0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most.", show_default=False)
    ] = None,
    delete: Delete = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Wait until a batch has ended, and download its results."""
    remembered = Path(job) if os.path.exists(job) else None
    target = output or Path(job).with_suffix("").with_suffix(".out.jsonl")

    async def work() -> int:
        async with kimi.connected() as client:
            handle = await _handle(client, job)
            with screen(quiet) as seen:
                await client.batches.wait(
                    handle,
                    poll_interval=poll,
                    timeout=timeout,
                    on_progress=lambda progress: seen.show(_line(progress)),
                )
                results = await client.batches.results(handle)
            return await _finished(
                client if delete else None,
                results,
                target,
                remembered,
                overwrite=overwrite,
                quiet=quiet,
                as_json=as_json,
            )

    return run_async(work())


@app.command("cancel")
@asks_kimi(simulator=False)
def cancel(kimi: Kimi, job: Job, as_json: Json = False) -> int:
    """Cancel a batch that runs; what it has answered stays."""

    async def work() -> int:
        async with kimi.connected() as client:
            _show(await client.batches.cancel_job(await _handle(client, job)), as_json)
        return 0

    return run_async(work())


async def _handle(client: "AsyncKimi", job: str) -> "BatchHandle":
    from ..bulk.batch_jobs import BatchHandle

    if await asyncio.to_thread(os.path.exists, job):
        return await asyncio.to_thread(BatchHandle.load, job)
    return await client.batches.attach(job)


async def _finished(
    deleting: "AsyncKimi | None",
    results: "BatchResults",
    target: Path,
    state: Path | None,
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    from ..bulk.batch_jobs import delete_files

    async with results:
        written = await asyncio.to_thread(results.write, target, overwrite=overwrite)
        if deleting is not None:
            # Not before they are where they were asked for: the output may be refused, and the disk full.
            await delete_files(deleting, results)
        if not quiet:
            facts(
                [
                    ("answered", f"{results.ok:,}"),
                    ("failed", f"{results.failed:,}"),
                    ("unanswered", f"{results.unanswered:,}"),
                    ("output", f"{target} ({written:,} lines)"),
                ]
            )
            missing = results.failed + results.unanswered
            for _, result in zip(range(20), results.failures(), strict=False):
                notes().print(
                    f"[red]{escape(result.custom_id)}[/]: {escape(explain(result.error or Exception()))}",
                    soft_wrap=True,
                )
            if missing > 20:
                notes().print(f"… and {missing - 20:,} more")
        if as_json:
            print_json(
                {
                    "answered": results.ok,
                    "failed": results.failed,
                    "unanswered": results.unanswered,
                    "output": str(target),
                    "batches": [batch.to_dict() for batch in results.batches],
                }
            )
        if state is not None and (advice := await asyncio.to_thread(_what_next, state, results)):
            notes().print(f"[dim]{advice}[/]")
        return 1 if results.failed + results.unanswered else 0


def _what_next(state: Path, results: "BatchResults") -> str | None:
    """Forgets a job of which nothing can come any more; gives what a person should know about the next run."""
    statuses = {batch.status for batch in results.batches}
    if statuses == {"failed"} and state.exists():
        # Refused as a whole: there is nothing to go on with, and the mended input must not be taken for another job.
        state.unlink()
        return "The job is forgotten: mend the input and start the same command again."
    if results.unanswered and statuses and statuses <= {"failed", "expired", "cancelled"}:
        return "The same command would tell this again; --restart makes a new job."
    return None


def _line(progress: "BatchProgress") -> Shown:
    statuses = ", ".join(
        f"{count} {status}" if count > 1 else status for status, count in progress.statuses.items()
    )
    pause = f" · next look in {progress.next_poll:.0f} s" if progress.next_poll else ""
    failed = f" · [red]{progress.failed:,} failed[/]" if progress.failed else ""
    done = progress.completed + progress.failed
    return Shown(done, progress.total or None, f"{progress.step}: {statuses}{failed}{pause}")


def _show(found: "Sequence[Batch]", as_json: bool) -> None:
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    rows: list[Sequence[object]] = []
    for each in found:
        counts = each.request_counts
        numbers = (counts.completed, counts.failed, counts.total) if counts else (None, None, None)
        rows.append((each.id, each.status, *numbers, each.created_at))
    table(
        [
            Column("id", "id"),
            Column("status", "word"),
            Column("completed", "number", drop=1),
            Column("failed", "number", drop=2),
            Column("total", "number", drop=3),
            Column("created", "time", drop=4),
        ],
        rows,
    )
