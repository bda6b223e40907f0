"""
The command line: results in a pipe and on a terminal, failures in one line, and leaving by Ctrl-C.

Most tests call `run` in this process. Those about terminals, signals and pipes need a process of their own.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from multidict import CIMultiDict
from rich.console import Console
from typer.main import get_command

from kimi_async.cli.app import app, run
from kimi_async.cli.connect import Kimi
from kimi_async.cli.demo import Chat, Run, percentile, summary
from kimi_async.cli.simulate import log_line
from kimi_async.cli.terminal import Column, grid_of, run_async
from kimi_async.cli.writing import printable
from kimi_async.testing import KimiSimulator, RecordedRequest
from support.terminal import ESCAPE, KIMI, Terminal, environment, kimi, terminal_of

Here: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kimi_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`kimi`, in this process: quicker, where nothing depends on a process of its own."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        status = run(arguments)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    return call


# --- commands --------------------------------------------------------------------------------------------------------


def test_models_in_a_pipe_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets one header line and one line a model, without colour or padding."""

    assert 0 == run(["models", "--simulator"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert "id\tcontext\treasons\towner" == header
    assert "kimi-k3\t1048576\tyes\tmoonshot" in rows


def test_models_json_is_what_the_server_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` gives every field, for another program."""

    assert 0 == run(["models", "--simulator", "--json"])
    models = json.loads(capsys.readouterr().out)
    assert 1048576 == next(model["context_length"] for model in models if model["id"] == "kimi-k3")


def test_tokens_prints_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    """The count alone, so that a script can use it; more text costs more."""

    assert 0 == run(["tokens", "--simulator", "hello"])
    few = int(capsys.readouterr().out)
    assert 0 == run(["tokens", "--simulator", "hello " * 200])
    assert 0 < few < int(capsys.readouterr().out)


def test_tokens_reads_standard_input() -> None:
    """Without words, the text is read from the pipe."""
    done = kimi("tokens", "--simulator", stdin="hello " * 50)

    assert (0, "") == (done.returncode, done.stderr)
    assert int(done.stdout) > 20


def test_tokens_of_what_is_no_text_is_refused() -> None:
    """Bytes that are no UTF-8 are told as such, whatever the locale."""
    done = subprocess.run(
        [*KIMI, "tokens", "--simulator"],
        input=b"caf\xe9",
        capture_output=True,
        env={**environment(), "LC_ALL": "C", "PYTHONIOENCODING": "", "PYTHONUTF8": "0"},
        timeout=60,
    )

    assert (1, b"") == (done.returncode, done.stdout)
    assert b"kimi-async: standard input is not UTF-8 text" in done.stderr


def test_balance_prints_three_amounts(capsys: pytest.CaptureFixture[str]) -> None:
    """Decimals as the server wrote them."""

    assert 0 == run(["balance", "--simulator"])
    assert [
        "balance\tamount",
        "available\t49.58894",
        "voucher\t46.58893",
        "cash\t3.00001",
    ] == capsys.readouterr().out.splitlines()


def test_chat_in_a_pipe_prints_the_answer_only(neighbourhood: dict[str, str], kimi_here: Here) -> None:
    """No reasoning, no colour, no statistics: what is piped on is the answer."""
    done = kimi_here("chat", "hello", env=neighbourhood)
    again = kimi_here("chat", "hello", env=neighbourhood)

    assert (0, "") == (done.returncode, done.stderr)
    assert ESCAPE not in done.stdout
    assert done.stdout.endswith("\n")
    assert len(done.stdout.split()) > 10
    assert again.stdout == done.stdout


def test_chat_dash_stands_for_standard_input(neighbourhood: dict[str, str]) -> None:
    """Words and a file make one prompt; an empty prompt is wrong usage."""
    both = kimi("chat", "Summarise:", "-", env=terminal_of(neighbourhood), stdin="the notes\n")
    alone = kimi("chat", "Summarise:", env=terminal_of(neighbourhood))
    empty = kimi("chat", env=terminal_of(neighbourhood))

    assert 0 == both.returncode
    assert both.stdout != alone.stdout
    assert (2, "") == (empty.returncode, empty.stdout)
    assert "kimi-async: there is nothing to say: the prompt is empty\n" == empty.stderr


def test_chat_stats_go_to_standard_error(neighbourhood: dict[str, str], kimi_here: Here) -> None:
    """Measures are notes, not results."""
    done = kimi_here("chat", "hello", "--stats", env=neighbourhood)

    assert re.search(r"first token after [\d.]+ s · [\d,]+ \+ [\d,]+ tokens · \d+ tokens/s", done.stderr)
    assert "tokens/s" not in done.stdout


def test_chat_cut_by_its_budget_says_so(neighbourhood: dict[str, str], kimi_here: Here) -> None:
    """An answer that ended at --max-tokens is not passed off as a whole one."""
    done = kimi_here("chat", "hello", "--max-tokens", "5", env=neighbourhood)

    assert 0 == done.returncode
    assert "cut at its token limit" in done.stderr


def test_demo_in_a_pipe_measures_without_bars(kimi_here: Here) -> None:
    """The table comes as tab-separated lines; nothing is drawn."""
    done = kimi_here("demo", "--chats", "20", "--pace", "0", "--tokens", "40")

    assert 0 == done.returncode
    assert ESCAPE not in done.stdout + done.stderr
    measures = dict(line.split("\t") for line in done.stdout.splitlines())
    assert "20" == measures["chats"]
    assert "0" == measures["failures"]
    assert 1 <= int(measures["connections opened"]) <= 20
    assert int(measures["tokens"].replace(",", "")) > 20 * 5
    assert {"tokens/s", "time to first token, p50", "time to first token, p99"} <= set(measures)


def test_demo_numbers_are_plain_in_a_pipe(kimi_here: Here) -> None:
    """For another program: no separators of thousands, and --json the same measures as one document."""
    done = kimi_here("demo", "--chats", "40", "--pace", "0", "--tokens", "60")
    measures = dict(line.split("\t") for line in done.stdout.splitlines())
    again = json.loads(kimi_here("demo", "--chats", "40", "--pace", "0", "--tokens", "60", "--json").stdout)

    assert int(measures["tokens"]) > 1000
    assert set(again) == set(measures) - {"measure"}


def test_demo_on_a_terminal_draws_bars_and_a_table() -> None:
    """A person sees the chats run, then the measures."""
    with Terminal("demo", "--chats", "6", "--pace", "120", "--tokens", "60") as terminal:
        terminal.read_until("━")
        terminal.read_until("tokens/s")
        terminal.read_until("time to first token, p99")
        status = terminal.end()

    assert 0 == status
    assert "6/6 chats" in terminal.seen or "5/6 chats" in terminal.seen


def test_demo_interrupted_still_tells_what_was_measured() -> None:
    """Ctrl-C stops every chat, shows the table so far, and leaves with the status of an interrupt."""
    with Terminal("demo", "--chats", "4", "--pace", "5", "--tokens", "1000") as terminal:
        terminal.read_until("0/4 chats")
        terminal.type("\x03")
        terminal.read_until("connections opened")
        status = terminal.end()

    assert 130 == status
    assert re.search(r"Interrupted.* when 0 of 4 chats had ended", terminal.seen)
    assert "Traceback" not in terminal.seen


def test_demo_with_failures_ends_with_a_line_and_a_status(kimi_here: Here) -> None:
    """When chats fail, the table counts them and the command fails with the commonest reason."""
    done = kimi_here(
        "demo", "--live", env={"KIMI_API_KEY": "sk-nobody", "KIMI_BASE_URL": "http://127.0.0.1:9/v1"}
    )

    assert 1 == done.returncode
    assert "failures\t3" in done.stdout
    assert re.search(r"kimi-async: 3 of 3 chats failed, 3 of them like this: .*127\.0\.0\.1", done.stderr)


def test_chat_on_a_terminal_dims_the_reasoning(neighbourhood: dict[str, str]) -> None:
    """Thinking is shown, but is not mistaken for the answer."""
    with Terminal("chat", "hello", env=terminal_of(neighbourhood)) as terminal:
        assert 0 == terminal.end()

    assert "\x1b[2;3m" in terminal.seen or "\x1b[2m" in terminal.seen


def test_chat_interrupted_leaves_cleanly() -> None:
    """Ctrl-C in the middle of an answer: a new line, the status of an interrupt, no traceback."""
    with Terminal("chat", "--simulator", "hello") as terminal:
        terminal.read_until("\x1b[")
        terminal.type("\x03")
        status = terminal.end()

    assert 130 == status
    assert "Traceback" not in terminal.seen
    assert terminal.seen.rstrip(" ").endswith("\n")


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_run_async_interrupted_twice_cleans_up() -> None:
    """A second Ctrl-C cancels what the cleaning up waits for; nothing is raised where the loop happens to be."""
    ended: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.append("once")
            try:
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)
            finally:
                ended.append("twice")

    with pytest.raises(KeyboardInterrupt):
        run_async(work())

    assert ["once", "twice"] == ended
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


STUCK = """
import asyncio, signal
from kimi_async.cli.terminal import run_async

async def work():
    async def endless():
        try:
            yield
        finally:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
    async for _ in endless():
        return

run_async(work())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_run_async_interrupted_thrice_ends_without_a_word() -> None:
    """Where even the cleaning up does not end, a third Ctrl-C ends the process, and nothing is printed but the cursor."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, timeout=30, check=False)

    assert (-signal.SIGINT, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_interrupted_while_it_starts(tmp_path: Path) -> None:
    """Ctrl-C while the commands are imported is no traceback either."""
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    done = subprocess.run(
        [*KIMI, "models"],
        capture_output=True,
        timeout=30,
        check=False,
        env=environment(PYTHONPATH=str(tmp_path)),
    )

    assert (130, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_simulate_serves_other_programs_until_told_to_stop() -> None:
    """
    It prints two lines for a shell to evaluate; a program that has them gets answers; SIGTERM, as from a script or a
    container, ends it without complaint.
    """
    with subprocess.Popen(
        [*KIMI, "simulate", "--port", "0", "--pace", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        told = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        answered = kimi("balance", env=environment(**told))
        process.terminate()
        _, notes = process.communicate(timeout=20)

    assert {"KIMI_BASE_URL", "KIMI_API_KEY"} == set(told)
    assert "available\t49.58894" in answered.stdout
    assert 0 == process.returncode
    assert "Traceback" not in notes


def test_simulate_logs_requests_with_limits_and_faults(tmp_path: Path) -> None:
    """
    Each request is a line on standard error, with its status and trouble; a plan of faults and a tier's limits are kept.
    """
    plan = tmp_path / "plan.json"
    plan.write_text('[{"fault": "error", "kind": "unavailable", "retry_after": "0"}]')
    with subprocess.Popen(
        [*KIMI, "simulate", "-p", "0", "--pace", "0", "--limits", "tier1", "--faults", str(plan)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        told = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        answered = kimi("chat", "hello", env=environment(**told))
        process.terminate()
        _, notes = process.communicate(timeout=20)

    assert 0 == answered.returncode
    assert ["503", "200"] == re.findall(r"^[\d:]{8} (\d+) POST /v1/chat/completions", notes, re.M)
    assert "fault: error" in notes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limits", "tier9"], r"--limits.*tier9.*tier5"),
        (["--faults", "none.json"], r"--faults.*none\.json.*does not exist"),
        (["--faults", "plan.json"], r"--faults plan\.json: no fault is called 'flood'; there are: .*drop"),
        (["--faults", "plan.json", "--random-faults", "1"], r"--faults or --random-faults"),
    ],
)
def test_simulate_wrong_options_are_explained(
    arguments: list[str], expected: str, kimi_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with them is one line with the choices there are, before anything listens."""
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text('[{"fault": "flood"}]')
    done = kimi_here("simulate", "-p", "0", *arguments)

    assert (2, "") == (done.returncode, done.stdout)
    assert re.search(expected, done.stderr), done.stderr


def test_log_line_tells_what_became_of_a_request() -> None:
    """Status, path, time, sizes and trouble; what went wrong stands out."""
    record = RecordedRequest(
        0, "POST", "/v1/chat/completions", CIMultiDict(), 0.0, 1, b"x" * 2048, 200, 12, client_gone=True
    )

    assert (
        "200 POST /v1/chat/completions · 0.50 s · 2.0 kB · 12 events · the client left",
        "yellow",
    ) == log_line(record, 0.5)


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "more", "expected"),
    [
        (["models"], {}, r"KIMI_API_KEY"),
        (["models"], {"KIMI_API_KEY": "sk-x", "KIMI_BASE_URL": "http://127.0.0.1:9/v1"}, r"127\.0\.0\.1"),
        (["models"], {"KIMI_API_KEY": "sk-x", "KIMI_BASE_URL": "not a url"}, r"not a url"),
        (["models"], {"KIMI_API_KEY": "sk-\nsecret"}, r"(?i)key"),
        (["chat", "hi", "--max-tokens", "none"], {}, r"--max-tokens"),
        (["chat", "hi", "--effort", "huge"], {}, r"--effort"),
        (["no-such-command"], {}, r"no-such-command"),
        (
            ["simulate", "--port", "0", "--exposed", "--host", "203.0.113.1"],
            {},
            r"cannot listen on 203\.0\.113\.1",
        ),
    ],
)
def test_failure_is_one_line(
    arguments: list[str], more: dict[str, str], expected: str, kimi_here: Here
) -> None:
    """One clear line on standard error, a status that is not zero, no traceback and no key."""
    done = kimi_here(*arguments, env=more)

    assert done.returncode in (1, 2)
    assert "" == done.stdout
    assert re.fullmatch(r"kimi-async: [^\n]*\n", done.stderr), done.stderr
    assert re.search(expected, done.stderr)
    assert "secret" not in done.stderr


def test_failure_wrong_key_says_what_to_look_at(neighbourhood: dict[str, str], kimi_here: Here) -> None:
    """A refused key is told with the commonest cause, and without the key."""
    done = kimi_here("balance", env=({**neighbourhood, "KIMI_API_KEY": "sk-wrong-key-0123456789"}))

    assert (1, "") == (done.returncode, done.stdout)
    assert re.fullmatch(r"kimi-async: [^\n]*401[^\n]*KIMI_BASE_URL[^\n]*\n", done.stderr)
    assert "0123456789" not in done.stderr


@pytest.mark.parametrize("command", ["chat", "tokens"])
def test_failure_unknown_model_names_those_there_are(
    command: str, neighbourhood: dict[str, str], kimi_here: Here
) -> None:
    """
    Whether a model exists is the server's word; the refusal is told with the models of this key, the nearest first.
    """
    done = kimi_here(command, "hi", "--model", "kimi-k33", env=neighbourhood)

    assert (1, "") == (done.returncode, done.stdout)
    assert re.fullmatch(
        r"kimi-async: [^\n]*'kimi-k33'[^\n]*; did you mean kimi-k3\? There are: [^\n]*kimi-k2\.6[^\n]*\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["models"], r"no API key: set MOONSHOT_API_KEY or KIMI_API_KEY, or give --api-key-file"),
        (["models", "--provider", "openrouter"], r"set OPENROUTER_API_KEY, or give --api-key-file"),
        (["models", "--provider", "openruter"], r"--provider.*'openruter' is none of moonshot, .*openrouter"),
        (
            ["models", "--api-key-file", "key", "--base-url", "api.moonshot.ai"],
            r"--base-url .*is https:// missing",
        ),
        (["models", "--api-key-file", "nokey"], r"--api-key-file.*nokey"),
        (["models", "--api-key-file", "empty"], r"--api-key-file: empty is empty"),
        (["models", "--api-key-file", "bytes"], r"--api-key-file: bytes is no text in UTF-8"),
        (
            ["balance", "--provider", "openrouter", "--api-key-file", "key"],
            r"(?i)openrouter.*balance|balance.*openrouter",
        ),
        (["models", "--simulator", "--base-url", "http://127.0.0.1:9"], r"--simulator has its own"),
        (["files", "list", "--simulator"], r"No such option: --simulator.*kimi-async simulate"),
        (["chat", "hi", "--efort", "max"], r"--efort.*\)\. Try kimi-async chat --help\.\n"),
        (["simulate", "--limits", "tier9"], r"'--limits': 'tier9' is not one of 'tier0', .*'tier5'\. Try"),
        (["demo", "--chats", "0"], r"greater than or equal to 1\. Try kimi-async demo --help\."),
    ],
)
def test_failure_is_in_the_words_of_the_command_line(
    arguments: list[str],
    expected: str,
    kimi_here: Here,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A message names the options that a person types, not the arguments that a program passes, and no exception.
    """
    monkeypatch.chdir(tmp_path)
    Path("key").write_text("sk-of-a-file-0123456789\n")
    Path("bytes").write_bytes(b"sk-\xff0123456789")
    Path("empty").write_text("\n")
    done = kimi_here(*arguments)

    assert done.returncode in (1, 2)
    assert re.fullmatch(r"kimi-async: [^\n]*\n", done.stderr), done.stderr
    assert re.search(expected, done.stderr), done.stderr
    assert not re.search(r"\w+Error|api_key=|base_url|0123456789", done.stderr), done.stderr


def test_options_say_where_kimi_is(
    neighbour: KimiSimulator, kimi_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    --base-url and --api-key-file reach another Kimi than the environment's, and a provider's own model is the default there.
    """
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    (tmp_path / "key").write_text(f"{neighbour.api_key}\n")
    where = ["--base-url", neighbour.base_url, "--api-key-file", str(tmp_path / "key")]

    assert "kimi-k3\t" in kimi_here("models", *where).stdout
    assert "moonshotai/kimi-k3" == Kimi(provider="openrouter").model(None)
    assert "kimi-k3" == Kimi().model(None)
    assert "mine" == Kimi(provider="openrouter").model("mine")


def test_json_is_one_document_everywhere(neighbourhood: dict[str, str], kimi_here: Here) -> None:
    """
    `--json` prints the same form whatever the command: one document, two spaces, and amounts as numbers.
    """
    for command in (["models"], ["balance"], ["tokens", "hi"], ["files", "list"], ["batch", "status"]):
        done = kimi_here(*command, "--json", env=neighbourhood)
        value = json.loads(done.stdout)

        assert 0 == done.returncode
        assert json.dumps(value, indent=2, ensure_ascii=False) + "\n" == done.stdout
        if command == ["balance"]:
            assert 49.58894 == value["data"]["available_balance"]


@pytest.mark.parametrize("width", [80, 40, 20])
def test_table_keeps_ids_whole(width: int) -> None:
    """However narrow the terminal: an id is in one piece, and no line is wider unless an id is."""
    columns = [
        Column("id", "id"),
        Column("name", drop=1),
        Column("size", "size", drop=2),
        Column("created", "time", drop=3),
    ]
    row = [
        "file-0123456789abcdef012345",
        "a name with many words in it that is long " * 3,
        123456,
        1_790_000_000,
    ]
    out = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    out.print(grid_of(columns, [row, row], width), soft_wrap=True)
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert 2 == sum("file-0123456789abcdef012345" in line for line in lines)
    assert all(len(line.rstrip()) <= max(width, 27) for line in lines)


@pytest.mark.parametrize("arguments", [["chat", "hello"], ["models"]])
def test_failure_reader_gone_is_silent(arguments: list[str], neighbourhood: dict[str, str]) -> None:
    """
    `kimi-async models | head -1` ends without complaint, whether what is left was printed bit by bit or at the end.
    """
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*KIMI, *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env=terminal_of(neighbourhood),
            timeout=60,
        )
    finally:
        os.close(write)

    assert (1, "") == (done.returncode, done.stderr)


def test_main_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    """Without typer or rich there is one line that tells the command to type."""
    (tmp_path / "typer.py").write_text("raise ImportError('No module named typer', name='typer')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*KIMI, "demo"], capture_output=True, text=True, env=environment(PYTHONPATH=path), timeout=60
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert "kimi-async: the command line needs typer: pip install 'kimi-async[cli]'\n" == done.stderr


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The first page tells how to start without a key, how with one, and every command."""

    assert 0 == run(["--help"])
    page = capsys.readouterr().out
    for wanted in (
        "kimi-async demo",
        "KIMI_API_KEY",
        "KIMI_BASE_URL",
        "chat",
        "models",
        "tokens",
        "balance",
        "simulate",
    ):
        assert wanted in page


@pytest.mark.parametrize(
    "command", ["demo", "chat", "models", "tokens", "balance", "simulate", "doctor", "map", "batch", "files"]
)
def test_help_of_a_command_is_shown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself, and asking is not a failure."""

    assert 0 == run([command, "--help"])
    assert "Usage:" in capsys.readouterr().out


def test_help_without_arguments_is_shown_alone(kimi_here: Here) -> None:
    """A command that needs more shows its help and no complaint beside it."""
    for words in ([], ["batch"], ["files"]):
        done = kimi_here(*words)

        assert 2 == done.returncode
        assert "Usage:" in done.stdout + done.stderr
        assert "kimi-async: " not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kimi-async mo", "models"),
        ("kimi-async batch ca", "cancel"),
        ("kimi-async models --provider op", "openrouter"),
        ("kimi-async map --on-changed ke", "keep"),
    ],
)
def test_completion_knows_commands_and_choices(words: str, expected: str) -> None:
    """The shell is told what may follow, as after `kimi-async --install-completion`."""
    done = kimi(
        env=environment(
            _KIMI_ASYNC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
        )
    )

    assert expected in done.stdout.split()


@pytest.mark.parametrize("module", ["kimi_async", "kimi_async.cli"])
def test_module_is_the_command(module: str) -> None:
    """`python -m kimi_async` is the command line, for when its script is not on PATH."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("kimi-async ")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_help_shows_what_an_option_is_without_being_given(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Every option that has a default shows it, as a value or in words; what is in brackets is not taken for mark-up.
    """
    for path, command in commands(get_command(app)):
        run([*path, "--help"])
        page = capsys.readouterr().out
        wanted = [
            each
            for each in command.params
            if (each.default is not None and each.default is not False and each.default != ())
            or isinstance(each.show_default, str)
        ]

        assert page.count("[default:") == len(wanted), path


def test_help_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No page of help is wider than the narrowest usual terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    for path, _ in commands(get_command(app)):
        assert 0 == run([*path, "--help"])
        page = capsys.readouterr().out
        assert all(len(line) <= 80 for line in page.splitlines()), path
        assert "… │" not in page, path


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names the program and its version."""
    import kimi_async

    assert 0 == run(["--version"])
    assert f"kimi-async {kimi_async.__version__}\n" == capsys.readouterr().out


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.99, 7.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), (list(range(1, 201)), 0.99, 198)],
)
def test_percentile_is_a_measured_value(values: list[float], share: float, expected: float) -> None:
    """Nearest rank: of 200 values the 99th percentile is the 198th, and nothing is interpolated."""

    assert expected == percentile(values, share)


def test_summary_counts_failed_chats_apart() -> None:
    """A failed chat counts as a failure, its tokens as tokens, and its speed not at all."""
    done = Chat(1, "a", 10, started=0.0, first_token=0.2, ended=1.2, deltas=50)
    failed = Chat(2, "b", 10, started=0.0, first_token=0.4, ended=0.5, deltas=3, error="cut")
    measures = dict(summary(Run([done, failed], lambda: 0.0, 0.0, 2.0, lambda: 2)))

    assert "1" == measures["failures"]
    assert "53" == measures["tokens"]
    assert "50.0" == measures["tokens/s of one chat, p50"]
    assert ("200 ms", "400 ms") == (
        measures["time to first token, p50"],
        measures["time to first token, p99"],
    )
    assert "2" == measures["connections opened"]


def test_summary_interrupted_before_the_first_token_tells_no_times() -> None:
    """Nothing was measured, and nothing is told: 0 ms to the first token would be the best of all."""
    measures = dict(summary(Run([Chat(1, "a", 10)], lambda: 0.0, 0.0, 2.0, lambda: 1)))

    assert ["chats", "failures", "time", "tokens", "tokens/s", "connections opened"] == list(measures)


def test_printable_takes_control_characters_out() -> None:
    """A model's text cannot move the cursor or rename the window of the person who reads it."""

    assert "a\ufffd]0;evil\ufffdb\n\tc 雪" == printable("a\x1b]0;evil\x07b\n\tc 雪")
