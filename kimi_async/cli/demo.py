"""
`kimi-async demo`: the main job. Many streamed chats at once through one client, shown as they run, then measured.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..client import AsyncKimi
from ..errors import KimiError
from .connect import Kimi, simulated
from .terminal import Column, Failure, console, explain, notes, print_json, run_async, table
from .writing import printable

__all__ = ["Chat", "main", "percentile", "summary"]

SUBJECTS = (
    "why rivers bend", "how bread rises", "what a lighthouse is for", "who named the stars", "how bees find home",
    "why paper yellows", "how a sail pulls", "what glass is", "why leaves fall", "how salt is made",
    "where wind begins", "how clocks agree",
)  # fmt: skip


@dataclass(slots=True)
class Chat:
    """One chat as the screen shows it. Times are seconds of the loop's clock."""

    number: int
    subject: str
    budget: int
    started: float = 0.0
    first_token: float | None = None
    ended: float | None = None
    deltas: int = 0
    tokens: int | None = None
    thinking: bool = False
    tail: str = ""
    error: str | None = None
    kind: str = ""
    """The class of the error: texts differ by request ids."""

    @property
    def state(self) -> str:
        if self.error is not None:
            return "failed"
        if self.ended is not None:
            return "done"
        if self.first_token is None:
            return "waiting"
        return "thinking" if self.thinking else "writing"

    @property
    def written(self) -> int:
        """Tokens: as the server counted them once it has said so, and one a delta until then."""
        return self.deltas if self.tokens is None else self.tokens


@dataclass(slots=True)
class Run:
    chats: list[Chat]
    clock: Callable[[], float]
    started: float
    ended: float | None = None
    connections: Callable[[], int | None] = field(default=lambda: None)

    @property
    def elapsed(self) -> float:
        return (self.clock() if self.ended is None else self.ended) - self.started


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest value that at least `share` (0 to 1) of the values do not exceed: the nearest-rank percentile, so the
    answer is always a measured value. Of nothing, 0.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def summary(run: Run, comma: str = "") -> list[tuple[str, str]]:
    """What was measured, as rows of a table; `comma` separates thousands, for a person."""
    waits = [chat.first_token - chat.started for chat in run.chats if chat.first_token is not None]
    speeds = [
        chat.written / (chat.ended - chat.first_token)
        for chat in run.chats
        if chat.error is None
        and chat.ended is not None
        and chat.first_token is not None
        and chat.ended > chat.first_token
    ]
    written = sum(chat.written for chat in run.chats)
    opened = run.connections()

    def number(value: float, digits: int = 0) -> str:
        return f"{value:,.{digits}f}".replace(",", comma)

    rows = [
        ("chats", number(len(run.chats))),
        ("failures", number(sum(chat.error is not None for chat in run.chats))),
        ("time", f"{run.elapsed:.2f} s"),
        ("tokens", number(written)),
        ("tokens/s", number(written / run.elapsed if run.elapsed else 0)),
    ]
    # Where it was interrupted before that there is nothing to tell, and 0 ms would be a lie.
    if speeds:
        rows.append(("tokens/s of one chat, p50", number(percentile(speeds, 0.5), 1)))
    if waits:
        rows += [
            (f"time to first token, p{share}", f"{number(percentile(waits, share / 100) * 1000)} ms")
            for share in (50, 99)
        ]
    if opened is not None:
        rows.append(("connections opened", number(opened)))
    return rows


class Screen:
    """What a person watches: a line for the whole, and a line a chat for as many as fit, the busiest first."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        run = self.run
        states = Counter(chat.state for chat in run.chats)
        written = sum(chat.written for chat in run.chats)
        ended = states["done"] + states["failed"]
        head = Table.grid(padding=(0, 2))
        for _ in range(5):
            head.add_column(no_wrap=True)
        head.add_row(
            ProgressBar(total=len(run.chats), completed=ended, width=20),
            Text(f"{ended}/{len(run.chats)} chats", style="bold"),
            Text(f"{written:,} tokens"),
            Text(f"{written / run.elapsed if run.elapsed else 0:,.0f} tokens/s", style="cyan"),
            Text(f"{states['failed']} failed" if states["failed"] else "", style="red"),
        )
        yield head
        room = max(1, (options.height or console.height) - 4)
        order = {"writing": 0, "thinking": 0, "failed": 1, "waiting": 2, "done": 3}
        # Rows keep their places while they are busy: sorting is stable and by state only.
        shown = sorted(run.chats, key=lambda chat: order[chat.state])[:room]
        body = Table.grid(padding=(0, 1), expand=True)
        body.add_column(justify="right", style="dim", no_wrap=True)
        body.add_column(width=20)
        body.add_column(justify="right", no_wrap=True, width=5)
        body.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for chat in sorted(shown, key=lambda chat: chat.number):
            finished = chat.state == "done"
            body.add_row(
                f"{chat.number}",
                ProgressBar(
                    total=chat.budget, completed=chat.budget if finished else min(chat.written, chat.budget)
                ),
                f"{chat.written}",
                self.words(chat, max(10, options.max_width - 40)),
            )
        yield body
        if len(shown) < len(run.chats):
            yield Text(f"… and {len(run.chats) - len(shown)} more", style="dim")

    def words(self, chat: Chat, width: int) -> Text:
        if chat.error is not None:
            return Text(chat.error, style="red")
        if chat.first_token is None:
            return Text("…", style="dim")
        # Some texts hold tabs, or line separators that only terminals obey: one of them and the screen is torn.
        return Text(" ".join(chat.tail.split())[-width:], style="dim italic" if chat.thinking else "")


@contextmanager
def unwrapped(out: Console) -> Generator[None]:
    """
    Long lines are cut at the edge instead of going on below it (DECAWM off).

    A terminal and rich may disagree about how wide a character is (emoji of several parts, above all); where a line
    then wraps, the screen is one line longer than rich believes, and every frame leaves its first line behind.
    """
    out.file.write("\x1b[?7l")
    try:
        yield
    finally:
        out.file.write("\x1b[?7h")


async def one(client: AsyncKimi, chat: Chat, clock: Callable[[], float], model: str) -> None:
    """Streams one chat into its line. A refusal ends this chat and no other."""
    chat.started = clock()
    try:
        async with await client.chat.completions.create(
            model=model,
            messages=[
                {
                    "role": "user",
                    "content": f"In a few sentences: {chat.subject}? (asked by visitor {chat.number})",
                }
            ],
            max_completion_tokens=chat.budget,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    chat.tokens = chunk.usage.completion_tokens
                for choice in chunk.choices:
                    reasoning, content = choice.delta.reasoning_content, choice.delta.content
                    text = content or reasoning
                    if not text:
                        continue
                    if chat.first_token is None:
                        chat.first_token = clock()
                    chat.deltas += 1
                    chat.thinking = not content
                    chat.tail = (chat.tail + printable(text))[-200:]
    except KimiError as exc:
        chat.error, chat.kind = explain(exc), type(exc).__name__
    finally:
        chat.ended = clock()
        chat.thinking = False


async def perform(run: Run, client: AsyncKimi, *, model: str) -> None:
    """All chats at once."""
    async with anyio.create_task_group() as group:
        for chat in run.chats:
            group.start_soon(one, client, chat, run.clock, model)
    run.ended = run.clock()


def main(
    kimi: Kimi, *, chats: int | None, tokens: int, pace: float, live: bool, model: str, as_json: bool
) -> None:
    # 40 is a screen full; live, 3 is what the lowest paid tier allows at once (platform.kimi.ai, rate limits, 2026-09).
    count = chats or (3 if live else 40)
    out = console()
    drawing = out.is_terminal and not as_json

    async def work() -> Run:
        clock = asyncio.get_running_loop().time
        lines = [Chat(n, SUBJECTS[n % len(SUBJECTS)], tokens) for n in range(1, count + 1)]
        simulator = None if live else simulated(pace=pace)
        asked = kimi if live else Kimi(simulator=True)
        async with asked.connected(simulator=simulator) as client:
            run = Run(lines, clock, clock())
            if simulator is not None:
                run.connections = lambda: simulator.stats.connections_opened
            try:
                if drawing:
                    with (
                        unwrapped(out),
                        Live(Screen(run), console=out, refresh_per_second=12, transient=True),
                    ):
                        await perform(run, client, model=model)
                else:
                    await perform(run, client, model=model)
            except asyncio.CancelledError:
                ended = sum(chat.tokens is not None for chat in run.chats)
                notes().print(f"[yellow]Interrupted[/] when {ended} of {len(run.chats)} chats had ended.")
                raise
            finally:
                run.ended = clock()
                report(run, live=live, model=model, as_json=as_json)
        return run

    run = run_async(work())
    failed = [chat for chat in run.chats if chat.error is not None]
    if failed:
        kind, times = Counter(chat.kind for chat in failed).most_common(1)[0]
        reason = next(chat.error for chat in failed if chat.kind == kind)
        raise Failure(f"{len(failed)} of {len(run.chats)} chats failed, {times} of them like this: {reason}")


def report(run: Run, *, live: bool, model: str, as_json: bool) -> None:
    """The table, also of a run that was interrupted."""
    where = "Kimi" if live else "a Kimi simulated on this machine"
    notes().print(f"[dim]{len(run.chats)} streamed chats at once, {model}, {where}.[/]")
    if as_json:
        print_json(dict(summary(run)))
    else:
        table(
            [Column("measure"), Column("value", "number")], summary(run, "," if console().is_terminal else "")
        )
