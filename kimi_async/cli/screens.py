"""
What is seen while bulk work runs, on standard error: a bar, a line now and then, or nothing; and what Ctrl-C does.
"""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from anyio import CancelScope
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .terminal import duration, notes

__all__ = ["Screen", "Shown", "interrupts", "screen", "shown_meanwhile"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One look at a run. `text` may have rich's mark-up; `eta` is in seconds."""

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
    """For a log: a line every ten seconds."""

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
    """For a terminal: a bar that moves."""

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
    """The one that fits where standard error goes."""
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
def interrupts(stop: Callable[[], None]) -> "Generator[CancelScope]":
    """The first Ctrl-C calls `stop`; the second gives up what is in here, and the scope says so (`cancelled_caught`)."""
    loop = asyncio.get_running_loop()
    asked = False

    def interrupted() -> None:
        nonlocal asked
        if asked:
            scope.cancel()
            return
        asked = True
        stop()

    before = signal.getsignal(signal.SIGINT)
    with CancelScope() as scope:
        try:
            loop.add_signal_handler(signal.SIGINT, interrupted)
        except (NotImplementedError, RuntimeError):
            # Windows, and threads other than the main one: Ctrl-C cancels at once. What is journaled is safe anyway.
            yield scope
            return
        try:
            yield scope
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before or signal.default_int_handler)  # the loop leaves Python's own


@asynccontextmanager
async def shown_meanwhile(seen: Screen, look: Callable[[], Shown]) -> "AsyncGenerator[None]":
    """Looks every quarter of a second while the block runs, from its start, and once more at its end."""

    async def watch() -> None:
        while True:
            seen.show(look())
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        seen.show(look())
