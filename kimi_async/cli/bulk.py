"""
The commands for bulk work: `map`, `batch …` and `files …`. A typer application that `app` takes in.

What they need is imported when they run, so that `kimi-async --help` stays quick.
"""

import asyncio
import csv
import json
import os
import shlex
import signal
import string
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast

import typer
from rich.markup import escape

from .options import Json, Simulator, System
from .terminal import INTERRUPTED, Failure, explain, notes, run_async, table

if TYPE_CHECKING:
    from ..bulk.batch_jobs import BatchHandle, BatchProgress, BatchResults
    from ..bulk.map import MapProgress, Price
    from ..client import AsyncKimi
    from ..types.batches import Batch

__all__ = ["app", "batch", "files"]

app: typer.Typer = typer.Typer(add_completion=False)
batch: typer.Typer = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Send many requests as a batch: hours instead of minutes, at 60 % of the price, outside your rate limits.",
)
files: typer.Typer = typer.Typer(add_completion=False, no_args_is_help=True, help="Files on the account.")
app.add_typer(batch, name="batch")
app.add_typer(files, name="files")

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", envvar="KIMI_MODEL", help="For requests that name none.", show_default=False
    ),
]
Input = Annotated[
    Path,
    typer.Argument(
        help="JSONL in the Batch API's format; or, with --prompt, CSV, TSV or JSONL of anything.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="What to ask for each row, with its columns in braces: 'Translate: {text}'. @FILE reads it from a file.",
        show_default=False,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id", help="Column that names a row in the output. [default: its number]", show_default=False
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Another field of every request, e.g. --set max_completion_tokens=500 or --set "
        '\'thinking={"type":"disabled"}\'. May be repeated.',
        show_default=False,
    ),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Read past byte order marks, CR LF and blank lines in the input.")
]
Tier = Annotated[
    str | None,
    typer.Option(
        "--tier",
        help="Your account's tier, tier0 to tier5, which tells its limits. [default: found out]",
        show_default=False,
    ),
]


# --- map ------------------------------------------------------------------------------------------------


@app.command("map")
def map_(
    source: Input,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Results, a line each. [default: INPUT with .out.jsonl]",
            show_default=False,
        ),
    ] = None,
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
    tier: Tier = None,
    model: Model = None,
    prompt: Prompt = None,
    system: System = None,
    id_column: IdColumn = None,
    fields: Set = None,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    simulator: Simulator = False,
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
    requests, total = _requests(source, prompt=prompt, system=system, id_column=id_column)
    options = MapOptions(
        concurrency=concurrency,
        journal=target,
        model=model,
        defaults=_fields(fields),
        redo="failed" if retry_failed else "transient",
        stream=stream,
        token_budget=budget_tokens,
        cost_budget=budget,
        price=_price(price),
        max_error_rate=max_error_rate,
        deadline=deadline,
        repair=repair,
        total=total,
        progress_interval=0.25,
    )

    async def work() -> int:
        from ..bulk.map import Map

        stopped: str | None = None
        async with _client(simulator, tier) as client:
            with _screen(quiet) as screen:
                options.on_progress = lambda progress: screen.show(_map_line(progress, client))
                async with Map(client, requests, options) as results:
                    with _interrupts(results.stop, screen):
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
        if stopped is None and in_order:
            await _sort(source, target, id_column, prompt is not None)
        if stopped is not None:
            again = shlex.join([*_own_command(), *([] if resume else ["--resume"])])
            notes().print(f"[yellow]Stopped:[/] {explain(Exception(stopped)).removeprefix('Exception: ')}")
            notes().print(f"Go on with: [cyan]{again}[/]", soft_wrap=True)
            return INTERRUPTED if stopped == _BY_HAND else 1
        return 1 if done.failed else 0

    return _run(work())


def _run(work: Coroutine[Any, Any, int]) -> int:
    """
    `run_async`, with bad lines of the input told one a line.
    """
    from ..bulk.request_files import InvalidLinesError

    try:
        return run_async(work)
    except InvalidLinesError as exc:
        notes().print(f"[red]kimi-async:[/] {escape(str(exc))}", soft_wrap=True)
        return 1


_BY_HAND = "interrupted (Ctrl-C)"


def _own_command() -> list[str]:
    return ["kimi-async", *sys.argv[1:]]


def _requests(
    source: Path, *, prompt: str | None, system: str | None, id_column: str | None
) -> tuple[Any, int | None]:
    """
    What `Map` takes, and how many there are if that is known.
    """
    table_like = source.suffix.lower() in (".csv", ".tsv")
    if prompt is None:
        if table_like:
            raise Failure(
                "a CSV file needs --prompt, with its columns in braces: --prompt 'Translate: {text}'"
            )
        if system is not None or id_column is not None:
            raise Failure("--system and --id go with --prompt")
        return str(source), None
    template = Path(prompt[1:]).read_text("utf-8") if prompt.startswith("@") else prompt
    wanted = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if any(not name for name in wanted):
        raise Failure("braces in --prompt must name a column; for a literal brace write {{ or }}")
    rows = list(_numbered(source))[:1]
    if not rows:
        raise Failure(f"{source} holds no rows")
    have = rows[0][1]
    for name in [*wanted, *([id_column] if id_column else [])]:
        if name.partition(".")[0].partition("[")[0] not in have:
            raise Failure(f"there is no column {name!r} in {source}; there are: {', '.join(have)}")
    return _from_rows(source, template, system, id_column), sum(1 for _ in _numbered(source))


def _numbered(source: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """
    The rows of a table, or the objects of a JSONL file, from 1.
    """
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        with open(source, encoding="utf-8-sig", newline="") as file:
            yield from enumerate(
                csv.DictReader(file, dialect="excel-tab" if suffix == ".tsv" else "excel"), 1
            )
        return
    with open(source, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as exc:
                raise Failure(f"{source}, line {number}: not JSON ({exc})") from None
            if not isinstance(row, dict):
                raise Failure(f"{source}, line {number}: not a JSON object")
            yield number, cast("dict[str, Any]", row)


def _from_rows(source: Path, template: str, system: str | None, id_column: str | None) -> Iterator[Any]:
    for number, row in _numbered(source):
        try:
            text = template.format_map(row)
        except (KeyError, IndexError, AttributeError, ValueError) as exc:
            raise Failure(f"{source}, row {number}: the prompt cannot be filled in ({exc!r})") from None
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        name = f"row-{number}" if id_column is None else str(row[id_column])
        yield {"custom_id": name, "messages": messages}


def _fields(given: list[str] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for each in given or ():
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise Failure(f"--set wants NAME=VALUE, not {each!r}")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text  # a plain word needs no quotes
    return fields


def _price(text: str | None) -> "Price | None":
    from ..bulk.map import Price

    if text is None:
        return None
    try:
        numbers = [float(each) for each in text.split(",")]
        return Price(*numbers)
    except (ValueError, TypeError):
        raise Failure(
            f"--price wants INPUT,OUTPUT or INPUT,OUTPUT,CACHED for a million tokens, not {text!r}"
        ) from None


async def _sort(source: Path, target: Path, id_column: str | None, from_rows: bool) -> None:
    """
    Put the output into the order of the input, in one step.
    """
    from ..bulk.journal import ResultFiles, read_ids

    def names() -> Iterator[str]:
        if not from_rows:
            yield from read_ids(source)
            return
        for number, row in _numbered(source):
            yield f"row-{number}" if id_column is None else str(row[id_column])

    def sort() -> None:
        temporary = target.with_name(target.name + ".sorted")
        with ResultFiles([target]) as results, open(temporary, "wb") as file:
            for name in names():
                line = results.line(name)
                if line is not None:
                    file.write(line + b"\n")
        temporary.replace(target)

    await asyncio.to_thread(sort)


def _map_line(progress: "MapProgress", client: "AsyncKimi") -> "_Shown":
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
    return _Shown(done, progress.total, " · ".join(parts), progress.eta)


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
    rows.append(("time", _time(done.elapsed)))
    if done.elapsed > 0:
        rows.append(("rate", f"{done.done / done.elapsed:,.1f} requests/s"))
    rows.append(("output", str(target)))
    _to_stderr(["", ""], rows)


def _to_stderr(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    out = notes()
    grid = Table(box=None, show_header=any(columns), header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number == 1 else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# --- what is seen meanwhile -----------------------------------------------------------------------------


class _Shown:
    def __init__(self, done: int, total: int | None, text: str, eta: float | None = None) -> None:
        self.done = done
        self.total = total
        self.text = text
        self.eta = eta


class _Screen(Protocol):
    def show(self, shown: _Shown) -> None: ...

    def say(self, text: str) -> None: ...


class _Silent:
    def show(self, shown: _Shown) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Lines:
    """
    For a log: a line every ten seconds.
    """

    def __init__(self) -> None:
        self._next = time.monotonic() + 10
        self._out = notes()

    def show(self, shown: _Shown) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 10
            total = f"/{shown.total:,}" if shown.total is not None else ""
            eta = f" · {_time(shown.eta)} left" if shown.eta is not None else ""
            self.say(f"{shown.done:,}{total} · {shown.text}{eta}")

    def say(self, text: str) -> None:
        self._out.print(text, soft_wrap=True)


class _Bar:
    """
    For a terminal: a bar that moves.
    """

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def show(self, shown: _Shown) -> None:
        left = "" if shown.eta is None else f"{_time(shown.eta)} left"
        self._progress.update(self._task, completed=shown.done, total=shown.total, text=shown.text, left=left)

    def say(self, text: str) -> None:
        self._progress.console.print(text)


@contextmanager
def _screen(quiet: bool) -> "Generator[_Screen]":
    out = notes()
    if quiet:
        yield _Silent()
    elif not out.is_terminal:
        yield _Lines()
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("[dim]{task.fields[left]}[/]"),
        )
        with Progress(*columns, console=out, refresh_per_second=8, expand=True) as progress:
            yield _Bar(progress, progress.add_task("", total=None, text="", left=""))


@contextmanager
def _interrupts(stop: Callable[[str], None], screen: _Screen) -> "Generator[None]":
    """
    The first Ctrl-C finishes what is under way; the second gives it up.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def interrupted() -> None:
        nonlocal asked
        if asked and task is not None:
            task.cancel()
        asked = True
        screen.say("Finishing what is under way. Ctrl-C again gives it up.")
        stop(_BY_HAND)

    try:
        loop.add_signal_handler(signal.SIGINT, interrupted)
    except (NotImplementedError, RuntimeError):
        # Windows, and threads other than the main one: Ctrl-C cancels at once. What is journaled is safe anyway.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _client(simulator: bool, tier: str | None = None) -> "AbstractAsyncContextManager[AsyncKimi]":
    from .connect import connected, simulated

    return connected(simulator=simulated(pace=0, words=(5, 20)) if simulator else False, limits=tier)


# --- batch ----------------------------------------------------------------------------------------------

Window = Annotated[str, typer.Option("--window", help="Time the batch may take: 12h to 7d.")]
State = Annotated[
    Path | None,
    typer.Option(
        "--state", help="Where to remember the job. [default: INPUT with .batch.json]", show_default=False
    ),
]
Job = Annotated[str, typer.Argument(help="A batch id, or the state file of a job.")]
Poll = Annotated[float, typer.Option("--poll", min=0.1, help="Seconds between looks, at first.")]


@batch.command("run")
def batch_run(
    source: Input,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Results, in the order of the requests. [default: INPUT with .out.jsonl]",
            show_default=False,
        ),
    ] = None,
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
    fields: Set = None,
    window: Window = "24h",
    state: State = None,
    poll: Poll = 5.0,
    repair: Repair = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the job's files from the account afterwards.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    simulator: Simulator = False,
) -> int:
    """
    Check, upload, create, wait, download and join. The same command goes on where an interrupted one was.
    """
    target = output or source.with_suffix(".out.jsonl")
    if target.resolve() == source.resolve():
        raise Failure("the output would overwrite the input; choose another --output")
    remembered = state or source.with_suffix(".batch.json")
    requests, _ = _requests(source, prompt=prompt, system=system, id_column=id_column)

    async def work() -> int:
        async with _client(simulator) as client:
            with _screen(quiet) as screen:
                results = await client.batches.run(
                    requests,
                    completion_window=window,
                    model=model,
                    defaults=_fields(fields),
                    directory=source.with_suffix(".batch"),
                    state=None if simulator else remembered,
                    via=via,
                    repair=repair,
                    poll_interval=0.1 if simulator else poll,
                    delete=delete,
                    on_progress=lambda progress: screen.show(_batch_line(progress)),
                )
            return await _finished(results, target, quiet)

    try:
        return _run(work())
    except KeyboardInterrupt:
        notes().print(
            f"The batch goes on. Wait for it with: [cyan]kimi-async batch wait {remembered} -o {target}[/]"
        )
        raise


@batch.command("submit")
def batch_submit(
    source: Input,
    model: Model = None,
    prompt: Prompt = None,
    system: System = None,
    id_column: IdColumn = None,
    fields: Set = None,
    window: Window = "24h",
    state: State = None,
    repair: Repair = False,
    simulator: Simulator = False,
) -> int:
    """
    Check, upload and create; print the batch ids and return.
    """
    remembered = state or source.with_suffix(".batch.json")
    requests, _ = _requests(source, prompt=prompt, system=system, id_column=id_column)

    async def work() -> int:
        async with _client(simulator) as client:
            handle = await client.batches.submit(
                requests,
                completion_window=window,
                model=model,
                defaults=_fields(fields),
                directory=source.with_suffix(".batch"),
                state=remembered,
                repair=repair,
            )
        for id_ in handle.batch_ids:
            print(id_)
        notes().print(
            f"{handle.lines:,} requests. Wait for them with: [cyan]kimi-async batch wait {remembered}[/]"
        )
        return 0

    return run_async(work())


@batch.command("status")
def batch_status(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help="Batch ids or state files. [default: the latest batches]", show_default=False),
    ] = None,
    as_json: Json = False,
    simulator: Simulator = False,
) -> int:
    """
    Tell how batches are doing.
    """

    async def work() -> int:
        found: list[Batch] = []
        async with _client(simulator) as client:
            if jobs:
                for job in jobs:
                    handle = await _handle(client, job)
                    found += [await client.batches.retrieve(id_) for id_ in handle.batch_ids]
            else:
                found = (await client.batches.list(limit=20)).data
        if as_json:
            print(json.dumps([each.to_dict() for each in found], indent=2))
        else:
            _batch_table(found)
        return 0

    return run_async(work())


@batch.command("wait")
def batch_wait(
    job: Job,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Results, in the order of the requests.", show_default=False),
    ] = None,
    poll: Poll = 5.0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most.", show_default=False)
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the job's files from the account afterwards.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    simulator: Simulator = False,
) -> int:
    """
    Wait until a batch has ended, and download its results.
    """
    target = output or Path(job).with_suffix("").with_suffix(".out.jsonl")

    async def work() -> int:
        async with _client(simulator) as client:
            handle = await _handle(client, job)
            with _screen(quiet) as screen:
                await client.batches.wait(
                    handle,
                    poll_interval=poll,
                    timeout=timeout,
                    on_progress=lambda progress: screen.show(_batch_line(progress)),
                )
                results = await client.batches.results(handle, delete=delete)
            return await _finished(results, target, quiet)

    return run_async(work())


@batch.command("cancel")
def batch_cancel(job: Job, simulator: Simulator = False) -> int:
    """
    Cancel a batch that runs; what it has answered stays.
    """

    async def work() -> int:
        async with _client(simulator) as client:
            _batch_table(await client.batches.cancel_job(await _handle(client, job)))
        return 0

    return run_async(work())


async def _handle(client: "AsyncKimi", job: str) -> "BatchHandle":
    from ..bulk.batch_jobs import BatchHandle

    if await asyncio.to_thread(os.path.exists, job):
        return await asyncio.to_thread(BatchHandle.load, job)
    return await client.batches.attach(job)


async def _finished(results: "BatchResults", target: Path, quiet: bool) -> int:
    async with results:
        written = await asyncio.to_thread(results.write, target)
        if not quiet:
            rows = [
                ("answered", f"{results.ok:,}"),
                ("failed", f"{results.failed:,}"),
                ("unanswered", f"{results.unanswered:,}"),
                ("output", f"{target} ({written:,} lines)"),
            ]
            _to_stderr(["", ""], rows)
            missing = results.failed + results.unanswered
            for _, result in zip(range(20), results.failures(), strict=False):
                notes().print(
                    f"[red]{result.custom_id}[/]: {explain(result.error or Exception())}", soft_wrap=True
                )
            if missing > 20:
                notes().print(f"… and {missing - 20:,} more")
        return 1 if results.failed + results.unanswered else 0


def _batch_line(progress: "BatchProgress") -> _Shown:
    statuses = ", ".join(
        f"{count} {status}" if count > 1 else status for status, count in progress.statuses.items()
    )
    wait = f" · next look in {progress.next_poll:.0f} s" if progress.next_poll else ""
    failed = f" · [red]{progress.failed:,} failed[/]" if progress.failed else ""
    done = progress.completed + progress.failed
    return _Shown(done, progress.total or None, f"{progress.step}: {statuses}{failed}{wait}")


def _batch_table(found: Sequence["Batch"]) -> None:
    rows: list[Sequence[object]] = []
    for each in found:
        counts = each.request_counts
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created_at)) if each.created_at else ""
        rows.append(
            (
                each.id,
                each.status,
                f"{counts.completed:,}" if counts else "",
                f"{counts.failed:,}" if counts else "",
                f"{counts.total:,}" if counts else "",
                created,
            )
        )
    table(
        ["id", "status", "completed", "failed", "total", "created"],
        rows,
        numbers=["completed", "failed", "total"],
    )


# --- files ----------------------------------------------------------------------------------------------


@files.command("upload")
def files_upload(
    paths: Annotated[list[str], typer.Argument(help="Files, or globs in quotes: 'docs/**/*.pdf'.")],
    purpose: Annotated[
        str, typer.Option("--purpose", help="file-extract, image, video or batch.")
    ] = "file-extract",
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Uploads at once.")] = 8,
    again: Annotated[bool, typer.Option("--again", help="Send also what is on the account already.")] = False,
    index: Annotated[
        Path | None,
        typer.Option(help="A file that remembers what was uploaded, by SHA-256.", show_default=False),
    ] = None,
    evict: Annotated[
        bool, typer.Option("--evict", help="Make room by deleting the oldest files of this purpose.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    simulator: Simulator = False,
) -> int:
    """
    Upload files, many at once; print the id of each. One bad file does not stop the others.
    """

    async def work() -> int:
        async with _client(simulator) as client:
            with _screen(quiet) as screen:
                results = await client.files.upload_many(
                    paths,
                    purpose=purpose,
                    concurrency=concurrency,
                    dedupe=not again,
                    index=index,
                    evict="oldest" if evict else None,
                    on_progress=lambda p: screen.show(
                        _Shown(p.sent, p.size, f"{p.done:,}/{p.files:,} files, {_size(p.sent)}")
                    ),
                )
        if as_json:
            shown = [
                {
                    "source": str(each.source),
                    "file": each.file.to_dict() if each.file else None,
                    "reused": each.reused,
                    "error": explain(each.error) if each.error else None,
                }
                for each in results
            ]
            print(json.dumps(shown, indent=2))
        else:
            good = [each for each in results if each.file is not None]
            table(
                ["id", "name", "size", ""],
                [
                    (
                        each.file.id if each.file else "",
                        each.name,
                        _size(each.size),
                        "already there" if each.reused else "",
                    )
                    for each in good
                ],
                numbers=["size"],
            )
        for each in results:
            if each.error is not None:
                notes().print(f"[red]{each.name or each.source}[/]: {explain(each.error)}", soft_wrap=True)
        return 0 if all(each.ok for each in results) else 1

    return run_async(work())


@files.command("list")
def files_list(
    purpose: Annotated[str | None, typer.Option("--purpose", help="Only these.", show_default=False)] = None,
    as_json: Json = False,
    simulator: Simulator = False,
) -> int:
    """
    List the files on the account.
    """

    async def work() -> int:
        async with _client(simulator) as client:
            found = [file async for file in client.files.list() if purpose in (None, file.purpose)]
        if as_json:
            print(json.dumps([file.to_dict() for file in found], indent=2))
            return 0
        rows = [
            (
                file.id,
                file.filename,
                _size(file.bytes),
                file.purpose,
                file.status,
                time.strftime("%Y-%m-%d %H:%M", time.localtime(file.created_at)) if file.created_at else "",
            )
            for file in found
        ]
        table(["id", "name", "size", "purpose", "status", "created"], rows, numbers=["size"])
        total = sum(file.bytes for file in found)
        notes().print(f"[dim]{len(found):,} of 1,000 files, {_size(total)} of 10 GB[/]")
        return 0

    return run_async(work())


@files.command("get")
def files_get(
    file_id: Annotated[str, typer.Argument(help="The file's id.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to. [default: standard output]", show_default=False),
    ] = None,
    simulator: Simulator = False,
) -> int:
    """
    Get the text extracted from a file, or the lines of a batch's output.
    """

    async def work() -> int:
        async with _client(simulator) as client:
            if output is not None:
                size = await client.files.download(file_id, output)
                notes().print(f"{_size(size)} to {output}")
            else:
                content = await client.files.content(file_id)
                sys.stdout.buffer.write(content.content)
                sys.stdout.buffer.flush()
        return 0

    return run_async(work())


@files.command("rm")
def files_rm(
    file_ids: Annotated[list[str] | None, typer.Argument(help="Ids of files.", show_default=False)] = None,
    purpose: Annotated[
        str | None,
        typer.Option("--all", metavar="PURPOSE", help="Every file of this purpose.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    simulator: Simulator = False,
) -> int:
    """
    Delete files for good.
    """

    async def work() -> int:
        from ..bulk.upload_many import in_parallel

        async with _client(simulator) as client:
            ids = list(file_ids or ())
            if purpose is not None:
                ids += [file.id async for file in client.files.list() if file.purpose == purpose]
            if not ids:
                raise Failure("nothing to delete: give ids, or --all PURPOSE")
            if purpose is not None and not yes:
                typer.confirm(f"Delete {len(ids):,} files?", abort=True, err=True)

            def deletion(id_: str) -> Callable[[], Any]:
                return lambda: client.files.delete(id_)

            await in_parallel([deletion(id_) for id_ in ids], 8)
            notes().print(f"{len(ids):,} deleted")
        return 0

    return run_async(work())


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"
