"""
Faults of tool calls, streamed or whole: what hosts make of them whose parser failed, and what models write.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

import msgspec

from ..simulator.replies import Answer, json_bytes
from ..simulator.words import as_list, as_object
from .fault import DONE, Fault

__all__ = ["BrokenArguments", "LeakedTools"]

Calls = list[tuple[str, str, str]]
"""Id, name and arguments of each call of a message."""


class LeakedTools(Fault, frozen=True):
    """
    The calls stand as markup in the text, and the answer ends with "stop". `family` says whose: "k2"
    (`<|tool_calls_section_begin|>…`) or "k3" (`<|open|>tools<|sep|>…`).

    `lost` loses what hosts lose: "" nothing, "section" the tokens around the calls, "first" the first token, "end" all from the
    last call's end on.
    """

    family: Literal["k2", "k3"] = "k2"
    lost: Literal["", "section", "first", "end"] = ""

    def answer(self, answer: Answer) -> Answer:
        return _whole(answer, self._leaked)

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return _streamed(payloads, lambda calls: (self.markup(calls), None))

    def _leaked(self, choice: dict[str, Any], calls: Calls) -> None:
        message = choice["message"]
        message["content"] = (message.get("content") or "") + self.markup(calls)
        del message["tool_calls"]
        choice["finish_reason"] = "stop"

    def markup(self, calls: Calls) -> str:
        """What the model wrote for these calls, as far as the host left it."""
        begin, middle, end = _k2(calls) if self.family == "k2" else _k3(calls)
        if self.lost == "section":
            begin = end = ""
        elif self.lost == "first":
            begin = ""
            middle = middle.removeprefix("<|tool_call_begin|>").replace("functions.", "", 1)
        elif self.lost == "end":
            end = ""
            middle = middle[: middle.rfind("<|tool_call_end|>" if self.family == "k2" else "<|close|>call")]
        return begin + middle + end


def _k2(calls: Calls) -> tuple[str, str, str]:
    middle = "".join(
        f"<|tool_call_begin|>functions.{name}:{at}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
        for at, (_, name, arguments) in enumerate(calls)
    )
    return "<|tool_calls_section_begin|>", middle, "<|tool_calls_section_end|>"


def _k3(calls: Calls) -> tuple[str, str, str]:
    made: list[str] = []
    for at, (_, name, arguments) in enumerate(calls, 1):
        try:
            values = as_object(json.loads(arguments)) or {}
        except ValueError:
            values = {}
        inner = "".join(
            f'<|open|>argument key="{_escaped(key)}" type="{_kind(value)}"<|sep|>'
            f"{value if isinstance(value, str) else json.dumps(value)}<|close|>argument<|sep|>"
            for key, value in values.items()
        )
        made.append(f'<|open|>call tool="{_escaped(name)}" index="{at}"<|sep|>{inner}<|close|>call<|sep|>')
    return "<|open|>tools<|sep|>", "".join(made), "<|close|>tools<|sep|>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = ((bool, "boolean"), (str, "string"), ((int, float), "number"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "array")


_BREAKS: Final[Mapping[str, Callable[[str], str]]] = {
    "unclosed": lambda text: text.rstrip().removesuffix("}"),
    "single_quotes": lambda text: text.replace('"', "'"),
    "trailing_comma": lambda text: text.rstrip().removesuffix("}") + ",}",
    "unquoted_keys": lambda text: text.replace('":', ": ").replace('{"', "{").replace(',"', ", "),
    "fence": lambda text: f"```json\n{text}\n```",
    "comment": lambda text: text.replace("{", "{ // as asked\n", 1),
    "raw_newline": lambda text: text.replace(':"', ':"\n', 1),
    "python": lambda text: text.replace("true", "True").replace("false", "False").replace("null", "None"),
    "twice": json.dumps,
    "empty": lambda text: "",
}


class BrokenArguments(Fault, frozen=True):
    """
    The arguments of every call are no JSON, as models write them now and then: "unclosed", "single_quotes", "trailing_comma",
    "unquoted_keys", "fence", "comment", "raw_newline", "python" (True, None), "twice" (JSON in a string), "empty".
    """

    style: Literal[
        "unclosed", "single_quotes", "trailing_comma", "unquoted_keys", "fence", "comment", "raw_newline",
        "python", "twice", "empty",
    ] = "unclosed"  # fmt: skip

    def answer(self, answer: Answer) -> Answer:
        return _whole(answer, self._broken)

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return _streamed(payloads, lambda calls: ("", [(i, n, _BREAKS[self.style](a)) for i, n, a in calls]))

    def _broken(self, choice: dict[str, Any], calls: Calls) -> None:
        for call in choice["message"]["tool_calls"]:
            call["function"]["arguments"] = _BREAKS[self.style](call["function"]["arguments"])


def _whole(answer: Answer, change: Callable[[dict[str, object], Calls], None]) -> Answer:
    if answer.payloads is not None or answer.status != 200:
        return answer
    try:
        reply = as_object(msgspec.json.decode(answer.body)) or {}
    except msgspec.DecodeError:
        return answer
    for raw in as_list(reply.get("choices")):
        choice = as_object(raw) or {}
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in as_list((as_object(choice.get("message")) or {}).get("tool_calls"))
        ]
        if calls:
            change(choice, calls)
    return replace(answer, body=json_bytes(reply))


def _streamed(
    payloads: Iterator[bytes], change: Callable[[Calls], tuple[str, Calls | None]]
) -> Iterator[bytes]:
    """The stream with its calls replaced by a text, in pieces of seven letters, or by other calls."""
    ids: dict[int, list[str]] = {}
    for payload in payloads:
        chunk = None if payload == DONE else as_object(msgspec.json.decode(payload))
        choices = as_list((chunk or {}).get("choices"))
        choice = (as_object(choices[0]) or {}) if choices else {}
        delta = as_object(choice.get("delta")) or {}
        if chunk is not None and delta.get("tool_calls"):
            for call in delta["tool_calls"]:
                parts = ids.setdefault(call["index"], ["", "", ""])
                function: dict[str, Any] = call.get("function") or {}
                for at, text in enumerate((call.get("id"), function.get("name"), function.get("arguments"))):
                    parts[at] += text or ""
            continue
        if chunk is not None and ids and choice.get("finish_reason"):
            text, calls = change([(i, n, a) for i, n, a in ids.values()])
            ids = {}
            deltas: list[dict[str, object]] = [
                {"content": text[at : at + 7]} for at in range(0, len(text), 7)
            ]
            for at, (id_, name, arguments) in enumerate(calls or ()):
                function = {"name": name, "arguments": arguments}
                deltas.append(
                    {"tool_calls": [{"index": at, "id": id_, "type": "function", "function": function}]}
                )
            for each in deltas:
                yield json_bytes({**chunk, "choices": [{"index": 0, "delta": each, "finish_reason": None}]})
            if calls is None:
                choice["finish_reason"] = "stop"
            yield json_bytes(chunk)
            continue
        yield payload
