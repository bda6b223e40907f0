"""
`kimi-async batch …`: the same requests through the Batch API.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from .connect import Kimi, asks_kimi, simulated
from .inputs import Source, fields_of, telling_bad_lines
from .options import Delete, Fields, IdColumn, Input, Json, Model, Output, Prompt, Quiet, Repair, System
from .screens import Shown, screen
from .terminal import Column, Failure, explain, facts, notes, print_json, run_async, table

if TYPE_CHECKING:
    from ..bulk.batch_jobs import BatchHandle, BatchProgress, BatchResults
    from ..client import AsyncKimi
    from ..types.batches import Batch

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    no_args_is_help=True,
    help="Send many requests as a batch: hours instead of minutes, at 60 % of the price, outside your rate limits.",
)

Window = Annotated[str, typer.Option("--window", help="Time the batch may take: 12h to 7d.")]
State = Annotated[
    Path | None,
    typer.Option(
        "--state", help="Where to remember the job. [default: INPUT with .batch.json]", show_default=False
    ),
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
    repair: Repair = False,
    delete: Delete = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """
    Check, upload, create, wait, download and join. The same command goes on where an interrupted one was.
    """
    target = output or source.with_suffix(".out.jsonl")
    if target.resolve() == source.resolve():
        raise Failure("the output would overwrite the input; choose another --output")
    remembered = state or source.with_suffix(".batch.json")
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column)

    async def work() -> int:
        sim = simulated(pace=0, words=(5, 20)) if kimi.simulator else None
        async with kimi.connected(simulator=sim) as client:
            with screen(quiet) as seen:
                results = await client.batches.run(
                    requests.requests(),
                    completion_window=window,
                    model=model,
                    defaults=fields_of(fields),
                    directory=source.with_suffix(".batch"),
                    state=None if kimi.simulator else remembered,
                    via=via,
                    repair=repair,
                    poll_interval=0.1 if kimi.simulator else poll,
                    delete=delete,
                    on_progress=lambda progress: seen.show(_line(progress)),
                )
            return await _finished(results, target, quiet=quiet, as_json=as_json)

    try:
        with telling_bad_lines():
            return run_async(work())
    except KeyboardInterrupt:
        notes().print(
            f"The batch goes on. Wait for it with: [cyan]kimi-async batch wait {remembered} -o {target}[/]"
        )
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
    repair: Repair = False,
    as_json: Json = False,
) -> int:
    """
    Check, upload and create; print the batch ids and return.
    """
    remembered = state or source.with_suffix(".batch.json")
    requests = Source.of(source, prompt=prompt, system=system, id_column=id_column)

    async def work() -> int:
        async with kimi.connected() as client:
            handle = await client.batches.submit(
                requests.requests(),
                completion_window=window,
                model=model,
                defaults=fields_of(fields),
                directory=source.with_suffix(".batch"),
                state=remembered,
                repair=repair,
            )
        if as_json:
            print_json(handle)
        else:
            for id_ in handle.batch_ids:
                print(id_)
        notes().print(
            f"{handle.lines:,} requests. Wait for them with: [cyan]kimi-async batch wait {remembered}[/]"
        )
        return 0

    with telling_bad_lines():
        return run_async(work())


@app.command("status")
@asks_kimi(simulator=False)
def status(
    kimi: Kimi,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help="Batch ids or state files. [default: the latest batches]", show_default=False),
    ] = None,
    as_json: Json = False,
) -> int:
    """
    Tell how batches are doing.
    """

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
            help="Results, in the order of the requests. [default: JOB with .out.jsonl]",
            show_default=False,
        ),
    ] = None,
    poll: Poll = 5.0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most.", show_default=False)
    ] = None,
    delete: Delete = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """
    Wait until a batch has ended, and download its results.
    """
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
                results = await client.batches.results(handle, delete=delete)
            return await _finished(results, target, quiet=quiet, as_json=as_json)

    return run_async(work())


@app.command("cancel")
@asks_kimi(simulator=False)
def cancel(kimi: Kimi, job: Job, as_json: Json = False) -> int:
    """
    Cancel a batch that runs; what it has answered stays.
    """

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


async def _finished(results: "BatchResults", target: Path, *, quiet: bool, as_json: bool) -> int:
    async with results:
        written = await asyncio.to_thread(results.write, target)
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
        return 1 if results.failed + results.unanswered else 0


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
            Column("status"),
            Column("completed", "number", drop=1),
            Column("failed", "number", drop=2),
            Column("total", "number", drop=3),
            Column("created", "time", drop=4),
        ],
        rows,
    )
