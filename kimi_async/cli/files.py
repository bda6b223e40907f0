"""`kimi-async files …`: upload, list, get and delete files on the account."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..bulk.output_files import refuse_overwriting
from .connect import Kimi, asks_kimi
from .options import Json, Overwrite, Quiet
from .screens import Shown, screen
from .terminal import Column, Failure, explain, notes, print_json, run_async, size, table

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Files on the account.")

Purpose = Literal["file-extract", "image", "video", "batch"]


@app.command("upload")
@asks_kimi(simulator=False)
def upload(
    kimi: Kimi,
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, or globs in quotes: 'docs/**/*.pdf'.", show_default=False),
    ],
    purpose: Annotated[Purpose, typer.Option("--purpose", help="What they are for.")] = "file-extract",
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
    quiet: Quiet = False,
) -> int:
    """Upload files, many at once; print the id of each. One bad file does not stop the others."""

    async def work() -> int:
        async with kimi.connected() as client:
            with screen(quiet) as seen:
                results = await client.files.upload_many(
                    paths,
                    purpose=purpose,
                    concurrency=concurrency,
                    dedupe=not again,
                    index=index,
                    evict="oldest" if evict else None,
                    on_progress=lambda p: seen.show(
                        Shown(p.sent, p.size, f"{p.done:,}/{p.files:,} files, {size(p.sent)}")
                    ),
                )
        if as_json:
            print_json(
                [
                    {
                        "source": str(each.source),
                        "file": each.file.to_dict() if each.file else None,
                        "reused": each.reused,
                        "error": explain(each.error) if each.error else None,
                    }
                    for each in results
                ]
            )
        else:
            table(
                [
                    Column("id", "id"),
                    Column("name", drop=1),
                    Column("size", "size", drop=2),
                    Column("note", "word", drop=3),
                ],
                [
                    (each.file.id, each.name, each.size, "already there" if each.reused else "")
                    for each in results
                    if each.file is not None
                ],
            )
        for each in results:
            if each.error is not None:
                notes().print(f"[red]{each.name or each.source}[/]: {explain(each.error)}", soft_wrap=True)
        return 0 if all(each.ok for each in results) else 1

    return run_async(work())


@app.command("list")
@asks_kimi(simulator=False)
def list_(
    kimi: Kimi,
    purpose: Annotated[
        Purpose | None, typer.Option("--purpose", help="Only these.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> int:
    """List the files on the account."""

    async def work() -> int:
        async with kimi.connected() as client:
            found = [file async for file in client.files.list() if purpose in (None, file.purpose)]
        if as_json:
            print_json([file.to_dict() for file in found])
            return 0
        table(
            [
                Column("id", "id"),
                Column("name", drop=1),
                Column("size", "size", drop=2),
                Column("purpose", "word", drop=3),
                Column("status", "word", drop=5),
                Column("created", "time", drop=4),
            ],
            [
                (file.id, file.filename, file.bytes, file.purpose, file.status, file.created_at)
                for file in found
            ],
        )
        total = sum(file.bytes for file in found)
        notes().print(f"[dim]{len(found):,} of 1,000 files, {size(total)} of 10 GB[/]")
        return 0

    return run_async(work())


@app.command("get")
@asks_kimi(simulator=False)
def get(
    kimi: Kimi,
    file_id: Annotated[str, typer.Argument(help="The file's id.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to.", show_default="standard output"),
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Get the text extracted from a file, or the lines of a batch's output."""
    if output is not None and not overwrite:
        refuse_overwriting(output)

    async def work() -> int:
        async with kimi.connected() as client:
            if output is not None:
                written = await client.files.download(file_id, output)
                notes().print(f"{size(written)} to {output}")
            else:
                content = await client.files.content(file_id)
                sys.stdout.buffer.write(content.content)
                sys.stdout.buffer.flush()
        return 0

    return run_async(work())


@app.command("rm")
@asks_kimi(simulator=False)
def rm(
    kimi: Kimi,
    file_ids: Annotated[list[str] | None, typer.Argument(help="Ids of files.", show_default=False)] = None,
    purpose: Annotated[
        Purpose | None,
        typer.Option("--all", help="Every file of this purpose.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> int:
    """Delete files for good."""

    async def work() -> int:
        from ..resources.parallel import in_parallel

        async with kimi.connected() as client:
            ids = list(file_ids or ())
            if purpose is not None:
                ids += [file.id async for file in client.files.list() if file.purpose == purpose]
            elif not ids:
                raise Failure("nothing to delete: give ids, or --all PURPOSE", status=2)
            if purpose is not None and ids and not yes:
                typer.confirm(f"Delete {len(ids):,} files?", abort=True, err=True)

            def deletion(id_: str) -> Callable[[], Any]:
                return lambda: client.files.delete(id_)

            await in_parallel([deletion(id_) for id_ in ids], 8)
        if as_json:
            print_json([{"id": id_, "deleted": True} for id_ in ids])
        notes().print(f"{len(ids):,} deleted")
        return 0

    return run_async(work())
