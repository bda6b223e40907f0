"""
The commands and their options. Each is thin: what it does lives in the module it imports when it is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import batch as batch_commands
from . import doctor as doctor_command
from . import files as files_commands
from . import limits as limits_command
from . import map as map_command
from . import simulate as simulate_command
from .connect import Kimi, asks_kimi
from .options import Json, Model, System
from .terminal import fail_quietly

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="kimi-async",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a rich traceback shows local variables, and keys are local variables
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
    Talk to Kimi (Moonshot AI) from a terminal, and see what the client can do.

    [bold]No key yet?[/] Everything works against a Kimi simulated on this machine:

      [cyan]kimi-async demo[/]                          many streamed chats at once
      [cyan]kimi-async chat --simulator Hello[/]        one answer, as it is written

    [bold]With a key:[/]

      [cyan]export KIMI_API_KEY=sk-…[/]                 (or MOONSHOT_API_KEY)
      [cyan]kimi-async chat[/]                          a conversation; /help lists commands
      [cyan]kimi-async chat "Summarise:" - < notes.txt[/]
      [cyan]kimi-async map in.jsonl -o out.jsonl[/]     thousands of requests, with a journal
      [cyan]kimi-async models[/], [cyan]kimi-async balance[/]
      [cyan]kimi-async doctor[/]                        what is wrong, and what to do

    KIMI_BASE_URL (or MOONSHOT_BASE_URL) chooses another host, such as https://api.moonshot.cn/v1 for keys from China.
    Results go to standard output and everything else to standard error, so that pipes get results only.
    """,
)


def version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"kimi-async {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", "-V", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
@asks_kimi(simulator=False)
def demo(
    kimi: Kimi,
    chats: Annotated[
        int | None,
        typer.Option(
            "--chats",
            "-n",
            min=1,
            max=10_000,
            help="How many at once.",
            show_default="40; 3 with --live",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="The longest answer, in tokens.")] = 160,
    pace: Annotated[
        float,
        typer.Option(min=0, help="Tokens a second that the simulated model writes; 0 for as fast as it can."),
    ] = 40.0,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the real Kimi; this costs money and needs a key.")
    ] = False,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """
    Run many streamed chats at once, and measure them.

    Without --live the chats go to a Kimi simulated on this machine over real sockets: no key, no cost.
    """
    from . import demo

    demo.main(
        kimi, chats=chats, tokens=tokens, pace=pace, live=live, model=kimi.model(model), as_json=as_json
    )


@app.command()
@asks_kimi(simulator=True)
def chat(
    kimi: Kimi,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to say; '-' stands for standard input. Without it, a conversation.", show_default=False
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            help="A document, picture or film to ask about. May be repeated.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    system: System = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking",
            help="Ask for reasoning, or for none.",
            show_default="as the model does",
        ),
    ] = None,
    effort: Annotated[
        Literal["low", "high", "max"] | None,
        typer.Option(help="How hard to think (K3 models).", show_default=False),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Bound on the answer, reasoning included.", show_default=False)
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tell time to first token, speed and usage afterwards.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown/--no-markdown", help="On a terminal, show Markdown as what it means.")
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            help="Go on with a conversation that /save kept.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """
    Ask once, or hold a conversation; answers are shown as they are written, reasoning dimmed.

    In a pipe only the answer is printed. Ctrl-C stops an answer; at the prompt, Ctrl-D or Ctrl-C leaves.
    """
    from . import chat

    extra: dict[str, object] = {}
    if thinking is not None:
        extra["thinking"] = {"type": "enabled" if thinking else "disabled"}
    if effort is not None:
        extra["reasoning_effort"] = effort
    if max_tokens is not None:
        extra["max_completion_tokens"] = max_tokens
    before = chat.Conversation.load(resume) if resume is not None else None
    conversation = before or chat.Conversation(kimi.model(model))
    conversation.model = model or conversation.model
    conversation.system = system or conversation.system
    manner = chat.Manner(extra, stats=stats, markdown=markdown)
    return chat.main(kimi, prompt or [], conversation, manner, files=files or (), as_json=as_json)


@app.command()
@asks_kimi(simulator=True)
def models(kimi: Kimi, as_json: Json = False) -> None:
    """List the models that your key may use."""
    from . import account

    account.models(kimi, as_json=as_json)


@app.command()
@asks_kimi(simulator=True)
def tokens(
    kimi: Kimi,
    text: Annotated[
        list[str] | None,
        typer.Argument(help="The text; '-' or nothing for standard input.", show_default=False),
    ] = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Count the tokens that a text costs as a prompt, before it is sent to a model."""
    from . import account

    account.tokens(kimi, text or ["-"], model=kimi.model(model), as_json=as_json)


@app.command()
@asks_kimi(simulator=True)
def balance(kimi: Kimi, as_json: Json = False) -> None:
    """Tell how much money is left: dollars on api.moonshot.ai, yuan on api.moonshot.cn."""
    from . import account

    account.balance(kimi, as_json=as_json)


app.add_typer(map_command.app)
app.add_typer(batch_commands.app, name="batch")
app.add_typer(files_commands.app, name="files")
app.add_typer(simulate_command.app)
app.add_typer(doctor_command.app)
app.add_typer(limits_command.app)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status."""

    return fail_quietly(lambda: app(list(arguments), prog_name="kimi-async", standalone_mode=False))
