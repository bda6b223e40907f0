"""
Requests as they are given, in any form, and what is made of one before it is sent.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgspec

from .. import codec
from ..errors import ConfigurationError
from ..resources.threads import in_thread
from ..schema.answers import response_format_of
from .lines import request_lines
from .output_lines import fingerprint
from .request_files import CHAT_URL

__all__ = ["Item", "Requests", "file_items", "filled", "fingerprint_of", "item_of", "path_of", "request_of"]

Requests: TypeAlias = Any
"""
A path to a JSONL file in the Batch API's format, or an iterable or async iterable of requests. A request is

* a mapping with ``messages`` and whatever else `chat.completions.create` takes,
* a line of the Batch API, as a mapping (``custom_id``, ``body``) or as JSON bytes,
* a string: one user message,
* a list of messages,
* a tuple (custom_id, any of these).
"""


class _RequestLine(msgspec.Struct, gc=False):
    custom_id: str
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(_RequestLine).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode


def path_of(requests: Requests) -> str | None:
    """The path, where requests are given by one."""
    return os.fspath(cast("str", requests)) if isinstance(requests, str | os.PathLike) else None


def check_requests(requests: object) -> None:
    """
    :raises TypeError: they are neither a path nor an iterable of requests.
    """
    kind = type(requests).__name__
    if isinstance(requests, (Mapping, bytes)):
        raise TypeError(f"requests must be a path, an iterable or an async iterable, not one {kind}")
    if not (
        isinstance(requests, (str, os.PathLike))
        or hasattr(requests, "__aiter__")
        or hasattr(requests, "__iter__")
    ):
        raise TypeError(f"requests must be a path, an iterable or an async iterable, not {kind}")


def request_of(item: Any, index: int) -> tuple[str | None, Any]:
    """
    The custom_id (None if it has none) and the body of a request in any of the forms of `Requests`. The body is a mapping,
    or `msgspec.Raw` JSON where it came as such.

    Raises `ConfigurationError` or TypeError, naming the index.
    """
    name: str | None = None
    if isinstance(item, tuple):
        pair: Any = cast("Any", item)
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"requests[{index}]: a tuple must be (custom_id, request)")
        name, item = pair
    if isinstance(item, str):
        return name, {"messages": [{"role": "user", "content": item}]}
    if isinstance(item, bytes | bytearray | memoryview):
        try:
            line = _decode_line(cast("bytes", item))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ConfigurationError(f"requests[{index}] is not a request line: {exc}") from None
        return name or line.custom_id, line.body
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, object]", item)
        if "body" in fields:
            body = fields["body"]
            if not isinstance(body, Mapping):
                raise TypeError(f"requests[{index}]: body must be a mapping, not {type(body).__name__}")
            if fields.get("url", CHAT_URL) != CHAT_URL:
                raise ConfigurationError(
                    f"requests[{index}]: url must be {CHAT_URL!r}, not {fields['url']!r}"
                )
            own: Mapping[str, object] = cast("Mapping[str, object]", body)
        elif "messages" in fields:
            own = fields
        else:
            raise ConfigurationError(f"requests[{index}] has neither messages nor body")
        given = fields.get("custom_id")
        if given is not None and not isinstance(given, str):
            raise TypeError(f"requests[{index}]: custom_id must be a string, not {type(given).__name__}")
        if own is fields and "custom_id" in fields:
            own = {key: value for key, value in fields.items() if key != "custom_id"}
        return name or given, own
    if isinstance(item, Sequence):
        messages: Any = cast("Any", item)
        return name, {"messages": list(messages)}
    raise TypeError(
        f"requests[{index}] must be a mapping, a string, a list of messages or JSON bytes, not {type(item).__name__}"
    )


def filled(
    body: Mapping[str, object], model: str | None, defaults: Mapping[str, object] | None
) -> dict[str, Any]:
    """The body with these fields where it has none of that name, and the model where it names none."""
    fields = {**defaults, **body} if defaults else dict(body)
    if model and not fields.get("model"):
        fields["model"] = model
    return fields


@dataclass(slots=True)
class Item:
    """One request of a run."""

    index: int
    """Position in the input, from 0."""
    custom_id: str
    fields: dict[str, Any]
    """The body, filled in."""
    named: bool = False
    """Whether the id was given; else it was made of the position."""
    wire: bool = False
    """Whether it came as JSON: then it may hold fields that this client does not know."""
    raw: bytes | None = None
    """The body as it came, where it came as JSON and nothing had to be filled in."""
    started: float = 0.0
    """When it was taken up, by the loop's clock."""
    fingerprint: str = ""
    replaces: bool = False
    """Whether the journal holds a line under this id that its answer replaces."""


def item_of(
    given: Any, index: int, *, model: str | None = None, defaults: Mapping[str, object] | None = None
) -> Item:
    """
    A request in any form, decoded once and filled in.

    :raises ConfigurationError, TypeError: naming the index.
    """
    name, body = request_of(given, index)
    item = Item(index, name or f"request-{index + 1}", {}, named=bool(name))
    if not isinstance(body, msgspec.Raw):
        item.fields = filled(body, model, defaults)
        return item
    raw = bytes(body)
    try:
        came = _decode_fields(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigurationError(f"requests[{index}]: body is not an object: {exc}") from None
    item.fields = filled(came, model, defaults)
    item.wire = True
    if len(item.fields) == len(came) and item.fields.get("model") == came.get("model"):
        item.raw = raw
    return item


def fingerprint_of(fields: Mapping[str, object]) -> str:
    """
    The fingerprint of a request; how its answer travels does not change it.

    :raises TypeError, ValueError, RecursionError: for what no JSON can be made of.
    """
    asked = {name: value for name, value in fields.items() if name not in ("stream", "stream_options")}
    try:
        return fingerprint(asked)
    except TypeError:
        reader = response_format_of(asked.get("response_format"))
        if reader is not None:
            asked["response_format"] = reader.wire
        return fingerprint(codec.encode(asked))


async def file_items(path: str) -> AsyncIterator[bytes]:
    """The lines of a checked file, read in a thread a block at a time."""
    lines = request_lines(path)

    def some() -> list[bytes]:
        found: list[bytes] = []
        size = 0
        for line in lines:
            found.append(line)
            size += len(line)
            if size > 256 * 1024:
                break
        return found

    try:
        while batch := await in_thread(some):
            for line in batch:
                yield line
    finally:
        lines.close()
