"""
Faults of chunks: what stands after `data:`.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from ..simulator.replies import Cut, End, Step, error_reply, json_bytes
from ..simulator.words import as_list, as_object
from .fault import DONE, Fault

__all__ = [
    "DuplicateFinish",
    "ErrorEvent",
    "GiantEvent",
    "InsertText",
    "MissingDone",
    "MissingFinish",
    "MissingRole",
    "NullFields",
    "SurrogateHalves",
    "ToolDeltas",
    "inserted",
    "text_chunk",
]


def _decoded(payload: bytes) -> dict[str, object] | None:
    return None if payload == DONE else as_object(msgspec.json.decode(payload))


def _choice(chunk: Mapping[str, object] | None) -> dict[str, Any]:
    choices = as_list((chunk or {}).get("choices"))
    return as_object(choices[0]) or {} if choices else {}


class MissingRole(Fault, frozen=True):
    """No chunk carries a role."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            chunk = _decoded(payload)
            delta = as_object(_choice(chunk).get("delta"))
            if delta is not None and "role" in delta:
                del delta["role"]
                yield json_bytes(chunk)
            else:
                yield payload


class MissingFinish(Fault, frozen=True):
    """No chunk says `finish_reason`; `[DONE]` comes unless `done` is False."""

    done: bool = True

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            if payload == DONE:
                if self.done:
                    yield payload
            elif not _choice(_decoded(payload)).get("finish_reason"):
                yield payload


class DuplicateFinish(Fault, frozen=True):
    """The finish chunk comes twice."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            yield payload
            if _choice(_decoded(payload)).get("finish_reason"):
                yield payload


class MissingDone(Fault, frozen=True):
    """The body ends properly, without `[DONE]`."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return (payload for payload in payloads if payload != DONE)


class ToolDeltas(Fault, frozen=True):
    """
    Tool calls as careless servers stream them.

    "no_index": no fragment says which call it belongs to. "no_id": no call has an id. "interleaved": the fragments of
    parallel calls alternate. "name_repeated": every fragment repeats id, type and name. "arguments_first": each
    call's first fragment of arguments comes before its name. "whole": each call in one delta. "null_function":
    a delta with `function: null` before each call. Streams without tool calls are left alone.
    """

    style: Literal[
        "no_index", "no_id", "interleaved", "name_repeated", "arguments_first", "whole", "null_function"
    ] = "no_index"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        held: list[dict[str, object]] = []  # chunks with tool deltas, until the first chunk that has none
        for payload in payloads:
            chunk = _decoded(payload)
            delta = as_object(_choice(chunk).get("delta")) or {}
            if chunk is not None and delta.get("tool_calls"):
                held.append(chunk)
                continue
            yield from map(json_bytes, self._restyled(held))
            held = []
            yield payload

    def _restyled(self, chunks: list[dict[str, object]]) -> list[dict[str, object]]:
        deltas = [as_object(_choice(chunk)["delta"]["tool_calls"][0]) or {} for chunk in chunks]
        calls: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for chunk, delta in zip(chunks, deltas, strict=True):
            calls.setdefault(delta["index"], []).append((chunk, delta))
        if self.style == "interleaved":
            rows = itertools.zip_longest(*calls.values())
            return [pair[0] for row in rows for pair in row if pair is not None]
        found: list[dict[str, object]] = []
        for pairs in calls.values():
            first = dict(pairs[0][1])
            function = dict(first["function"])
            if self.style == "arguments_first" and len(pairs) > 1:
                pairs[0], pairs[1] = pairs[1], pairs[0]
            if self.style == "whole":
                text = "".join(delta["function"]["arguments"] for _, delta in pairs)
                pairs[0][1]["function"]["arguments"] = text
                pairs = pairs[:1]
            if self.style == "null_function":
                empty = copy.deepcopy(pairs[0][0])
                _choice(empty)["delta"]["tool_calls"][0] = {"index": first["index"], "function": None}
                found.append(empty)
            for chunk, delta in pairs:
                if self.style == "no_index":
                    delta.pop("index", None)
                elif self.style == "no_id":
                    delta.pop("id", None)
                elif self.style == "name_repeated":
                    delta.update(id=first["id"], type=first["type"])
                    delta["function"]["name"] = function["name"]
                found.append(chunk)
        return found


class NullFields(Fault, frozen=True):
    """Every optional field is present and null, as vLLM sends them."""

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            chunk = _decoded(payload)
            if chunk is None:
                yield payload
                continue
            for raw in as_list(chunk.get("choices")):
                choice = as_object(raw) or {}
                delta: dict[str, object] = choice.setdefault("delta", {})
                for key in (
                    "role",
                    "content",
                    "reasoning_content",
                    "reasoning",
                    "refusal",
                    "tool_calls",
                    "function_call",
                ):
                    delta.setdefault(key, None)
                for key in ("logprobs", "stop_reason", "token_ids", "usage"):
                    choice.setdefault(key, None)
            for key in ("usage", "service_tier", "system_fingerprint", "prompt_token_ids", "error"):
                chunk.setdefault(key, None)
            yield json_bytes(chunk)


def inserted(
    payloads: Iterator[bytes], after: int, make: Callable[[bytes], Iterable[bytes]]
) -> Iterator[bytes]:
    """Put what `make` gives after `after` payloads, at the latest before the finish chunk. It is shown a chunk to imitate."""
    model = b""
    done = False
    for position, payload in enumerate(payloads):
        model = model or payload
        ending = payload == DONE or bool(_choice(_decoded(payload)).get("finish_reason"))
        if not done and (position >= after or ending):
            done = True
            yield from make(model)
        yield payload
    if not done:
        yield from make(model)


def text_chunk(model: bytes, text: str) -> bytes:
    chunk = _decoded(model) or {}
    _choice(chunk)["delta"] = {"content": text}
    return json_bytes(chunk)


class InsertText(Fault, frozen=True):
    """One more content chunk; by default the three characters that `str.splitlines` takes for line ends."""

    text: str = "a\u2028b\u2029c\u0085d"
    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return inserted(payloads, self.after_events, lambda model: [text_chunk(model, self.text)])


class SurrogateHalves(Fault, frozen=True):
    """
    One more character, sent as its two UTF-16 halves in two chunks: servers that cut text by UTF-16 units do that.

    `lone` sends only the first half.
    """

    character: str = "🎵"
    after_events: int = 3
    lone: bool = False

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return inserted(payloads, self.after_events, self._halves)

    def _halves(self, model: bytes) -> Iterator[bytes]:
        units = self.character.encode("utf-16-be").hex()
        for half in (units[:4], units[4:8]):
            yield text_chunk(model, "@half@").replace(b"@half@", b"\\u" + half.encode())
            if self.lone:
                return


class GiantEvent(Fault, frozen=True):
    """One more content chunk, of `size` letters."""

    size: int = 8 * 1024 * 1024
    after_events: int = 3

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        return inserted(payloads, self.after_events, lambda model: [text_chunk(model, "x" * self.size)])


class ErrorEvent(Fault, frozen=True):
    """
    An error inside a 200.

    `shape`: "kimi" `{"error":{message,type}}`; "chunk" the same beside the fields of a chunk, with
    finish_reason "error" (OpenRouter); "vllm" `{"object":"error",…,"code":400}`; "string" `{"error":"…"}`.
    `then`: "end" (the body ends, without `[DONE]`), "done" (`[DONE]`), "rst", or "continue" as if nothing had been.
    """

    kind: str = "overloaded"
    after_events: int = 0
    shape: Literal["kimi", "chunk", "vllm", "string"] = "kimi"
    then: Literal["end", "done", "rst", "continue"] = "end"

    def payloads(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for position, payload in enumerate(payloads):
            if position == self.after_events or (payload == DONE and position < self.after_events):
                yield self._error(payload)
                if self.then == "done":
                    yield DONE
                if self.then != "continue":
                    return
            yield payload

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            yield Cut("rst") if self.then == "rst" and isinstance(step, End) else step

    def _error(self, model: bytes) -> bytes:
        refusal = error_reply(self.kind)
        error: dict[str, object] = {"message": refusal.message, "type": refusal.type}
        if self.shape == "vllm":
            return json_bytes({"object": "error", **error, "param": None, "code": 400})
        if self.shape == "string":
            return json_bytes({"error": refusal.message})
        if self.shape == "chunk":
            chunk = _decoded(model) or {}
            chunk["error"] = {"code": 502, "message": refusal.message}
            chunk["choices"] = [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
            return json_bytes(chunk)
        return json_bytes({"error": error})
