"""
What every command shares: where to print, how to run a coroutine, and how to fail in one line.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import AuthenticationError, ConfigurationError, KimiError
from ..redact import redact

__all__ = [
    "INTERRUPTED",
    "Failure",
    "console",
    "explain",
    "fail_quietly",
    "loop_factory",
    "notes",
    "read_stdin",
    "run_async",
    "table",
]

T = TypeVar("T")

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
PIPE_CLOSED = 1  # whoever read us has had enough; silent, as with other programs built on click


class Failure(Exception):
    """
    Ends the command with one line on standard error.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def console() -> Console:
    """
    For results, on standard output; without colour and control codes when that is not a terminal.

    Made when asked for: the streams may have been replaced since import (tests do).
    """
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def notes() -> Console:
    """
    For progress, hints and complaints, on standard error, so that a pipe gets results only.
    """
    return Console(stderr=True, highlight=False)


def explain(error: BaseException) -> str:
    """
    One line for a person: what happened, whose turn it is. No traceback, no key.
    """
    text = redact(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, AuthenticationError):
        return f"{text} Keys of api.moonshot.ai and api.moonshot.cn are not interchangeable; KIMI_BASE_URL chooses the host."
    if isinstance(error, (KimiError, ConfigurationError, Failure)):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text}"


def fail_quietly(command: Callable[[], Any]) -> int:
    """
    Runs a command and returns its exit status; whatever goes wrong is one line on standard error.
    """
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
            notes().print(
                f"[red]kimi-async:[/] {escape(' '.join(str(show()).split()))} [dim]Try --help.[/]",
                soft_wrap=True,
            )
            return int(getattr(exc, "exit_code", 2))
        if type(exc).__name__ == "Exit":
            return int(getattr(exc, "exit_code", 0))
        if type(exc).__name__ == "Abort":
            return INTERRUPTED
        _complain(exc)
        return 1
    return result if isinstance(result, int) else 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return first


def _complain(error: BaseException) -> None:
    notes().print(f"[red]kimi-async:[/] {escape(explain(error))}", soft_wrap=True)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """
    Runs a coroutine to its end, on uvloop where that is installed. Ctrl-C cancels it and raises KeyboardInterrupt here,
    after its `finally` blocks have run.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def read_stdin() -> str:
    """
    Everything on standard input, as text.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise Failure(f"standard input is not UTF-8 text ({exc.reason} at byte {exc.start})") from None


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """
    A table for a terminal; for a pipe one header line and one line a row, separated by tabs.
    """
    out = console()
    if not out.is_terminal:
        for row in [columns, *rows]:
            print("\t".join(str(cell) for cell in row))
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    out.print(grid)
