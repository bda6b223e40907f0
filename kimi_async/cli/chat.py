"""`kimi-async chat`: one answer, or a conversation."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .connect import Kimi, naming_models
from .conversation import COMMANDS, Command, Conversation, command_in
from .terminal import (
    INTERRUPTED,
    Failure,
    console,
    fail_quietly,
    loop_factory,
    notes,
    print_json,
    read_stdin,
    run_async,
)
from .writing import Writing, writing

if TYPE_CHECKING:
    from ..client import AsyncKimi
    from ..types import ChatCompletion

__all__ = ["Conversation", "Manner", "main", "prompt_from"]


@dataclass(frozen=True, slots=True)
class Manner:
    """How to ask and how to show the answer."""

    options: dict[str, Any]
    """More arguments of the request."""
    stats: bool = False
    markdown: bool = True


def main(
    kimi: Kimi,
    words: Sequence[str],
    conversation: Conversation,
    manner: Manner,
    *,
    files: Sequence[Path] = (),
    as_json: bool = False,
) -> int:
    if not words and sys.stdin.isatty():
        if as_json:
            raise Failure("--json is for one answer: say what to ask", status=2)
        return converse(kimi, conversation, manner, files)
    prompt = prompt_from(words or ["-"])

    async def once() -> None:
        async with kimi.connected() as client:
            for path in files:
                await conversation.attach(client, path)
            messages: Any = conversation.ask(prompt)
            if as_json:
                create: Any = client.chat.completions.create
                completion: ChatCompletion = await create(
                    model=conversation.model, messages=messages, **manner.options
                )
                print_json(completion.to_dict())
            else:
                await answer(client, conversation, messages, manner)

    run_async(once())
    return 0


def prompt_from(words: Sequence[str]) -> str:
    """The words as one text, with '-' replaced by standard input on lines of its own."""
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


async def answer(client: "AsyncKimi", conversation: Conversation, messages: Any, manner: Manner) -> None:
    """Streams one answer to standard output, reasoning on a terminal only, and takes it into the conversation."""
    clock = time.perf_counter  # not the loop's: uvloop counts in milliseconds, and an answer may be quicker
    started = clock()
    first: float | None = None
    thoughts: list[str] = []
    text: list[str] = []
    usage: Any = None
    finish: str | None = None
    with writing(console(), markdown=manner.markdown) as shown:
        async with (
            ticking(shown),
            naming_models(client),
            await client.chat.completions.create(
                model=conversation.model,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
                **manner.options,
            ) as stream,
        ):
            async for chunk in stream:
                usage = chunk.usage or usage
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                finish = choice.finish_reason or finish
                reasoning, content = choice.delta.reasoning_content, choice.delta.content
                if first is None and (reasoning or content):
                    first = clock()
                if reasoning:
                    thoughts.append(reasoning)
                    shown.reasoning(reasoning)
                if content:
                    text.append(content)
                    shown.content(content)
    conversation.answered("".join(text), "".join(thoughts))
    if finish == "length":
        notes().print("[dim]The answer was cut at its token limit; see --max-tokens.[/]")
    if manner.stats:
        tell(notes(), started, first, clock(), usage)


@asynccontextmanager
async def ticking(shown: Writing) -> AsyncGenerator[None]:
    """Has it drawn twelve times a second, from this thread."""

    async def tick() -> None:
        while True:
            shown.tick()
            await asyncio.sleep(1 / 12)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


def tell(out: Console, started: float, first: float | None, ended: float, usage: Any) -> None:
    parts = [f"{ended - started:.1f} s"]
    if first is not None:
        parts.append(f"first token after {first - started:.2f} s")
    if usage is not None:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
        if first is not None and ended > first:
            parts.append(f"{usage.completion_tokens / (ended - first):.0f} tokens/s")
    out.print(f"[dim]{' · '.join(parts)}[/]")


# --- a conversation ---------------------------------------------------------------------------------------


class Reader(Protocol):
    """Reads what a person types: a line, or several pasted ones; None when there is no more."""

    async def read(self) -> str | None: ...


class _LineReader:
    """With editing, history and completion of commands. Alt-Enter begins a new line, and what is pasted stays together."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.output import create_output

        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: Any) -> None:
            event.current_buffer.insert_text("\n")

        self._session: PromptSession[str] = PromptSession(
            "> ",
            history=_history(),
            key_bindings=keys,
            completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
            complete_while_typing=False,
            # Where the answer goes to a file, the prompt does not.
            output=create_output(stdout=sys.stdout if sys.stdout.isatty() else sys.stderr),
        )

    async def read(self) -> str | None:
        try:
            # Ctrl-C is a key while a line is edited: the signal belongs to the answer.
            return await self._session.prompt_async(handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return None


def _history() -> Any:
    """What was typed in earlier conversations, in a file for its owner alone; in memory where there is no place for it."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = Path(state, "kimi-async", "chat-history")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def converse(kimi: Kimi, conversation: Conversation, manner: Manner, files: Sequence[Path]) -> int:
    """A conversation until Ctrl-D. Ctrl-C stops an answer, and the conversation goes on."""
    out = notes()
    out.print(
        f"[dim]{escape(conversation.model)}. /help lists commands; Ctrl-C stops an answer, Ctrl-D leaves.[/]"
    )
    if conversation.messages:
        out.print(
            f"[dim]{len(conversation.messages)} messages of {escape(str(conversation.path))} stand before.[/]"
        )
    reader = _LineReader()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        context = kimi.connected()
        client = runner.run(context.__aenter__())
        try:
            for path in files:
                runner.run(conversation.attach(client, path))
            while True:
                line = runner.run(reader.read())
                if line is None:
                    break
                if not line.strip():
                    continue
                status = fail_quietly(partial(_turn, runner, client, conversation, manner, line))
                if status == LEAVE:
                    break
                if status == INTERRUPTED:
                    out.print("[dim]Stopped. /retry asks again.[/]")
        finally:
            runner.run(context.__aexit__(None, None, None))
    return 0


LEAVE = -1
"""What a turn answers when the person wants no other."""


def _turn(
    runner: asyncio.Runner, client: "AsyncKimi", conversation: Conversation, manner: Manner, line: str
) -> int:
    """One line of a person: a command, or a question."""
    command = command_in(line)
    if command is None:
        messages = conversation.ask(line.strip())
    elif command.name == "retry":
        again = conversation.ask_again()
        if again is None:
            raise Failure("there is no question yet to ask again")
        messages = again
    elif command.name == "quit":
        return LEAVE
    elif command.name == "file":
        if not command.argument:
            raise Failure("/file wants the path of a document, picture or film")
        path = Path(command.argument).expanduser()
        runner.run(conversation.attach(client, path))
        notes().print(f"[dim]{escape(path.name)} goes along with the next question.[/]")
        return 0
    else:
        _obey(command, conversation)
        return 0
    # What is refused or stopped is not part of the conversation.
    runner.run(answer(client, conversation, messages, manner))
    return 0


def _obey(command: Command, conversation: Conversation) -> None:
    out = notes()
    argument = command.argument
    if command.name == "help":
        grid = Table.grid(padding=(0, 2))
        for name, (wants, does) in COMMANDS.items():
            grid.add_row(escape(f"/{name} {wants}"), does)
        grid.add_row("Alt-Enter", "a new line; pasted lines stay together")
        out.print(grid)
    elif command.name == "model":
        conversation.model = argument or conversation.model
        out.print(f"[dim]{escape(conversation.model)}[/]")
    elif command.name == "system":
        if argument:
            conversation.system = argument
        out.print(f"[dim]{escape(conversation.system or 'There is no system message.')}[/]")
    elif command.name == "new":
        conversation.clear()
        out.print("[dim]A new conversation.[/]")
    elif command.name == "save":
        path = Path(argument).expanduser() if argument else conversation.path
        if path is None:
            raise Failure("/save wants the name of a file")
        conversation.save(path)
        out.print(f"[dim]Saved: kimi-async chat --resume {escape(str(path))}[/]", soft_wrap=True)
