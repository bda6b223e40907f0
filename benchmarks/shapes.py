"""
The bytes that the benchmark server sends, made from a seed.

A shape has a short name that is also the first part of a URL: `text.n20000.w64` is a stream of 20,000 text deltas, 64
of them a write. The server renders it once, before the clock runs, and then only copies bytes. Which path through a
client each kind exercises:

    text        content deltas: the plain path, every event the same fields
    reasoning   `reasoning_content` deltas, then one short text: the field that generated SDKs hold as an extra
    tools       two parallel tool calls whose arguments come in fragments: joined by index
    stamped     content is the server's clock in microseconds when it wrote the event: latency, never compared for CPU
    reply       one JSON answer, no stream
    upload      one JSON answer to a multipart body, whatever its size
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

__all__ = ["SEED", "Shape", "arguments_of", "chunked", "events", "reply", "stamp", "text_of", "writes"]

SEED = 20_260
"""The seed that the published figures were made with."""

Kind = Literal["text", "reasoning", "tools", "stamped", "reply", "upload"]

_KNOBS = {
    "n": "events",
    "w": "per_write",
    "r": "rate",
    "s": "together",
    "t": "late_ms",
    "b": "size",
    "x": "seed",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """
    What the server answers with.

    `rate` is in events a second for each stream; 0 means as fast as the socket takes them. `together` streams must
    have arrived before a paced shape begins, so that opening them is not measured. `late_ms` delays the end of the
    body (the chunked terminator) after `[DONE]`, as a real server's does. `size` is of a `reply`, in bytes of text.
    """

    kind: Kind
    events: int = 1
    per_write: int = 1
    rate: int = 0
    together: int = 1
    late_ms: int = 0
    size: int = 40
    seed: int = SEED

    @property
    def name(self) -> str:
        """The shape as one part of a URL; `Shape.parse` reads it back."""
        default = Shape(self.kind)
        knobs = [
            f"{k}{getattr(self, v)}" for k, v in _KNOBS.items() if getattr(self, v) != getattr(default, v)
        ]
        return ".".join([self.kind, *knobs])

    @classmethod
    def parse(cls, name: str) -> Shape:
        """The shape that a name stands for; ValueError where it stands for none."""
        kind, *knobs = name.split(".")
        if kind not in ("text", "reasoning", "tools", "stamped", "reply", "upload"):
            raise ValueError(f"no such kind of shape: {kind!r}")
        values: dict[str, int] = {}
        for knob in knobs:
            match = re.fullmatch(r"([a-z])(\d+)", knob)
            if match is None or match[1] not in _KNOBS:
                raise ValueError(f"no such knob of a shape: {knob!r}")
            values[_KNOBS[match[1]]] = int(match[2])
        return cls(kind, **values)  # type: ignore[arg-type]


# About one token in ten is Chinese (three bytes a character on the wire) and one in fifty needs a JSON escape: the
# string decoders of every client have a quick path for plain ASCII, which a benchmark must not live on.
_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "on",
    "be",
    "by",
    "at",
    "from",
    "this",
    "are",
    "or",
    "an",
    "have",
    "not",
    "which",
    "one",
    "you",
    "had",
    "but",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "been",
    "has",
    "more",
    "if",
    "no",
    "out",
    "so",
    "said",
    "what",
    "up",
    "its",
    "about",
    "into",
    "than",
    "them",
    "only",
    "other",
    "time",
    "new",
    "some",
    "could",
    "these",
    "two",
    "may",
    "first",
    "then",
    "do",
    "any",
    "like",
    "my",
    "now",
    "over",
    "such",
    "our",
    "man",
    "me",
    "even",
    "most",
    "made",
    "after",
    "also",
    "did",
    "many",
]
_CHINESE = ("你好", "月亮", "的", "是", "模型", "我们", "不", "在", "令牌", "世界")
_ESCAPED = ("\n", "\n\n", ' "quoted"', "\t", " C:\\path", "`\n")


def _token(dice: random.Random) -> str:
    pick = dice.random()
    if pick < 0.02:
        return dice.choice(_ESCAPED)
    if pick < 0.12:
        return dice.choice(_CHINESE)
    return " " + dice.choice(_WORDS)


_ID = "chatcmpl-6911668985355ab7ab43bc2b"
_HEAD = {"id": _ID, "object": "chat.completion.chunk", "created": 1762748041, "model": "kimi-k3"}
_TAIL = {"system_fingerprint": "fpv0_41b1161c"}
_USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 60,
    "total_tokens": 81,
    "cached_tokens": 21,
    "completion_tokens_details": {"reasoning_tokens": 26},
    "prompt_tokens_details": {"cached_tokens": 21},
}


def _event(delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
    if usage is not None:
        choice["usage"] = usage  # where Kimi puts it: inside the choice of the finishing chunk
    return b"data: " + msgspec.json.encode({**_HEAD, "choices": [choice], **_TAIL}) + b"\n\n"


def _deltas(shape: Shape) -> Iterator[dict[str, Any]]:
    dice = random.Random(shape.seed)
    if shape.kind == "text":
        for _ in range(shape.events):
            yield {"content": _token(dice)}
    elif shape.kind == "reasoning":
        for _ in range(shape.events - 1):
            yield {"reasoning_content": _token(dice)}
        yield {"content": " Done."}
    elif shape.kind == "tools":
        calls = 2
        for index in range(calls):
            head = {"name": ("search", "get_weather")[index], "arguments": ""}
            yield {
                "tool_calls": [
                    {"index": index, "id": f"{head['name']}:{index}", "type": "function", "function": head}
                ]
            }
            fragments = shape.events // calls + (shape.events % calls if index else 0) - 1
            for number in range(fragments):
                word = dice.choice(_WORDS)
                text = '{"q":"' if number == 0 else '"}' if number == fragments - 1 else word + " "
                yield {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    elif shape.kind == "stamped":
        for _ in range(shape.events):
            yield {"content": stamp(0)}
    else:
        raise ValueError(f"{shape.kind} is not a stream")


def stamp(microseconds: int) -> str:
    """A moment as text of a fixed width, so that it can be written into a rendered event."""
    return f"{microseconds:020d}"


def events(shape: Shape) -> list[bytes]:
    """
    The stream as events, each `data: {…}` and a blank line: the role, `shape.events` deltas, the finish, `[DONE]`.
    """
    finish = "tool_calls" if shape.kind == "tools" else "stop"
    return [
        _event({"role": "assistant", "content": ""}),
        *map(_event, _deltas(shape)),
        _event({}, finish, _USAGE),
        b"data: [DONE]\n\n",
    ]


def text_of(shape: Shape) -> str:
    """All content (for `reasoning`: all reasoning) that a client must have received at the end."""
    key = "reasoning_content" if shape.kind == "reasoning" else "content"
    return "".join(delta.get(key, "") for delta in _deltas(shape))


def arguments_of(shape: Shape) -> list[str]:
    """For `tools`: the joined arguments of each call, by index; each is a JSON object."""
    joined = ["", ""]
    for delta in _deltas(shape):
        for call in delta["tool_calls"]:
            joined[call["index"]] += call["function"]["arguments"]
    return joined


def chunked(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding (RFC 9112 §7.1), as Kimi's edge sends streams."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def writes(shape: Shape) -> list[bytes]:
    """
    The body as the server writes it, `per_write` events in one chunk of the transfer coding, without its terminator.

    The role event is a write of its own: a real model sends it before it has thought.
    """
    first, *rest = events(shape)
    step = shape.per_write
    return [chunked(first), *(chunked(b"".join(rest[at : at + step])) for at in range(0, len(rest), step))]


def reply(shape: Shape) -> bytes:
    """The JSON body of an answer without stream; its content has `shape.size` characters."""
    if shape.kind == "upload":
        return msgspec.json.encode(
            {
                "id": "d2f0c1a2b3c4d5e6f7a8",
                "object": "file",
                "bytes": 1,
                "created_at": 1762748041,
                "filename": "a.jsonl",
                "purpose": "batch",
                "status": "ok",
                "status_details": "",
            }
        )
    dice = random.Random(shape.seed)
    text = ""
    while len(text) < shape.size:
        text += "".join(_token(dice) for _ in range(64))
    message = {
        "role": "assistant",
        "content": text[: shape.size],
        "reasoning_content": "User wants an answer.",
    }
    return msgspec.json.encode(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": 1788302325,
            "model": "kimi-k3",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    )
