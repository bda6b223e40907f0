"""
Earlier reasoning, put back where a framework dropped it.

Kimi wants the `reasoning_content` of an answer with tool calls back in the next turn, and many frameworks do not know the
field. The keeper remembers it, by everything that led to the answer and by the answer itself, and gives it back only to a
request that repeats all of that: wrong reasoning is worse than none.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import msgspec

from ..types.completions import ChatCompletion

__all__ = ["ReasoningKeeper"]

_encode = msgspec.json.Encoder(order="deterministic").encode


def _canonical(value: object) -> bytes:
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError):  # whole numbers of more than 64 bits, halves of characters
        return json.dumps(value, sort_keys=True).encode()


class ReasoningKeeper:
    """
    The reasoning of the latest answers with tool calls, of one client.

    What counts as the same conversation: role, text, name, parts, calls (id, name and arguments, whatever their spacing) and
    results of every message, in their order. What a framework may say in two ways without meaning two things (`content` null,
    empty or absent; text as a string or as parts) is the same. Two conversations that are alike to the last of these, the
    answer included, share what the later one left.

    :param max_entries: answers remembered; the one not used for longest goes first.
    :param max_size: characters of reasoning remembered altogether.
    """

    def __init__(self, max_entries: int = 4096, max_size: int = 16 << 20) -> None:
        self.max_entries: int = max_entries
        self.max_size: int = max_size
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()  # blocking calls come from a loop of their own

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<ReasoningKeeper {len(self._known)} answers, {self._size:,} characters>"

    def restore(
        self, messages: Sequence[Any], field: str = "reasoning_content"
    ) -> tuple[list[Any] | None, bytes]:
        """
        The messages with the reasoning that is missing and known, or None if there is nothing to put back; and the digest of
        the conversation, under which `remember` files the answer.
        """
        digest = b""
        restored: list[object] | None = None
        for position, message in enumerate(messages):
            digest = _after(digest, message)
            if not _lacks_reasoning(message, field):
                continue
            reasoning = self._recall(digest)
            if reasoning is not None:
                if restored is None:
                    restored = list(messages)
                restored[position] = {**message, field: reasoning}
        return restored, digest

    def remember(self, digest: bytes, completion: ChatCompletion) -> None:
        """Files the reasoning of an answer to the conversation of this digest, if it calls tools."""
        for choice in completion.choices:
            message = choice.message
            reasoning = message.reasoning_content
            if message.tool_calls and reasoning and len(reasoning) <= self.max_size:
                self._keep(_after(digest, message.to_dict()), reasoning)

    def _recall(self, key: bytes) -> str | None:
        with self._lock:
            reasoning = self._known.get(key)
            if reasoning is not None:
                self._known.move_to_end(key)
            return reasoning

    def _keep(self, key: bytes, reasoning: str) -> None:
        with self._lock:
            known = self._known
            self._size += len(reasoning) - len(known.pop(key, ""))
            known[key] = reasoning
            while len(known) > self.max_entries or self._size > self.max_size:
                _, dropped = known.popitem(last=False)
                self._size -= len(dropped)


def _lacks_reasoning(message: object, field: str) -> bool:
    if not isinstance(message, Mapping):
        return False
    fields = cast("Mapping[str, object]", message)
    if fields.get("role") != "assistant" or not fields.get("tool_calls"):
        return False
    # LiteLLM sends one space where it has nothing.
    told = fields.get(field)
    return not (isinstance(told, str) and told.strip())


def _after(digest: bytes, message: object) -> bytes:
    """The digest of a conversation and one message more."""
    return blake2b(digest + _canonical(_meaning(message)), digest_size=16).digest()


def _meaning(message: object) -> object:
    if not isinstance(message, Mapping):
        return message
    fields = cast("Mapping[str, Any]", message)
    return [
        fields.get("role"),
        fields.get("name"),
        fields.get("tool_call_id"),
        _text(fields.get("content")),
        [_call(call) for call in fields.get("tool_calls") or ()],
        bool(fields.get("partial")),
    ]


def _text(content: object) -> object:
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in cast("Iterable[object]", content):
        if not isinstance(part, Mapping):
            return cast("list[object]", content)
        fields = cast("Mapping[str, object]", part)
        text = fields.get("text")
        if not isinstance(text, str) or fields.get("type") != "text":
            return cast("list[object]", content)
        texts.append(text)
    return texts[0] if len(texts) == 1 else texts or ""


def _call(call: object) -> object:
    if not isinstance(call, Mapping):
        return call
    fields = cast("Mapping[str, object]", call)
    function = fields.get("function")
    if not isinstance(function, Mapping):
        return fields
    told = cast("Mapping[str, object]", function)
    arguments = told.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = [msgspec.json.decode(arguments)]  # in a list, so that text never equals what it says
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    return [fields.get("id"), told.get("name"), arguments]
