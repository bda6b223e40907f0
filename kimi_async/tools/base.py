"""
What a tool is: a name, a definition, and what serves its calls.
"""

import re
from collections.abc import KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from ..errors import ConfigurationError, KimiError

__all__ = [
    "EchoTool",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolError",
    "check_name",
    "result_text",
    "web_search",
]

# platform.kimi.ai/docs/api/chat, 2026-08. A name that begins with a digit is a 400 (MoonshotAI/kimi-cli issue 2531).
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,255}")


class ToolError(KimiError):
    """Raise it in a tool to answer the model with this text in place of a result."""


class ToolArgumentsError(ToolError):
    """The model's arguments do not fit the tool; the reason names the field, and is what the model is told."""


@dataclass(slots=True)
class ToolContext:
    """
    What a tool can know of the call it serves. A parameter of this type is filled in, and not shown to the model.

    :ivar call_id: the model's id of the call, `get_weather:0`. Not unique between turns.
    :ivar name: the name the model called.
    :ivar turn: the turn that asked for it, counted from 1.
    :ivar messages: the conversation up to and with the message that asked. To look at, not to change.
    """

    call_id: str = ""
    name: str = ""
    turn: int = 0
    messages: Sequence[Any] = ()
    added: list[Any] = field(default_factory=list[Any])
    stopped: bool = False

    def add_tools(self, *tools: object) -> None:
        """Offers more tools from the next turn on, by a system message as K3 takes it (platform.kimi.ai, "Dynamic tools")."""
        self.added.extend(tools)

    def stop(self) -> None:
        """Ends the run once the calls of this turn are answered; the model is not asked again."""
        self.stopped = True


class Tool:
    """
    What the model may call.

    :ivar name: as the model calls it.
    :ivar definition: the entry for `tools` on the wire.
    :ivar concurrent: False to run the calls of a turn one after another, in the model's order, when this tool is among them.
    :ivar timeout: seconds one call may take; None for no limit of its own.
    """

    name: str
    definition: dict[str, Any]
    concurrent: bool = True
    timeout: float | None = None

    async def run(self, arguments: str, context: ToolContext) -> str:
        """
        Serves one call. `arguments` is the model's text, unchecked; the result is the content of the tool message.

        :raises ToolError: to tell the model what went wrong.
        """
        raise NotImplementedError

    def model_dump(self, **_: object) -> dict[str, Any]:
        """The definition: how a tool is written into a request."""
        return self.definition

    def __getitem__(self, key: str) -> Any:
        """`tool["function"]["name"]`: a tool can be looked into like its definition."""
        return self.definition[key]

    def keys(self) -> KeysView[str]:
        return self.definition.keys()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class EchoTool(Tool):
    """A tool that the server runs: its arguments go back as they came (platform.kimi.ai, "Web search")."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.definition: dict[str, Any] = {"type": "builtin_function", "function": {"name": name}}

    async def run(self, arguments: str, context: ToolContext) -> str:
        return arguments


def web_search() -> EchoTool:
    """
    Kimi's built-in `$web_search`. On K2.6 thinking must be off; on K3 use `client.formulas.tools("moonshot/web-search:latest")`.
    """
    return EchoTool("$web_search")


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a tool: Kimi takes letters, digits, _ and -, beginning with a letter or _, "
            "at most 256; pass name="
        )


def result_text(value: Any) -> str:
    """
    A result as the content of a tool message: text as it is, anything else as JSON, and what JSON cannot hold as `str()`.
    """
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    return str(value)
