"""
Tool calls that a host left in the text, because its parser failed: found, and made into calls where they are whole.

Two families write them. K2 (github.com/MoonshotAI/Kimi-K2, docs/tool_call_guidance.md):

    <|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Beijing"}
    <|tool_call_end|><|tool_calls_section_end|>

and K3, whose four tokens carry tags of ordinary text (`encoding_k3.py` beside its weights):

    <|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>Beijing
    <|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>

Hosts lose some of the tokens (vllm issue 38579, sglang issue 39583, oh-my-pi issue 8495): sections without a beginning, calls
whose first token is gone, `toolscall` for `tools` and `call`. Nothing is guessed: a call counts where its name is one that was
offered and its arguments are a whole JSON object; anything less is told and left as it is.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from ..conversation.messages import field_of
from ..errors import KimiError
from ..providers.advice import KimiWarning
from ..types.completions import ChatCompletion, ChatCompletionMessageToolCall, Choice, Function

__all__ = [
    "Leak",
    "LeakScanner",
    "LeakedCall",
    "LeakedToolsError",
    "calls_from",
    "find_leak",
    "has_leak",
    "offered_names",
    "settle_leaks",
    "settled",
    "tell_leak",
]

_K2_SECTION: Final = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>")
_K2_SECTION_END: Final = ("<|tool_calls_section_end|>", "<|tool_call_section_end|>")
_K2_CALL: Final = "<|tool_call_begin|>"
_K2_ARGUMENT: Final = "<|tool_call_argument_begin|>"
_K2_END: Final = "<|tool_call_end|>"
_K3_TOOLS: Final = "<|open|>tools"
_K3_CALL: Final = "<|open|>call "

# With any of these a leak begins, whatever of the rest was lost.
_BEGINNINGS: Final = (*_K2_SECTION, _K2_CALL, _K2_ARGUMENT, _K3_TOOLS, _K3_CALL)

# What a stream holds back from: the same, and the tags that K3 wraps an answer in, which go with the calls.
_TOKENS: Final = (*_BEGINNINGS, "<|open|>", "<|close|>", "<|end_of_msg|>")

_TOKEN: Final = re.compile("|".join(map(re.escape, _TOKENS)))
_BEGINNING: Final = re.compile("|".join(map(re.escape, _BEGINNINGS)))
_K2_TOKENS: Final = re.compile(r"<\|tool_call(?:s_section|_section|_argument)?_(?:begin|end)\|>|<\|im_end\|>")
_K2_PIECE: Final = re.compile(
    r"(?:<\|tool_calls?_section_begin\|>|<\|tool_call_begin\|>|\s)*"
    r"(?P<id>[\w.\-]+(?::\d+)?)?\s*"
    r"(?:<\|tool_call_argument_begin\|>)?\s*"
)
_K2_STOP: Final = re.compile(
    r"\s*(?:<\|tool_call_end\|>|<\|tool_calls?_section_end\|>|(?=<\|tool_call_begin\|>)|$)"
)
_FENCE: Final = re.compile(r"```(?:json)?\s*\n?(?P<body>.*?)\n?\s*```", re.DOTALL)
_K3_OPEN_CALL: Final = re.compile(r"<\|open\|>(?:tools)?call\b(?P<attributes>[^<]*)<\|sep\|>")
_K3_CLOSE_CALL: Final = "<|close|>call<|sep|>"
_K3_ARGUMENT: Final = re.compile(
    r"\s*<\|open\|>argument\b(?P<attributes>[^<]*)<\|sep\|>(?P<value>.*?)<\|close\|>argument<\|sep\|>",
    re.DOTALL,
)
_K3_JSON: Final = re.compile(
    r"\s*<\|open\|>json<\|sep\|>(?P<value>.*?)<\|close\|>json<\|sep\|>\s*", re.DOTALL
)
_ATTRIBUTE: Final = re.compile(r'([\w-]+)="([^"]*)"')
# What may be left around calls, and means nothing to a reader. What was thought is no part of an answer.
_K3_THOUGHT: Final = re.compile(r"<\|open\|>think<\|sep\|>.*?(?:<\|close\|>think<\|sep\|>|$)", re.DOTALL)
_K3_STRAY: Final = re.compile(
    r"<\|(?:open|close)\|>(?:tools?(?:tools)?(?:message)?|call|response|message|think|argument)?(?:<\|sep\|>)?"
    r"|<\|end_of_msg\|>"
)


class LeakedToolsError(KimiError):
    """
    The host left tool calls in the text of the answer, and they could not be made into calls; see `leaked_tools="mend"`.

    `completion` is the answer as it came, `messages` the conversation before it.
    """

    retryable = False

    def __init__(self, completion: ChatCompletion, messages: list[Any]) -> None:
        self.completion: ChatCompletion = completion
        self.messages: list[Any] = messages
        super().__init__(
            "the answer holds the markup of tool calls, which is no answer: the host's parser failed; "
            'leaked_tools="mend" makes calls of those that are whole'
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.completion, self.messages))


@dataclass(frozen=True, slots=True)
class LeakedCall:
    """A call that was left in the text: `id` as the model wrote it or made from the name, `arguments` as JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Leak:
    """
    What was found in a text.

    :ivar text: the text without the markup; where `whole` is False, the text as it came.
    :ivar calls: the calls, in order; empty where `whole` is False.
    :ivar whole: whether all of it could be read: every call whole, and of a tool that was offered.
    :ivar reason: why it could not be read; `""` where it could.
    """

    text: str
    calls: tuple[LeakedCall, ...]
    whole: bool
    reason: str = ""


def has_leak(text: str | None) -> bool:
    """Whether the markup of tool calls begins somewhere in a text. A look for two characters, where it does not."""
    return text is not None and "<|" in text and _BEGINNING.search(text) is not None


def find_leak(text: str | None, names: Iterable[str]) -> Leak | None:
    """
    The tool calls left in a text, None if there are none.

    :param names: of the tools that were offered; a call of another makes the whole leak unreadable.
    """
    if text is None or not has_leak(text):
        return None
    offered = frozenset(names)
    try:
        before, calls, after = _k3(text) if _k3_begins(text) else _k2(text)
    except _Unreadable as error:
        return Leak(text, (), False, str(error))
    if not calls:
        return Leak(text, (), False, "the markup holds no call")
    made: list[LeakedCall] = []
    for id_, name, arguments in calls:
        if name not in offered:
            return Leak(text, (), False, f"it calls {name!r}, which was not offered")
        made.append(LeakedCall(id_ or f"{name}:{len(made)}", name, arguments))
    parts = [before.rstrip(), after.strip()]
    return Leak("\n".join(filter(None, parts)), tuple(made), True)


class _Unreadable(ValueError):
    pass


def _k3_begins(text: str) -> bool:
    found = _BEGINNING.search(text)
    return found is not None and found[0] in (_K3_TOOLS, _K3_CALL)


def _object(text: str) -> str:
    """Arguments as JSON text; `{}` for none."""
    fenced = _FENCE.fullmatch(text.strip())
    body = (fenced["body"] if fenced else text).strip()
    if not body:
        return "{}"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unreadable("the arguments of a call are not whole") from None
    if not isinstance(value, dict):
        raise _Unreadable("the arguments of a call are no object")
    return body


Found = tuple[str, list[tuple[str, str, str]], str]
"""What stands before the calls, the calls as id, name and arguments, and what stands behind."""


def _k2(text: str) -> Found:
    start = _BEGINNING.search(text)
    assert start is not None
    at = start.start()
    if start[0] == _K2_ARGUMENT:
        # The first token was lost: the name stands right before, as if it were text.
        name = re.search(r"(?:functions\.)?[\w\-]+(?::\d+)?\s*$", text[max(0, at - 300) : at])
        if name is None:
            raise _Unreadable("a call has no name")
        at = max(0, at - 300) + name.start()
    before, rest = text[:at], text[at:]
    calls: list[tuple[str, str, str]] = []
    while True:
        piece = _K2_PIECE.match(rest)
        assert piece is not None
        id_ = piece["id"] or ""
        if not id_:
            break
        if _K2_ARGUMENT not in piece[0] and _K2_CALL not in piece[0]:
            break  # prose behind the calls
        body, rest = _k2_arguments(rest[piece.end() :])
        calls.append((id_ if ":" in id_ else "", _k2_name(id_), _object(body)))
        if not rest:
            break
    after = rest
    for token in _K2_SECTION_END:
        after = after.replace(token, "")
    if _K2_TOKENS.search(after.replace("<|im_end|>", "")):
        raise _Unreadable("the markup goes on where no call can be read")
    return before, calls, after.replace("<|im_end|>", "")


def _k2_arguments(text: str) -> tuple[str, str]:
    """The arguments at the beginning of a text, and what stands behind them. A token inside a JSON string ends nothing."""
    decoder = json.JSONDecoder()
    stripped = text.lstrip()
    if stripped.startswith("{"):
        try:
            _, end = decoder.raw_decode(stripped)
        except (ValueError, RecursionError):
            raise _Unreadable("the arguments of a call are not whole") from None
        body, rest = stripped[:end], stripped[end:]
        stop = _K2_STOP.match(rest)
        if stop is None:
            raise _Unreadable("something stands behind the arguments of a call")
        return body, rest[stop.end() :]
    closed = re.search(r"<\|tool_call_end\|>|<\|tool_calls?_section_end\|>|<\|tool_call_begin\|>", text)
    if closed is None:
        raise _Unreadable("a call does not end")
    behind = text[closed.start() :] if closed[0] == _K2_CALL else text[closed.end() :]
    return text[: closed.start()], behind


def _k2_name(id_: str) -> str:
    name = id_.rpartition(":")[0] if re.search(r":\d+$", id_) else id_
    return name.removeprefix("functions.")


def _k3(text: str) -> Found:
    first = _K3_OPEN_CALL.search(text)
    start = text.find(_K3_TOOLS)
    if first is None:
        raise _Unreadable("a call does not end")
    at = first.start() if start < 0 else min(start, first.start())
    before, rest = text[:at], text[at:]
    rest = rest.removeprefix(f"{_K3_TOOLS}<|sep|>")
    calls: list[tuple[str, str, str]] = []
    while True:
        call = _K3_OPEN_CALL.match(rest.lstrip())
        if call is None:
            break
        rest = rest.lstrip()[call.end() :]
        arguments, rest = _k3_arguments(rest)
        name = _attributes(call["attributes"]).get("tool", "")
        if not name:
            raise _Unreadable("a call has no name")
        calls.append(("", name, arguments))
    if "<|open|>call" in rest or "<|open|>argument" in rest or "<|open|>tools" in rest:
        raise _Unreadable("the markup goes on where no call can be read")
    if rest.startswith("<|") and not _K3_STRAY.match(rest):
        raise _Unreadable("the markup goes on where no call can be read")
    return _plain(before), calls, _plain(rest)


def _k3_arguments(text: str) -> tuple[str, str]:
    raw = _K3_JSON.match(text)
    if raw is not None:
        rest = text[raw.end() :]
        if not rest.startswith(_K3_CLOSE_CALL):
            raise _Unreadable("a call does not end")
        return _object(raw["value"]), rest[len(_K3_CLOSE_CALL) :]
    values: dict[str, object] = {}
    while (found := _K3_ARGUMENT.match(text)) is not None:
        attributes = _attributes(found["attributes"])
        key = attributes.get("key")
        if key is None or key in values:
            raise _Unreadable("an argument has no name of its own")
        values[key] = _k3_value(found["value"], attributes.get("type", "string"))
        text = text[found.end() :]
    rest = text.lstrip()
    if not rest.startswith(_K3_CLOSE_CALL):
        raise _Unreadable("a call does not end")
    return json.dumps(values, ensure_ascii=False), rest[len(_K3_CLOSE_CALL) :]


def _k3_value(text: str, kind: str) -> object:
    if "<|open|>" in text or "<|close|>" in text:
        raise _Unreadable("an argument does not end")
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _Unreadable(f"an argument is not the {kind} that it says") from None


def _attributes(text: str) -> dict[str, str]:
    return {
        key: value.replace("&quot;", '"').replace("&amp;", "&") for key, value in _ATTRIBUTE.findall(text)
    }


def _plain(text: str) -> str:
    """A text without the tags that the answer itself was wrapped in."""
    return _K3_STRAY.sub("", _K3_THOUGHT.sub("", text)) if "<|" in text else text


# --- whole answers ----------------------------------------------------------------------------------------------------


def offered_names(tools: object, messages: Iterable[object] = ()) -> tuple[str, ...]:
    """The names of the functions that a request offers, those that system messages declare along the way included."""
    names: list[str] = []
    for listed in (tools, *(field_of(message, "tools") for message in messages)):
        for tool in cast("list[Any]", listed) if isinstance(listed, (list, tuple)) else ():
            try:
                name = tool["function"]["name"]
            except (TypeError, KeyError, IndexError):
                continue
            if isinstance(name, str):
                names.append(name)
    return tuple(dict.fromkeys(names))


def settle_leaks(completion: ChatCompletion, names: Iterable[str], *, mend: bool) -> ChatCompletion:
    """
    The completion with calls in place of the markup that was left in its text; the same object where there is none.

    Without `mend`, and where the markup cannot be read or the answer was cut, it is told as a `KimiWarning` and stays.
    """
    changed: dict[int, Choice] = {}
    for at, choice in enumerate(completion.choices):
        message = choice.message
        text = message.content
        # With nothing else in the message, the calls may stand in what was thought; that goes back as it came.
        thought = not text and not message.tool_calls and has_leak(message.reasoning_content)
        if not thought and not has_leak(text):
            continue
        leak = find_leak(message.reasoning_content if thought else text, names)
        if leak is None:
            continue
        if not mend or not leak.whole or choice.finish_reason not in _READY:
            tell_leak(leak, choice.finish_reason, mend=mend)
            continue
        calls = [*(message.tool_calls or ()), *calls_from(leak)]
        fields = {"tool_calls": calls} if thought else {"tool_calls": calls, "content": leak.text}
        changed[at] = choice.model_copy(
            update={"message": message.model_copy(update=fields), "finish_reason": "tool_calls"}
        )
    if not changed:
        return completion
    choices = [changed.get(at, choice) for at, choice in enumerate(completion.choices)]
    return completion.model_copy(update={"choices": choices})


def settled(
    completion: ChatCompletion, leaked: str | None, tools: Any, messages: Iterable[Any] = ()
) -> ChatCompletion:
    """
    The completion as `leaked_tools=` asks for it: None is "warn" where tools were offered.
    """
    if leaked == "off" or (leaked is None and not tools):
        return completion
    mend = leaked == "mend"
    return settle_leaks(completion, offered_names(tools, messages if mend else ()), mend=mend)


def calls_from(leak: Leak) -> list[ChatCompletionMessageToolCall]:
    return [
        ChatCompletionMessageToolCall(id=call.id, function=Function(name=call.name, arguments=call.arguments))
        for call in leak.calls
    ]


def tell_leak(leak: Leak, finish_reason: str | None, *, mend: bool) -> None:
    """Warn of markup that stays in a text, and say why it does."""
    if not mend:
        why = 'pass leaked_tools="mend" to have calls made of it'
    elif not leak.whole:
        why = f"it could not be read: {leak.reason}"
    else:
        why = f"the answer ended with finish_reason {finish_reason!r}"
    warnings.warn(f"the host left tool calls in the text of an answer; {why}", KimiWarning, stacklevel=5)


# An answer that was cut may have lost calls behind those that are whole.
_READY: Final = ("stop", "tool_calls", None)


# --- streamed ---------------------------------------------------------------------------------------------------------


class LeakScanner:
    """
    The same for a text that comes in pieces: `feed` gives what is certainly plain, `finish` the rest and what was found.

    Ordinary text is not held back: only what may be the beginning of a token, or the name of a tool right before one. From the
    first token on everything waits for the end. However a text is cut, what comes out is the same.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.raw: str = ""
        """After `finish`: what was still held, as it came."""
        self._given: list[str] = []
        self._held = ""
        self._blank = True
        # Behind what is held: pieces that decide nothing (blanks behind blanks, all behind a token), so that none is read twice.
        self._waiting: list[str] = []
        self._leaking = False
        # A name that may turn out to be that of a call whose first token was lost.
        forms = [f"{prefix}{name}:" for name in self.names for prefix in ("functions.", "")]
        self._beginnings = frozenset(form[:size] for form in forms for size in range(1, len(form) + 1))
        self._longest = max(map(len, forms), default=0) + 4
        self._whole = re.compile(
            "(?:functions\\.)?(?:" + "|".join(map(re.escape, self.names)) + ")(?::\\d*)?\\s*$"
        ) if self.names else None  # fmt: skip

    @property
    def leaking(self) -> bool:
        """Whether a token has come, so that the rest waits for the end."""
        return self._leaking

    def feed(self, text: str) -> str:
        if self._leaking or not text or (self._blank and text.isspace()):
            self._waiting.append(text)
            return ""
        self._gather(text)
        found = _TOKEN.search(self._held) if "<|" in self._held else None
        if found is None:
            return self._give(self._safe())
        self._leaking = True
        keep = found.start()
        return self._give(self._name_before(keep) if found[0] == _K2_ARGUMENT else self._blank_before(keep))

    def finish(self) -> tuple[str, Leak | None]:
        """The text that is still to come, and the leak; with a leak that is whole the text has none of its markup."""
        self._gather("")
        held, self._held = self._held, ""
        self.raw = held
        if not self._leaking:
            return held, None
        given = "".join(self._given)
        leak = find_leak(given + held, self.names)
        if leak is None or not leak.whole:
            return held, leak
        return leak.text[len(given) :], leak

    def _gather(self, text: str) -> None:
        self._held = "".join((self._held, *self._waiting, text))
        self._waiting.clear()

    def _give(self, size: int) -> str:
        text, self._held = self._held[:size], self._held[size:]
        self._blank = not self._held or self._held.isspace()
        if text:
            self._given.append(text)
        return text

    def _safe(self) -> int:
        """How much of what is held can be no part of a token, and no name before one."""
        held = self._held
        size = len(held)
        at = held.rfind("<")
        if at >= 0 and any(token.startswith(held[at:]) for token in _TOKENS):
            size = at
        return self._name_before(size)

    def _blank_before(self, size: int) -> int:
        """Blanks before a call are no part of the answer, so they wait for what comes."""
        return len(self._held[:size].rstrip())

    def _name_before(self, size: int) -> int:
        """Where the name of a tool begins, if the text up to `size` ends with one or with a part of one."""
        tail = self._held[max(0, size - self._longest) : size]
        if self._whole is not None and (found := self._whole.search(tail)) is not None:
            return self._blank_before(size - len(tail) + found.start())
        for length in range(min(len(tail), self._longest), 0, -1):
            if tail[-length:] in self._beginnings:
                before = tail[-length - 1 : -length]
                if not (before.isalnum() or before in ("_", "-", ".")):
                    return self._blank_before(size - length)
        return self._blank_before(size)
