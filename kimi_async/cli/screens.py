"""
What is seen while bulk work runs, on standard error: a bar, a line now and then, or nothing; and what Ctrl-C does.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .terminal import duration, notes

__all__ = ["Screen", "Shown", "first_interrupt", "screen"]


@dataclass(frozen=True, slots=True)
class Shown:
    """
    One look at a run. `text` may have rich's mark-up; `eta` is in seconds.
    """

    done: int
    total: int | None
    text: str
    eta: float | None = None


class Screen(Protocol):
    def show(self, shown: Shown) -> None: ...

    def say(self, text: str) -> None: ...


class _Silent:
    def show(self, shown: Shown) -> None:
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

    def show(self, shown: Shown) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 10
            total = f"/{shown.total:,}" if shown.total is not None else ""
            eta = f" · {duration(shown.eta)} left" if shown.eta is not None else ""
            self.say(f"{shown.done:,}{total} · {shown.text}{eta}")

    def say(self, text: str) -> None:
        self._out.print(text, soft_wrap=True)


class _Bar:
    """
    For a terminal: a bar that moves.
    """

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def show(self, shown: Shown) -> None:
        left = "" if shown.eta is None else f"{duration(shown.eta)} left"
        self._progress.update(self._task, completed=shown.done, total=shown.total, text=shown.text, left=left)

    def say(self, text: str) -> None:
        self._progress.console.print(text)


@contextmanager
def screen(quiet: bool) -> "Generator[Screen]":
    """
    The one that fits where standard error goes.
    """
    out = notes()
    if quiet:
        yield _Silent()
    elif not out.is_terminal:
        yield _Lines()
    else:
        columns = (
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("[dim]{task.fields[left]}[/]"),
        )
        with Progress(*columns, console=out, refresh_per_second=8, expand=True) as progress:
            yield _Bar(progress, progress.add_task("", total=None, text="", left=""))


@contextmanager
def first_interrupt(stop: Callable[[], None]) -> "Generator[None]":
    """
    The first Ctrl-C calls `stop`; the second cancels the task that is in here.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def interrupted() -> None:
        nonlocal asked
        if asked and task is not None:
            task.cancel()
        asked = True
        stop()

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
