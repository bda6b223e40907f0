"""
Options that several commands have, each written once so that it is called and explained alike everywhere.
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Delete",
    "Fields",
    "IdColumn",
    "Input",
    "Json",
    "Model",
    "Output",
    "Overwrite",
    "Prompt",
    "Quiet",
    "Repair",
    "System",
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="KIMI_MODEL",
        help="Model id; see `kimi-async models`.",
        show_default="kimi-k3, or the provider's own name for it",
    ),
]
System = Annotated[str | None, typer.Option("--system", "-s", help="The system message.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]

Input = Annotated[
    Path,
    typer.Argument(
        help="JSONL in the Batch API's format; or, with --prompt, CSV, TSV or JSONL of anything.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Results, a line each.", show_default="INPUT with .out.jsonl"),
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
    typer.Option("--id", help="Column that names a row in the output.", show_default="its number"),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another field of every request, such as max_tokens=500, its value as JSON. May be repeated.",
        show_default=False,
    ),
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair", help="Read past byte order marks, CR LF, UTF-16 and blank lines in a JSONL input."
    ),
]
Delete = Annotated[bool, typer.Option("--delete", help="Delete the job's files from the account afterwards.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists already.")]
