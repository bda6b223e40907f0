"""What every command shares: where to print, how to run a coroutine, and how to fail in one line."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import AuthenticationError, KimiError
from ..redact import redact
from .words import in_our_words

__all__ = [
    "INTERRUPTED",
    "Column",
    "Failure",
    "console",
    "duration",
    "explain",
    "facts",
    "fail_quietly",
    "grid_of",
    "loop_factory",
    "notes",
    "plural",
    "print_json",
    "read_stdin",
    "run_async",
    "size",
    "table",
]

T = TypeVar("T")

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
PIPE_CLOSED = 1  # whoever read us has had enough; silent, as with other programs built on click


class Failure(Exception):
    """Ends the command with one line on standard error, or with several where `lines` says that they are meant."""

    def __init__(self, message: str, *, status: int = 1, lines: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.lines = lines


def console() -> Console:
    """
    For results, on standard output; without colour and control codes when that is not a terminal.

    Made when asked for: the streams may have been replaced since import (tests do).
    """
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def notes() -> Console:
    """For progress, hints and complaints, on standard error, so that a pipe gets results only."""
    return Console(stderr=True, highlight=False)


def explain(error: BaseException) -> str:
    """One line for a person: what happened, whose turn it is. No traceback, no key, no name of an argument."""
    text = in_our_words(redact(" ".join(str(error).split()))) or type(error).__name__
    if isinstance(error, AuthenticationError):
        return (
            f"{text} Keys of api.moonshot.ai and api.moonshot.cn are not interchangeable; --base-url or KIMI_BASE_URL "
            "chooses the host, and kimi-async doctor looks further."
        )
    if isinstance(error, OSError) and error.strerror and not isinstance(error, KimiError):
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return f"{reason}: {error.filename}" if error.filename else reason
    if isinstance(error, (KimiError, Failure, ValueError, TypeError)):
        return text
    return f"{type(error).__name__}: {text}"


def fail_quietly(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit status; whatever goes wrong is one line on standard error."""
    try:
        result = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except BaseExceptionGroup as group:
        _complain(_first(group))
        return 1
    except Failure as failure:
        _complain(failure)
        return failure.status
    except Exception as exc:
        # Usage errors of typer and of click say how they want to be shown; the class lives in either package
        # (typer carries its own copy of click since 0.25), so it is recognised by what it offers.
        if show := getattr(exc, "format_message", None):
            # Of a command without arguments the help has been shown: there is nothing more to say.
            if text := _sentence(" ".join(str(show()).split())):
                _complain(f"{text} {_where_to_look(exc)}")
            return int(getattr(exc, "exit_code", 2))
        if type(exc).__name__ == "Exit":
            return int(getattr(exc, "exit_code", 0))
        if type(exc).__name__ == "Abort":
            return INTERRUPTED
        _complain(exc)
        return 1
    return result if isinstance(result, int) else 0


def _sentence(text: str) -> str:
    """The complaint of typer's, without what validators put before theirs, and with an end: something follows it."""
    text = text.replace(": Value error, ", ": ")
    return text if not text or text.endswith((".", "?", "!")) else f"{text}."


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return first


def _where_to_look(error: Exception) -> str:
    """What to type next after wrong usage."""
    if getattr(error, "option_name", None) == "--simulator":
        return 'This needs one that stays: kimi-async simulate, then eval "$(...)" its two lines.'
    path = getattr(getattr(error, "ctx", None), "command_path", "kimi-async")
    return f"Try {path} --help."


def _complain(error: BaseException | str) -> None:
    if isinstance(error, str):
        text = error
    else:
        text = str(error) if isinstance(error, Failure) and error.lines else explain(error)
    out = notes()
    # A log gets one line; on a terminal no word is cut.
    out.print(f"[red]kimi-async:[/] {escape(text)}", soft_wrap=not out.is_terminal)


def run_async(work: Coroutine[object, object, T]) -> T:
    """
    Runs a coroutine to its end, on uvloop where that is installed. Ctrl-C cancels it and raises KeyboardInterrupt here,
    after its `finally` blocks have run. Another cancels what these wait for, and a third ends the process where it is.

    asyncio's own way raises KeyboardInterrupt out of whatever the loop is at when the second comes, with tracebacks of what was
    being closed.
    """
    interruptions = 0
    task: asyncio.Task[T] | None = None

    async def main() -> T:
        nonlocal task
        task = asyncio.current_task()
        if interruptions:
            raise asyncio.CancelledError
        return await work

    def interrupted(number: int, frame: object) -> None:
        nonlocal interruptions
        interruptions += 1
        if interruptions > 2:
            notes().show_cursor(True)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if task is not None and not task.done():
            task.cancel()
            task.get_loop().call_soon_threadsafe(lambda: None)  # wakes it

    with _on_interrupt(interrupted), asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(main())
        except asyncio.CancelledError:
            if interruptions:
                raise KeyboardInterrupt from None
            raise
        finally:
            work.close()


@contextmanager
def _on_interrupt(handler: Callable[[int, object], None]) -> "Generator[None]":
    """Handles Ctrl-C so in the block, where nobody else does."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def read_stdin() -> str:
    """Everything on standard input, as text."""
    try:
        # Its bytes where there are any: in a locale without UTF-8 Python would let through what is no text.
        raw = getattr(sys.stdin, "buffer", None)
        return sys.stdin.read() if raw is None else raw.read().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise Failure(f"standard input is not UTF-8 text ({exc.reason} at byte {exc.start})") from None


def print_json(value: object) -> None:
    """The one form of JSON that commands print with --json."""
    encoded = msgspec.json.Encoder(decimal_format="number").encode(value)
    print(msgspec.json.format(encoded, indent=2).decode())


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """What was measured, a line each, on standard error."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, escape(value))
    notes().print(grid)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: how its values look, and what becomes of it where a terminal is too narrow."""

    name: str
    kind: Literal["text", "word", "id", "number", "size", "time"] = "text"
    drop: int = 0
    """Where the table is too wide, the column with the highest number is left out first; 0 stays."""

    def plain(self, value: Any) -> str:
        """For another program: bytes, UTC, no separators."""
        if value is None:
            return ""
        if self.kind == "time":
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if value else ""
        return " ".join(str(value).split("\n")).replace("\t", " ")

    def pretty(self, value: Any) -> str:
        """For a person."""
        if value is None or value == "":
            return ""
        if self.kind == "number":
            return f"{value:,}" if isinstance(value, int | float) else str(value)
        if self.kind == "size":
            return size(value)
        if self.kind == "time":
            return datetime.fromtimestamp(value).strftime("%b %d %H:%M") if value else ""
        return self.plain(value)


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """
    For a pipe one header line and one line a row, separated by tabs. For a terminal a table no wider than it: ids and words stay in one
    piece, text is folded, and columns that are only nice to have are left out.
    """
    out = console()
    if not out.is_terminal:
        print("\t".join(column.name for column in columns))
        for row in rows:
            print("\t".join(column.plain(value) for column, value in zip(columns, row, strict=True)))
        return
    out.print(grid_of(columns, rows, out.width), crop=False)


def grid_of(columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int) -> Table:
    """The table for a terminal of this width. It is wider only where an id alone is: no character of an id is lost."""
    cells = [[column.pretty(value) for column, value in zip(columns, row, strict=True)] for row in rows]
    kept = fitting(columns, cells, width)
    least, most = least_width(columns, cells, kept), sum(widths(columns, cells)) + GAP * len(kept)
    grid = Table(
        box=None, header_style="bold", pad_edge=False, width=max(least, width) if most > width else None
    )
    for number in kept:
        column = columns[number]
        whole = column.kind != "text"
        grid.add_column(
            column.name,
            justify="right" if column.kind in ("number", "size") else "left",
            overflow="fold",
            no_wrap=whole,
            min_width=widths(columns, cells)[number] if whole else None,
        )
    for row in cells:
        grid.add_row(*(escape(row[number]) for number in kept))
    return grid


SHORTEST = 24
"""Columns of text are folded to no less than this."""
GAP = 2
"""Blanks between two columns."""


def widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column is when nothing is folded."""
    return [
        max([cell_len(column.name), *(cell_len(row[number]) for row in cells)])
        for number, column in enumerate(columns)
    ]


def least_width(columns: Sequence[Column], cells: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    """How narrow the table may be: text folded as far as it goes, the rest in one piece."""
    wide = widths(columns, cells)
    return sum(
        min(wide[number], SHORTEST) if columns[number].kind == "text" else wide[number] for number in kept
    ) + GAP * max(0, len(kept) - 1)


def fitting(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """The numbers of the columns that are shown in a terminal of this width."""
    kept = list(range(len(columns)))
    while least_width(columns, cells, kept) > width:
        going = max(kept, key=lambda number: columns[number].drop)
        if columns[going].drop == 0:
            break
        kept.remove(going)
    return kept
