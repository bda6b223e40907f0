"""
`kimi-async chat`: one answer, or a conversation.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ..client import AsyncKimi
from .connect import Kimi
from .terminal import INTERRUPTED, Failure, console, fail_quietly, loop_factory, notes, read_stdin, run_async

__all__ = ["main", "printable"]

# What a terminal obeys: C0 and C1 controls except newline and tab. A model's text is text; it may not move the
# cursor, rename the window or write to the clipboard.
CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in [*range(0x20), *range(0x7F, 0xA0)]
    if chr(code) not in "\n\t"
}


def printable(text: str) -> str:
    """
    The text with control characters replaced, for a terminal.
    """
    return text.translate(CONTROLS)


def main(
    kimi: Kimi,
    words: Sequence[str],
    *,
    model: str,
    system: str | None,
    stats: bool,
    options: dict[str, Any],
) -> None:
    messages: list[Any] = [{"role": "system", "content": system}] if system is not None else []
    if not words and sys.stdin.isatty():
        converse(kimi, messages, model=model, stats=stats, options=options)
        return
    prompt = prompt_from(words or ["-"])
    messages.append({"role": "user", "content": prompt})

    async def once() -> None:
        async with kimi.connected() as client:
            await answer(client, messages, model=model, stats=stats, options=options)

    run_async(once())


def prompt_from(words: Sequence[str]) -> str:
    """
    The words as one text, with '-' replaced by standard input on lines of its own.
    """
    parts: list[str] = []
    for word in words:
        if word == "-":
            parts.append(f"\n\n{read_stdin().strip()}")
        else:
            parts.append(f" {word}")
    text = "".join(parts).strip()
    if not text:
        raise Failure("there is nothing to say: the prompt is empty", status=2)
    return text


async def answer(
    client: AsyncKimi, messages: list[Any], *, model: str, stats: bool, options: dict[str, Any]
) -> str:
    """
    Streams one answer to standard output and returns it. Reasoning is shown, dimmed, only on a terminal.
    """
    out = console()
    terminal = out.is_terminal
    clock = time.perf_counter  # not the loop's: uvloop counts in milliseconds, and an answer may be quicker
    started = clock()
    first: float | None = None
    text: list[str] = []
    thinking = False
    usage: Any = None
    finish: str | None = None
    async with await client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **options
    ) as stream:
        try:
            async for chunk in stream:
                usage = chunk.usage or usage
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                finish = choice.finish_reason or finish
                reasoning, content = choice.delta.reasoning_content, choice.delta.content
                if first is None and (reasoning or content):
                    first = clock()
                if reasoning and terminal:
                    thinking = True
                    write(out, printable(reasoning), "dim italic")
                if content:
                    if thinking:
                        thinking = False
                        write(out, "\n\n")
                    text.append(content)
                    write(out, printable(content) if terminal else content)
        finally:
            # Also after Ctrl-C: the shell's prompt belongs on a line of its own.
            if terminal or text:
                write(out, "\n")
    if finish == "length":
        notes().print("[dim]The answer was cut at its token limit; see --max-tokens.[/]")
    if stats:
        tell(notes(), started, first, clock(), usage)
    return "".join(text)


def write(out: Console, text: str, style: str | None = None) -> None:
    if out.is_terminal:
        out.print(text, end="", style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def tell(out: Console, started: float, first: float | None, ended: float, usage: Any) -> None:
    parts = [f"{ended - started:.1f} s"]
    if first is not None:
        parts.append(f"first token after {first - started:.2f} s")
    if usage is not None:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
        if first is not None and ended > first:
            parts.append(f"{usage.completion_tokens / (ended - first):.0f} tokens/s")
    out.print(f"[dim]{' · '.join(parts)}[/]")


def converse(kimi: Kimi, messages: list[Any], *, model: str, stats: bool, options: dict[str, Any]) -> None:
    """
    A conversation until Ctrl-D. The loop stands still while the person types, so that the line is read in the main
    thread, where Ctrl-C works.
    """
    out = notes()
    out.print(f"[dim]{model}. Ctrl-C stops an answer, Ctrl-D leaves.[/]")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        context = kimi.connected()
        client = runner.run(context.__aenter__())
        try:
            while True:
                try:
                    said = input("> ").strip()
                except (EOFError, KeyboardInterrupt):
                    out.print()
                    return
                if not said:
                    continue
                messages.append({"role": "user", "content": said})
                spoken: list[str] = []
                work = answer(client, messages, model=model, stats=stats, options=options)
                status = fail_quietly(lambda: spoken.append(runner.run(work)))  # noqa: B023  (called at once)
                if status == 0:
                    messages.append({"role": "assistant", "content": spoken[0]})
                else:
                    # What was refused or stopped is not part of the conversation.
                    messages.pop()
                    if status == INTERRUPTED:
                        out.print("[dim]Stopped.[/]")
        finally:
            runner.run(context.__aexit__(None, None, None))
