"""
A conversation as data: what was said, what goes along with the next question, and how it is kept in a file.
"""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..resources.disk import replacing
from .terminal import Failure

if TYPE_CHECKING:
    from ..client import AsyncKimi

__all__ = ["COMMANDS", "Command", "Conversation", "command_in"]

COMMANDS: Final = {
    "help": ("", "this list"),
    "model": ("[ID]", "the model, or another from now on"),
    "system": ("[TEXT]", "the system message, or another from now on"),
    "file": ("PATH", "a document, picture or film for the next question"),
    "retry": ("", "ask the last question again"),
    "new": ("", "begin a new conversation"),
    "save": ("[FILE]", "keep the conversation; chat --resume FILE goes on with it"),
    "quit": ("", "leave; so does Ctrl-D"),
}

PICTURES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")
FILMS: Final = (".mp4", ".mpeg", ".mov", ".avi", ".flv", ".mpg", ".webm", ".wmv", ".3gpp")


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    argument: str = ""


def command_in(line: str) -> Command | None:
    """
    The command that a line is; None for something that is said. A path (`/etc/hosts …`) is said.

    :raises Failure: for a command that there is not.
    """
    if not line.startswith("/"):
        return None
    word, _, argument = line[1:].partition(" ")
    if not word or "/" in word or "\n" in word:
        return None
    name = {"exit": "quit", "q": "quit", "?": "help"}.get(word.lower(), word.lower())
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean /{near[0]}?" if near else "; /help lists them"
        raise Failure(f"there is no command /{word}{hint} (to say it, begin with a blank)")
    return Command(name, argument.strip())


class _Saved(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    system: str | None = None


@dataclass(slots=True)
class Conversation:
    """The messages so far, the system message apart, and the parts and documents that wait for the next question."""

    model: str
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    system: str | None = None
    path: Path | None = None
    """Where it is kept, once it has been saved or read."""
    waiting: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """Parts of the next question: pictures and films."""
    documents: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """System messages that hold the text of documents."""
    asked: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """The last question with all that went along, for `retry`."""
    replaced: int = 0
    """How many of the last messages the answer that comes will replace."""

    async def attach(self, client: "AsyncKimi", path: Path) -> None:
        """Makes a file part of the next question: a picture or film as it is, of a document its text."""
        if not path.is_file():  # noqa: ASYNC240  (one look at a file that a person just named)
            raise Failure(f"there is no file {path}")
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            self.waiting.append(await client.files.image_part(path))
        elif suffix in FILMS:
            self.waiting.append(await client.files.video_part(path))
        else:
            self.documents += await client.files.extract_messages([path])

    def ask(self, text: str) -> list[dict[str, object]]:
        """The messages to send for a question. It becomes part of the conversation with `answered`."""
        content: object = [*self.waiting, {"type": "text", "text": text}] if self.waiting else text
        self.asked = [*self.documents, {"role": "user", "content": content}]
        self.waiting, self.documents, self.replaced = [], [], 0
        return self._sent()

    def ask_again(self) -> list[dict[str, object]] | None:
        """
        The messages to send the last question again; its answer stays until there is another. None if there was no question.
        """
        if not self.asked:
            return None
        answered = self.messages and self.messages[-1].get("role") == "assistant"
        asked = self.messages[-1 - len(self.asked) : -1]
        self.replaced = 1 + len(self.asked) if answered and asked == self.asked else 0
        return self._sent()

    def _sent(self) -> list[dict[str, object]]:
        first: list[dict[str, object]] = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.messages[: len(self.messages) - self.replaced], *self.asked]

    def answered(self, content: str, reasoning: str) -> None:
        """Takes in the answer to what was asked, with the reasoning that led to it: the model reads it again."""
        answer: dict[str, object] = {"role": "assistant", "content": content}
        if reasoning:
            answer["reasoning_content"] = reasoning
        del self.messages[len(self.messages) - self.replaced :]
        self.replaced = 0
        self.messages += [*self.asked, answer]

    def clear(self) -> None:
        self.messages, self.waiting, self.documents, self.asked, self.replaced = [], [], [], [], 0

    def save(self, path: Path) -> None:
        """Writes it in one step, readable by its owner alone."""
        data = msgspec.json.format(
            msgspec.json.encode(_Saved(self.model, self.messages, self.system)), indent=2
        )
        if not path.parent.is_dir():
            raise Failure(f"there is no folder {path.parent}; make it first")
        if path != self.path and path.is_file() and path.stat().st_size and not _is_conversation(path):
            raise Failure(f"{path} holds something else, and was left as it is; choose another name")
        with replacing(path) as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o600)
            file.write(data + b"\n")
        self.path = path

    @classmethod
    def load(cls, path: Path) -> "Conversation":
        """Reads what `save` wrote. Raises `Failure` for anything else."""
        try:
            saved = _read(path)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise Failure(f"--resume {path}: this is no saved conversation ({exc})", status=2) from None
        found = cls(saved.model, saved.messages, saved.system, path)
        # The last question, so that it can be asked again.
        starts = [n for n, message in enumerate(saved.messages) if message.get("role") == "user"]
        if starts:
            found.asked = [saved.messages[starts[-1]]]
        return found


def _read(path: Path) -> _Saved:
    return msgspec.json.decode(path.read_bytes(), type=_Saved)


def _is_conversation(path: Path) -> bool:
    try:
        _read(path)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True
