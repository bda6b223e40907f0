"""
The simulator's model: an answer that is a plain function of the conversation.

There is no intelligence here, only determinism. The same messages always give the same reasoning, the same
text and the same tool calls, whatever the options that shape the reply (`stream`, budgets, `stop`); so a test
can compare a streamed answer with a whole one, and a resumed stream with an undisturbed one, word for word.

`think` gives the undisturbed turn, `continue_from` what is left of it after a partial message, and `generate`
applies the budget and the stop words and cuts the rest into tokens.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

__all__ = [
    "MODELS",
    "Generated",
    "ModelInfo",
    "ToolCall",
    "Turn",
    "as_list",
    "as_object",
    "continue_from",
    "estimate_tokens",
    "find_model",
    "generate",
    "partial_message",
    "think",
    "thinking_enabled",
    "tokenize",
    "vocabulary",
]


def as_object(value: object) -> dict[str, Any] | None:
    """`value` if it is a JSON object, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any]:
    """`value` if it is a JSON array, else an empty list."""
    return cast("list[object]", value) if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    One row of `GET /v1/models`, with what the simulator must know of the model besides.

    `family` decides the rules: "k3" (thinks unless `thinking.type` is "disabled", takes `reasoning_effort`),
    "k2.7" (always thinks), "k2.6" (switchable). `default_budget` is `max_completion_tokens` when it is omitted.
    """

    id: str
    family: str
    created: int
    context_length: int
    default_budget: int

    def public(self) -> dict[str, Any]:
        """The model as `/v1/models` shows it; keys as seen on the official host in 2026-09."""
        fields: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "moonshot",
            "permission": [],
            "root": self.id,
            "parent": "",
            "context_length": self.context_length,
            "supports_image_in": True,
            "supports_video_in": True,
            "supports_reasoning": True,
            "supports_dynamic_tools": self.family == "k3",
        }
        if self.family == "k3":
            fields["supports_thinking_type"] = "only"
            fields["think_efforts"] = ["low", "high", "max"]
            fields["reasoning_efforts"] = ["low", "high", "max"]
        return fields


# Ids and context lengths as published on platform.kimi.ai in 2026-10; the dates are those of the releases.
MODELS: tuple[ModelInfo, ...] = (
    ModelInfo("kimi-k3.1-pro", "k3", 1792800000, 1_048_576, 131_072),
    ModelInfo("kimi-k3.1-pro-highspeed", "k3", 1792800000, 1_048_576, 131_072),
    ModelInfo("kimi-k3", "k3", 1784131200, 1_048_576, 131_072),
    ModelInfo("kimi-k2.7-code", "k2.7", 1780272000, 262_144, 32_768),
    ModelInfo("kimi-k2.7-code-highspeed", "k2.7", 1780272000, 262_144, 32_768),
    ModelInfo("kimi-k2.6", "k2.6", 1775001600, 262_144, 32_768),
)


def find_model(models: Iterable[ModelInfo], name: object) -> ModelInfo | None:
    """The model called `name`, or None."""
    return next((model for model in models if model.id == name), None)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is JSON text, as on the wire."""

    id: str
    name: str
    arguments: str
    type: str = "function"

    def wire(self) -> dict[str, Any]:
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

_TOKEN = re.compile(r"\s*\w{1,7}|\s*[^\w\s]|\s+")

# The hidden template: an eight-word prompt was counted as 93 tokens on kimi-k3 (live capture, 2026-09).
_TEMPLATE = 84
_IMAGE = 1024  # flat, as the help centre says; the official count is dynamic


def tokenize(text: str) -> list[str]:
    """`text` in pieces of at most seven letters; joined they are `text` again."""
    return _TOKEN.findall(text)


def estimate_tokens(request: Mapping[str, Any]) -> int:
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


def thinking_enabled(model: ModelInfo, request: Mapping[str, Any]) -> bool:
    """Whether this request gets reasoning: `thinking.type` "disabled" works on K3 and K2.6, not on K2.7."""
    thinking = as_object(request.get("thinking")) or {}
    return model.family == "k2.7" or thinking.get("type") != "disabled"


def partial_message(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last message if it is an assistant's with `partial: true` (anywhere else the field means nothing)."""
    messages = as_list(request.get("messages"))
    last = as_object(messages[-1]) if messages else None
    if last is not None and last.get("role") == "assistant" and last.get("partial") is True:
        return last
    return None


def think(
    model: ModelInfo, request: Mapping[str, Any], *, seed: int = 0, words: tuple[int, int] = (40, 120)
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
    dice = _dice(seed, model.id, messages, tools, format_, name)

    reasoning = ""
    if thinking_enabled(model, request):
        reasoning = _prose(dice, max(4, dice.randint(*words) // 3))
    asked = _text_of(messages[-1]) if messages else ""
    calls = _tool_calls(dice, request, messages, tools, asked)
    if calls:
        return Turn("", reasoning, calls)
    kind = format_.get("type")
    if kind == "json_object":
        value: Any = {"answer": _prose(dice, 12), "words": dice.randint(1, 99), "asked": asked[:40]}
        return Turn(json.dumps(value, ensure_ascii=False), reasoning)
    if kind == "json_schema":
        schema = (as_object(format_.get("json_schema")) or {}).get("schema")
        return Turn(json.dumps(_instance(dice, schema, schema), ensure_ascii=False), reasoning)
    opening = f"You said: {_shorten(asked)!r}. " if asked else ""
    return Turn(opening + _prose(dice, dice.randint(*words)), reasoning)


def continue_from(turn: Turn, partial: Mapping[str, Any], *, seed: int = 0) -> Turn:
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
        dice = _dice(seed, "own continuation", content, thought)
        return Turn(" " + _prose(dice, dice.randint(10, 40)))
    if turn.reasoning.startswith(thought):
        return replace(turn, reasoning=turn.reasoning[len(thought) :])
    dice = _dice(seed, "own reasoning", thought)
    return replace(turn, reasoning=" " + _prose(dice, dice.randint(5, 20)))


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

_VOCABULARY = """
moon water river garden window letter morning paper stone forest music circle number answer question bridge
simple quiet careful early bright narrow curious patient honest small distant gentle steady hollow warm plain
carries follows measures opens returns keeps finds turns holds counts joins reads writes leaves meets becomes
slowly often again together almost never always perhaps once because before after under between without toward
"""
_WORDS = _VOCABULARY.split()

# What breaks careless clients: accents, CJK, symbols outside the BMP, a line separator inside JSON text.
_SPICE = (
    "naïve café",
    "你好，月亮",
    "🌙✨",
    "𝄞 and 👩🏽‍🚀",
    "∑ → ∞",
    'a "quoted" word',
    "a\\b",
    "line\u2028two",
    "<b>&amp;</b>",
)


def vocabulary() -> list[str]:
    """The words the model knows."""
    return list(_WORDS)


def _dice(*parts: Any) -> random.Random:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


def _prose(dice: random.Random, count: int) -> str:
    """About `count` words in sentences; every few sentences something that is not ASCII."""
    sentences: list[str] = []
    while count > 0:
        size = min(count, dice.randint(5, 12))
        words = dice.choices(_WORDS, k=size)
        if dice.random() < 0.3:
            words.insert(dice.randrange(size + 1), dice.choice(_SPICE))
        text = " ".join(words)
        sentences.append(text[:1].upper() + text[1:] + ".")
        count -= size
    pieces: list[str] = []
    for sentence in sentences:
        pieces.append(sentence)
        pieces.append("\n\n" if dice.random() < 0.15 else " ")
    return "".join(pieces[:-1])


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _text_of(message: object) -> str:
    content = (as_object(message) or {}).get("content")
    if isinstance(content, str):
        return content
    texts = [(as_object(part) or {}).get("text") for part in as_list(content)]
    return "".join(text for text in texts if isinstance(text, str))


def _tools_on_offer(request: Mapping[str, Any], messages: list[Any]) -> list[dict[str, Any]]:
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
    request: Mapping[str, Any],
    messages: list[Any],
    tools: list[dict[str, Any]],
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
        arguments: Any = {
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
        instance = _instance(dice, function.get("parameters"), function.get("parameters"), text=text)
        arguments_text = json.dumps(instance, ensure_ascii=False, separators=(",", ":"))
        calls.append(ToolCall(f"{name}:{position}", name, arguments_text))
    return tuple(calls)


def _instance(
    dice: random.Random, schema: object, root: object, *, depth: int = 0, text: str | None = None
) -> Any:
    """
    A value that satisfies `schema` (the MFJS subset: types, enum, bounds, anyOf, local $ref).

    A schema outside the subset (`strict: false` lets anything in) gives some value; one that never ends is cut off.
    """
    fields = as_object(schema)
    if depth > 12:
        return None
    if not fields:
        return {} if depth == 0 else _prose(dice, 2)
    reference = fields.get("$ref")
    if isinstance(reference, str):
        target: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                target = (as_object(target) or {}).get(step)
        return _instance(dice, target, root, depth=depth + 1, text=text)
    branches = as_list(fields.get("anyOf"))
    if branches:
        # Deep inside a recursive schema take the branch that ends it.
        plain = [b for b in branches if (as_object(b) or {}).get("type") not in ("object", "array", None)]
        return _instance(dice, dice.choice(plain if depth > 4 and plain else branches), root, depth=depth + 1)
    if choices := as_list(fields.get("enum")):
        return dice.choice(choices)
    kind: Any = fields.get("type")
    if kinds := as_list(kind):
        kind = "null" if depth > 4 and "null" in kinds else dice.choice(kinds)
    if kind == "object" or (kind is None and "properties" in fields):
        required = as_list(fields.get("required"))
        value: dict[str, Any] = {}
        for key, child in (as_object(fields.get("properties")) or {}).items():
            if key in required or (depth < 4 and dice.random() < 0.5):
                value[key] = _instance(dice, child, root, depth=depth + 1, text=text)
        return value
    if kind == "array":
        least = int(_bound(fields, "minItems", 0 if depth > 4 else 1, most=1_000))
        most = int(_bound(fields, "maxItems", least + 2, most=1_000))
        size = least if depth > 4 else dice.randint(least, max(least, min(most, least + 2)))
        return [_instance(dice, fields.get("items"), root, depth=depth + 1) for _ in range(size)]
    if kind in ("integer", "number"):
        low = _bound(fields, "minimum", min(0.0, _bound(fields, "maximum", 0.0)))
        high = max(low, _bound(fields, "maximum", max(low, 0.0) + 100))
        if kind == "integer":
            first = math.ceil(low)
            return dice.randint(first, max(first, math.floor(high)))
        return min(high, max(low, round(dice.uniform(low, high), 2)))
    if kind == "boolean":
        return dice.random() < 0.5
    if kind == "null":
        return None
    result = text if text is not None else _prose(dice, dice.randint(1, 4))
    shortest = int(_bound(fields, "minLength", 0, most=100_000))
    while len(result) < shortest:
        result += "." + result
    return result[: int(_bound(fields, "maxLength", max(len(result), shortest)))]


def _bound(fields: Mapping[str, Any], key: str, default: float, *, most: float = 2.0**53) -> float:
    """A limit of a schema as a number of sane size; `default` if it is not one."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    least = 0 if key.startswith(("min", "max")) and not key.endswith("imum") else -most
    return float(min(most, max(least, value)))
