"""
The simulator's model: an answer that is a plain function of the conversation.

There is no intelligence here, only determinism. The same messages always give the same reasoning, the same
text and the same tool calls, whatever the options that shape the reply (`stream`, budgets, `stop`); so a test
can compare a streamed answer with a whole one, and a resumed stream with an undisturbed one, word for word.

`think` gives the undisturbed turn, `continue_from` what is left of it after a partial message, and `generate`
applies the budget and the stop words and cuts the rest into tokens.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...providers.models import ModelInfo
from .instances import instance
from .models import thinking_enabled
from .words import as_list, as_object, dice_of, prose, tokenize

__all__ = [
    "Generated",
    "ToolCall",
    "Turn",
    "continue_from",
    "estimate_tokens",
    "generate",
    "partial_message",
    "think",
]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is JSON text, as on the wire."""

    id: str
    name: str
    arguments: str
    type: str = "function"

    def wire(self) -> dict[str, object]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": self.type, "function": function}


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A whole assistant turn before any budget is applied.

    Also what a test may script: `sim.say("text")` or `sim.say(Turn(...))`. `finish_reason` None means the
    natural one ("tool_calls" if there are calls, else "stop").
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """What is really sent: tokens whose concatenation is the text, under the budget."""

    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str

    @property
    def completion_tokens(self) -> int:
        """Reasoning, content and tool arguments, as Kimi counts them."""
        calls = sum(len(tokenize(call.name)) + len(tokenize(call.arguments)) for call in self.tool_calls)
        return len(self.reasoning) + len(self.content) + calls


# --- tokens ---------------------------------------------------------------------------------------------

# The hidden template: an eight-word prompt was counted as 93 tokens on kimi-k3 (live capture, 2026-09).
_TEMPLATE = 84
_IMAGE = 1024  # flat, as the help centre says; the official count is dynamic


def estimate_tokens(request: Mapping[str, object]) -> int:
    """Prompt tokens of a chat request: messages, images (1,024 each) and tools, plus the hidden template."""
    total = _TEMPLATE
    for message in as_list(request.get("messages")):
        fields = as_object(message) or {}
        total += 1 + _content_tokens(fields.get("content"))
        for key in ("reasoning_content", "name"):
            if isinstance(fields.get(key), str):
                total += len(tokenize(fields[key]))
        for key in ("tool_calls", "tools"):
            if fields.get(key):
                total += len(tokenize(json.dumps(fields[key])))
        total += _search_tokens(fields)
    if request.get("tools"):
        total += len(tokenize(json.dumps(request["tools"])))
    format_ = as_object(request.get("response_format")) or {}
    if format_.get("type") in ("json_object", "json_schema"):
        total += 47  # the injected instructions, measured on kimi-k3 with json_object
    return total


def _content_tokens(content: object) -> int:
    if isinstance(content, str):
        return len(tokenize(content))
    total = 0
    for part in as_list(content):
        fields = as_object(part) or {}
        text = fields.get("text")
        total += len(tokenize(text)) if isinstance(text, str) else _IMAGE
    return total


def _search_tokens(message: Mapping[str, Any]) -> int:
    """What `$web_search` found is billed with the prompt that carries its arguments back."""
    if message.get("role") != "tool" or message.get("name") != "$web_search":
        return 0
    try:
        found = as_object(json.loads(message.get("content") or "")) or {}
    except ValueError:
        return 0
    count = (as_object(found.get("usage")) or {}).get("total_tokens")
    return count if isinstance(count, int) else 0


# --- the turn -------------------------------------------------------------------------------------------


def partial_message(request: Mapping[str, object]) -> dict[str, object] | None:
    """The last message if it is an assistant's with `partial: true` (anywhere else the field means nothing)."""
    messages = as_list(request.get("messages"))
    last = as_object(messages[-1]) if messages else None
    if last is not None and last.get("role") == "assistant" and last.get("partial") is True:
        return last
    return None


def think(
    model: ModelInfo, request: Mapping[str, object], *, seed: int = 0, words: tuple[int, int] = (40, 120)
) -> Turn:
    """
    The undisturbed turn for the conversation without its partial message.

    It depends on the model, the messages, the tools and the response format, and on nothing else of the
    request. `words` bounds the length of the content; the reasoning has about a third of that.
    With tools on offer and a user's message last, it calls the first tool (two calls if that message says
    " and "); `tool_choice` is honoured. Otherwise it answers in text, or in JSON if asked.
    """
    messages = as_list(request.get("messages"))
    partial = partial_message(request)
    if partial is not None:
        messages = messages[:-1]
    tools = _tools_on_offer(request, messages)
    format_ = as_object(request.get("response_format")) or {}
    # A partial message's name is part of the prefix (role play), so it changes the text.
    name = partial.get("name") if partial is not None else None
    dice = dice_of(seed, model.id, messages, tools, format_, name)

    reasoning = ""
    if thinking_enabled(model, request):
        reasoning = prose(dice, max(4, dice.randint(*words) // 3))
    asked = _text_of(messages[-1]) if messages else ""
    calls = _tool_calls(dice, request, messages, tools, asked)
    if calls:
        return Turn("", reasoning, calls)
    kind = format_.get("type")
    if kind == "json_object":
        value: object = {"answer": prose(dice, 12), "words": dice.randint(1, 99), "asked": asked[:40]}
        return Turn(json.dumps(value, ensure_ascii=False), reasoning)
    if kind == "json_schema":
        schema = (as_object(format_.get("json_schema")) or {}).get("schema")
        return Turn(json.dumps(instance(dice, schema, schema), ensure_ascii=False), reasoning)
    opening = f"You said: {_shorten(asked)!r}. " if asked else ""
    return Turn(opening + prose(dice, dice.randint(*words)), reasoning)


def continue_from(turn: Turn, partial: Mapping[str, object], *, seed: int = 0) -> Turn:
    """
    What `turn` still has to say after the prefix in `partial`.

    The prefix counts in the order it was generated: reasoning, then content. Content in the prefix means the
    thinking is over, so no reasoning comes back; with none, the reasoning goes on where `reasoning_content`
    stops. A prefix that the turn does not begin with is continued all the same, by a text of its own.
    """
    content = _text_of(partial)
    reasoning = partial.get("reasoning_content")
    thought = reasoning if isinstance(reasoning, str) else ""
    if content:
        if turn.content.startswith(content):
            return replace(turn, content=turn.content[len(content) :], reasoning="")
        dice = dice_of(seed, "own continuation", content, thought)
        return Turn(" " + prose(dice, dice.randint(10, 40)))
    if turn.reasoning.startswith(thought):
        return replace(turn, reasoning=turn.reasoning[len(thought) :])
    dice = dice_of(seed, "own reasoning", thought)
    return replace(turn, reasoning=" " + prose(dice, dice.randint(5, 20)))


def generate(turn: Turn, *, budget: int, stop: Sequence[str] = ()) -> Generated:
    """
    Apply `stop` (content before the first full match) and `budget` (reasoning + content + tool arguments).

    A budget spent while thinking leaves the content empty with finish_reason "length", as Kimi does. A budget
    that ends inside tool calls leaves out the calls that did not fit.
    """
    content = turn.content
    cuts = [at for word in stop if word and (at := content.find(word)) >= 0]
    if cuts:
        content = content[: min(cuts)]
    natural = turn.finish_reason or ("tool_calls" if turn.tool_calls and not cuts else "stop")
    reasoning_tokens = tokenize(turn.reasoning)
    content_tokens = tokenize(content)
    if len(reasoning_tokens) > budget:
        return Generated(tuple(reasoning_tokens[:budget]), (), (), "length")
    left = budget - len(reasoning_tokens)
    if len(content_tokens) > left:
        return Generated(tuple(reasoning_tokens), tuple(content_tokens[:left]), (), "length")
    left -= len(content_tokens)
    calls: list[ToolCall] = []
    for call in turn.tool_calls if not cuts else ():
        left -= len(tokenize(call.name)) + len(tokenize(call.arguments))
        if left < 0:
            return Generated(tuple(reasoning_tokens), tuple(content_tokens), tuple(calls), "length")
        calls.append(call)
    return Generated(tuple(reasoning_tokens), tuple(content_tokens), tuple(calls), natural)


# --- helpers --------------------------------------------------------------------------------------------


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text_of(message: object) -> str:
    content = (as_object(message) or {}).get("content")
    if isinstance(content, str):
        return content
    texts = [(as_object(part) or {}).get("text") for part in as_list(content)]
    return "".join(text for text in texts if isinstance(text, str))


def _tools_on_offer(request: Mapping[str, object], messages: Sequence[object]) -> list[dict[str, object]]:
    """Global tools, then the ones that system messages declare along the way (K3's dynamic tools)."""
    found = [tool for raw in as_list(request.get("tools")) if (tool := as_object(raw)) is not None]
    for message in messages:
        for raw in as_list((as_object(message) or {}).get("tools")):
            tool = as_object(raw)
            if tool is not None:
                found.append(tool)
    return found


def _tool_calls(
    dice: random.Random,
    request: Mapping[str, object],
    messages: Sequence[object],
    tools: list[dict[str, object]],
    asked: str,
) -> tuple[ToolCall, ...]:
    choice = request.get("tool_choice", "auto")
    if not tools or choice == "none":
        return ()
    named = as_object((as_object(choice) or {}).get("function"))
    forced = choice == "required" or named is not None
    last = as_object(messages[-1]) if messages else None
    if not forced and (last is None or last.get("role") != "user"):
        return ()
    functions = [(tool.get("type", "function"), as_object(tool.get("function")) or {}) for tool in tools]
    wanted = named.get("name") if named is not None else None
    mentioned = [pair for pair in functions if pair[1].get("name") == wanted] if wanted else []
    if not mentioned:
        mentioned = [pair for pair in functions if str(pair[1].get("name")) in asked] or functions[:1]
    kind, function = mentioned[0]
    name = str(function.get("name"))
    if kind == "builtin_function":
        arguments: object = {
            "search_result": {"search_id": f"{dice.getrandbits(64):016x}"},
            "usage": {"total_tokens": dice.randint(1_000, 9_000)},
        }
        return (
            ToolCall(f"{name}:0", name, json.dumps(arguments, separators=(",", ":")), "builtin_function"),
        )
    # Names in the question become the string arguments, so that an example reads like one.
    names = re.findall(r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+", asked)
    count = 2 if " and " in asked and named is None else 1
    calls: list[ToolCall] = []
    for position in range(count):
        text = names[position] if position < len(names) else None
        filled = instance(dice, function.get("parameters"), function.get("parameters"), text=text)
        arguments_text = json.dumps(filled, ensure_ascii=False, separators=(",", ":"))
        calls.append(ToolCall(f"{name}:{position}", name, arguments_text))
    return tuple(calls)
