"""
How an answer appears while it is written: as it comes in a pipe; on a terminal as Markdown, its reasoning dimmed.
"""

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import ControlType, Segment
from rich.spinner import Spinner
from rich.text import Text

__all__ = ["Writing", "finished_blocks", "printable", "writing"]

# What a terminal obeys: C0 and C1 controls except newline and tab. A model's text is text; it may not move the
# cursor, rename the window or write to the clipboard.
CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in [*range(0x20), *range(0x7F, 0xA0)]
    if chr(code) not in "\n\t"
}

REASONING = "dim italic"


def printable(text: str) -> str:
    """The text with control characters replaced, for a terminal."""
    return text.translate(CONTROLS)


def finished_blocks(text: str) -> int:
    """
    How much of a Markdown text will look the same whatever follows: up to the last blank line outside of code after which a line
    begins without indentation. What comes after it may still become part of a list, a table or a block of code.
    """
    fence = ""
    end = position = 0
    after_blank = False
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if fence:
            if bare.startswith(fence) and not bare.strip(fence[0]):
                fence = ""
        elif not bare:
            after_blank = True
        else:
            if after_blank and not line[0].isspace():
                end = position
            after_blank = False
            if bare.startswith(("```", "~~~")):
                fence = bare[: len(bare) - len(bare.lstrip(bare[0]))]
        position += len(line)
    return end


class Writing(Protocol):
    """Where the pieces of an answer go; a context manager, left when the answer has ended, however."""

    def reasoning(self, piece: str) -> None: ...

    def content(self, piece: str) -> None: ...

    def tick(self) -> None:
        """To be called some times a second: draws what has changed since."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


def writing(out: Console, *, markdown: bool = True) -> Writing:
    """The way that fits where the answer goes."""
    if not out.is_terminal:
        return _Pipe()
    return _Screen(out, markdown) if not out.is_dumb_terminal else _Typewriter(out)


class _Pipe:
    """The answer alone, byte for byte, and a line's end."""

    def __init__(self) -> None:
        self._wrote = False

    def reasoning(self, piece: str) -> None:
        pass

    def content(self, piece: str) -> None:
        self._wrote = True
        sys.stdout.write(piece)
        sys.stdout.flush()

    def tick(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wrote:
            sys.stdout.write("\n")


class _Typewriter:
    """For terminals that can only print."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._thinking = False

    def reasoning(self, piece: str) -> None:
        self._thinking = True
        self._print(piece)

    def content(self, piece: str) -> None:
        if self._thinking:
            self._thinking = False
            self._print("\n\n")
        self._print(piece)

    def tick(self) -> None:
        pass

    def _print(self, piece: str) -> None:
        self._out.print(printable(piece), end="", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.print()


# A terminal and rich may disagree about how wide a character is (emoji of several parts, above all). Where a line then
# wraps, the screen is one line longer than rich believes, and every redraw leaves its first line behind: so what is drawn
# again and again is cut at the edge (DECAWM off), and all text keeps a little away from it.
CUT, WRAP = (Segment(code, None, [(ControlType.HOME,)]) for code in ("\x1b[?7l", "\x1b[?7h"))
MARGIN = 2


class _Tail:
    """As much of something's end as fits on the screen, redrawn safely."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield CUT
        narrow = options.update_width(max(1, options.max_width - MARGIN))
        lines = console.render_lines(self._inner, narrow, pad=False)
        for number, line in enumerate(lines[-max(1, console.height - 2) :]):
            if number:
                yield Segment.line()
            yield from line
        yield WRAP


class _Screen:
    """What is finished is printed and scrolls away; the block that is being written is drawn anew with each piece."""

    def __init__(self, out: Console, markdown: bool) -> None:
        self._out = out
        self._markdown = markdown
        self._held = ""
        self._thinking = False
        self._empty = True
        self._live = Live(
            Spinner("dots", Text("waiting for the first token", style="dim")),
            console=out,
            # rich's thread may draw between our printing and its own drawing, and then leaves lines behind: see `tick`.
            auto_refresh=False,
            transient=True,
            vertical_overflow="visible",
        )

    def reasoning(self, piece: str) -> None:
        if not self._thinking:
            self._finish()
            self._thinking = True
        self._held += printable(piece)
        # A paragraph at a time, so that words are never cut at the edge.
        done, newline, rest = self._held.rpartition("\n")
        if newline:
            self._print(Text(done, style=REASONING))
            self._held = rest
        self._draw()

    def content(self, piece: str) -> None:
        if self._thinking:
            self._finish()
            self._thinking = False
            self._out.print()
        self._held += printable(piece)
        if (end := finished_blocks(self._held)) > 0:
            self._print(self._shaped(self._held[:end]))
            self._out.print()
            self._held = self._held[end:]
        self._draw()

    def tick(self) -> None:
        self._live.refresh()

    def _shaped(self, text: str) -> RenderableType:
        if self._thinking:
            return Text(text, style=REASONING)
        # Where a link leads is shown, not hidden behind its words.
        return Markdown(text, hyperlinks=False) if self._markdown else Text(text.rstrip("\n"))

    def _draw(self) -> None:
        self._live.update(_Tail(self._shaped(self._held)))

    def _print(self, what: RenderableType) -> None:
        self._empty = False
        self._out.print(what, width=max(1, self._out.width - MARGIN))

    def _finish(self) -> None:
        held, shaped = self._held, self._shaped(self._held)
        self._held = ""
        self._live.update(Text(""))
        if held.strip():
            self._print(shaped)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._live.stop()
        if self._empty:
            self._out.print()
