"""`kimi-async chat` as a conversation: what is typed, what is sent, and how an answer appears."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from pathlib import Path

import pytest
from rich.console import Console

from kimi_async.cli.app import run
from kimi_async.cli.conversation import Command, Conversation, command_in
from kimi_async.cli.terminal import Failure
from kimi_async.cli.writing import finished_blocks, writing
from kimi_async.testing import KimiSimulator, Turn
from support.terminal import READY, Terminal, terminal_of

# --- on a terminal ------------------------------------------------------------------------------------------


@pytest.fixture
def home(neighbourhood: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a person without a history."""
    return {**terminal_of(neighbourhood), "XDG_STATE_HOME": str(tmp_path / "state")}


def sent(simulator: KimiSimulator) -> list[dict[str, str]]:
    return [request.json() for request in simulator.requests if request.path == "/v1/chat/completions"][-1][
        "messages"
    ]


def test_conversation_stops_an_answer_and_goes_on(tmp_path: Path) -> None:
    """In a conversation Ctrl-C stops the answer, and the next question is answered; Ctrl-D leaves."""
    with Terminal(
        "chat", "--simulator", env=terminal_of({**os.environ, "XDG_STATE_HOME": str(tmp_path)})
    ) as terminal:
        terminal.pass_by(READY)
        terminal.type("hello\r")
        terminal.pass_by("\x1b[2;3m")
        terminal.type("\x03")
        terminal.pass_by(READY)
        terminal.type("\x04")
        status = terminal.end()

    assert 0 == status
    assert "Traceback" not in terminal.seen


def test_conversation_sends_reasoning_back(home: dict[str, str], neighbour: KimiSimulator) -> None:
    """
    The next question goes with the answer before it and the thoughts that led there; what was pasted is one question; history
    is for its owner alone.
    """
    neighbour.say(Turn("Forty-two.", reasoning="Deep thought."), "Again.")
    with Terminal("chat", env=home) as terminal:
        terminal.pass_by(READY)
        terminal.type("the answer?\r")
        terminal.pass_by("Forty-two.")
        terminal.pass_by(READY)
        terminal.type("\x1b[200~first line\nsecond line\x1b[201~\r")
        terminal.pass_by("Again.")
        terminal.pass_by(READY)
        terminal.type("/quit\r")
        status = terminal.end()
    history = Path(home["XDG_STATE_HOME"], "kimi-async", "chat-history")

    assert 0 == status
    assert [
        {"role": "user", "content": "the answer?"},
        {"role": "assistant", "content": "Forty-two.", "reasoning_content": "Deep thought."},
        {"role": "user", "content": "first line\nsecond line"},
    ] == sent(neighbour)
    assert "first line" in history.read_text("utf-8")
    assert 0o600 == stat.S_IMODE(history.stat().st_mode)


def test_conversation_obeys_commands(home: dict[str, str], neighbour: KimiSimulator, tmp_path: Path) -> None:
    """
    Model, system message and documents change what is sent; a conversation is saved, gone on with, and its last question asked
    again; a wrong command is told and sends nothing.
    """
    notes, saved = tmp_path / "notes.txt", tmp_path / "talk.json"
    notes.write_text("Rivers bend.")
    neighbour.say("One.", "Two.")
    with Terminal("chat", env=home) as terminal:
        for line, shown in (
            ("/hepl", "did you mean /help?"),
            ("/model kimi-k2.6", "kimi-k2.6"),
            ("/system Be brief.", "Be brief."),
            (f"/file {notes}", "goes along"),
            (f"/file {tmp_path}/none.txt", "there is no file"),
            ("What do they say?", "One."),
            (f"/save {saved}", "Saved"),
            ("/retry", "Two."),
        ):
            terminal.pass_by(READY)
            terminal.type(f"{line}\r")
            terminal.pass_by(shown)
        terminal.pass_by(READY)
        terminal.type("\x04")
        assert 0 == terminal.end()
    request = neighbour.requests[-1].json()
    neighbour.say("Three.")
    with Terminal("chat", "--resume", str(saved), env=home) as terminal:
        terminal.pass_by(READY)
        terminal.type("And?\r")
        terminal.pass_by("Three.")
        terminal.pass_by(READY)
        terminal.type("\x04")
        assert 0 == terminal.end()
    later = neighbour.requests[-1].json()

    assert "kimi-k2.6" == request["model"] == later["model"]
    assert ["system", "system", "user"] == [message["role"] for message in request["messages"]]
    assert "Be brief." == request["messages"][0]["content"]
    assert "Rivers bend." in request["messages"][1]["content"]
    assert ["One.", "And?"] == [message["content"] for message in later["messages"][-2:]]
    assert 0o600 == stat.S_IMODE(saved.stat().st_mode)


def test_chat_asks_about_a_picture(
    neighbour: KimiSimulator, neighbourhood: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--file sends a picture along with one question, too."""
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    for name in ("KIMI_BASE_URL", "KIMI_API_KEY"):
        monkeypatch.setenv(name, neighbourhood[name])
    assert 0 == run(["chat", "What is on it?", "--file", str(picture)])
    [message] = sent(neighbour)

    assert ["image_url", "text"] == [part["type"] for part in message["content"]]  # type: ignore[index]


def test_chat_json_is_the_reply(
    neighbourhood: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints the whole reply, with reasoning and usage."""
    for name in ("KIMI_BASE_URL", "KIMI_API_KEY"):
        monkeypatch.setenv(name, neighbourhood[name])
    assert 0 == run(["chat", "hello", "--json"])
    reply = json.loads(capsys.readouterr().out)

    assert reply["choices"][0]["message"]["content"]
    assert reply["usage"]["completion_tokens"] > 0


# --- as data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hello", None),
        (" /help", None),
        ("/etc/hosts holds what?", None),
        ("/", None),
        ("/help", Command("help")),
        ("/Exit", Command("quit")),
        ("/model  kimi-k3 ", Command("model", "kimi-k3")),
        ("/system Be brief.", Command("system", "Be brief.")),
    ],
)
def test_command_in_a_line(line: str, expected: Command | None) -> None:
    """A line that begins with a known word behind a slash is a command; a path is said."""
    assert expected == command_in(line)


def test_command_unknown_is_not_said() -> None:
    """A misspelt command is told with the one that was meant, and not sent to the model."""
    with pytest.raises(Failure, match=r"no command /modle; did you mean /model\?"):
        command_in("/modle kimi-k3")


def test_conversation_keeps_an_answer_until_there_is_another() -> None:
    """A question that is asked again goes without its answer, which stays if the new one is stopped."""
    talk = Conversation("kimi-k3", system="Be brief.")
    talk.ask("One?")
    talk.answered("1", "")
    talk.ask("Two?")
    talk.answered("2", "counted")
    again = talk.ask_again()

    assert ["Be brief.", "One?", "1", "Two?"] == [message["content"] for message in again or ()]
    assert ["One?", "1", "Two?", "2"] == [message["content"] for message in talk.messages]
    talk.answered("two", "")
    assert ["One?", "1", "Two?", "two"] == [message["content"] for message in talk.messages]
    talk.ask("Stopped?")
    assert ["Be brief.", "One?", "1", "Two?", "two", "Stopped?"] == [
        m["content"] for m in talk.ask_again() or ()
    ]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model": 1, "messages": []}', b"\xff\xfe"])
def test_conversation_file_of_another_kind_is_refused(data: bytes, tmp_path: Path) -> None:
    """What is no saved conversation is told as such."""
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(Failure, match="this is no saved conversation"):
        Conversation.load(tmp_path / "x.json")


def test_conversation_saved_keeps_what_has_the_name(tmp_path: Path) -> None:
    """A link stays a link to the file, which its owner alone may read then; something else than a conversation is left as it is."""
    path, link, other = tmp_path / "talk.json", tmp_path / "link.json", tmp_path / "out.jsonl"
    link.symlink_to(path)
    other.write_bytes(b"paid for")
    path.touch(0o644)
    talk = Conversation("kimi-k3")
    talk.save(link)
    with pytest.raises(Failure, match=r"out\.jsonl holds something else, and was left as it is"):
        talk.save(other)

    assert (True, 0o600) == (link.is_symlink(), stat.S_IMODE(path.stat().st_mode))
    assert "kimi-k3" == Conversation.load(path).model
    assert b"paid for" == other.read_bytes()


# --- as it is written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", ""),
        ("one line", "one line"),
        ("a paragraph\n\n", "a paragraph\n\n"),
        ("a paragraph\n\nb", "b"),
        ("- a\n\n  of a\n", "- a\n\n  of a\n"),
        ("```\ncode\n\nmore", "```\ncode\n\nmore"),
        ("```\ncode\n\nmore\n```\n\nText", "Text"),
        ("````\n```\n\nx\n````\n\nText", "Text"),
        ("| a |\n| - |\n| 1 |", "| a |\n| - |\n| 1 |"),
    ],
)
def test_finished_blocks_are_those_that_nothing_changes(text: str, rest: str) -> None:
    """
    A block is finished when the next has begun at the margin; never inside code, and not while a list may go on.
    """
    assert rest == text[finished_blocks(text) :]


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_writing_shows_the_same_however_it_is_cut(size: int) -> None:
    """
    Piece by piece or at once, on a terminal of 40 columns the same lines remain, no word is cut, and no control character of the
    model's gets through.
    """
    text = "# Head\n\nSome *words* that are long enough to be wrapped at the edge.\n\n- one\n- two\n\n```\ncode  here\n```\n\nEnd\x1b[2J."
    out = Console(
        width=40, height=20, file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False
    )
    with writing(out) as shown:
        shown.reasoning("I think about it for quite some time, in words.\nThen")
        for start in range(0, len(text), size):
            shown.content(text[start : start + size])
            shown.tick()
    screen = final(out.file.getvalue())  # type: ignore[attr-defined]

    assert "I think about it for quite some time," in screen
    assert "Some words that are long enough to be" in screen
    assert [" • one", " • two"] == [line.rstrip() for line in screen if "•" in line]
    assert any("code  here" in line for line in screen)
    assert "End\ufffd[2J." in [line.strip() for line in screen]
    assert 1 == sum("Head" in line for line in screen)


def final(output: str) -> list[str]:
    """The lines that remain when what was drawn and taken away again is gone."""
    lines = [""]
    row = 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            pass
        elif token.endswith("A"):
            row -= int(token[2:-1] or 1)
        elif token.endswith("K"):
            lines[row] = ""
        elif not token.startswith("\x1b"):
            lines[row] += token
    return [line.rstrip() for line in lines]
