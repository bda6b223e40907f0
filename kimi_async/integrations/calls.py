"""
What one call is and how it ended, for whoever counts or traces calls.
"""

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from ..providers.hosts import by_base_url
from ..redact import redact, secrets_of
from ..streaming.stream import AsyncStream
from ..transport.exchange import Response
from ..types.completions import ChatCompletion

__all__ = ["OPERATIONS", "Ending", "Target", "error_type", "model_of", "target_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for, and who serves it."""

    operation: str
    provider: str
    address: str
    port: int


# Operations of the conventions by name, others in the same manner; `*` stands for one id.
OPERATIONS: Mapping[str, str] = {
    "POST chat/completions": "chat",
    "POST files": "upload_file",
    "GET files": "list_files",
    "GET files/*": "retrieve_file",
    "DELETE files/*": "delete_file",
    "GET files/*/content": "download_file",
    "POST batches": "create_batch",
    "GET batches": "list_batches",
    "GET batches/*": "retrieve_batch",
    "POST batches/*/cancel": "cancel_batch",
    "GET models": "list_models",
    "POST tokenizers/estimate-token-count": "estimate_tokens",
    "GET users/me/balance": "retrieve_balance",
}


@lru_cache(maxsize=256)
def target_of(method: str, url: str) -> Target:
    parts = urlsplit(url)
    row = by_base_url(url)
    provider = "moonshot_ai" if row is None or row.fixed_sampling else row.name
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Target(_operation(method, parts.path), provider, parts.hostname or "", port)


def _operation(method: str, path: str) -> str:
    segments = path.strip("/").split("/")
    for start in range(len(segments)):
        rest = segments[start:]
        for pattern, operation in OPERATIONS.items():
            verb, _, form = pattern.partition(" ")
            wanted = form.split("/")
            if (
                verb == method
                and len(wanted) == len(rest)
                and all(want in ("*", got) for want, got in zip(wanted, rest, strict=True))
            ):
                return operation
    return method.lower()  # a name must not hold an id, and of a path that is not known nothing can be said


class Ending:
    """
    How a call that got a reply goes on and ends.

    It holds the stream weakly: the response calls back to this, and the stream holds the response, and a circle would keep a
    dropped stream until the collector came.
    """

    __slots__ = ("_answer", "_fold", "_stream", "response")

    def __init__(self, response: Response) -> None:
        self.response: Response = response
        self._fold: Any = None
        self._stream: weakref.ref[AsyncStream[Any]] | None = None
        self._answer: ChatCompletion | None = None
        value = response.value
        if isinstance(value, tuple):
            value = cast("Any", value)[0]
        if isinstance(value, AsyncStream):
            stream: Any = cast("Any", value)
            self._stream = weakref.ref(stream)
            self._fold = stream._fold
        elif isinstance(value, ChatCompletion):
            self._answer = value

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream, whose first event has come by now."""
        return self._stream is not None

    @property
    def chunks(self) -> int:
        """Chunks of a chat stream so far."""
        return 0 if self._fold is None else self._fold.chunks

    @property
    def usage(self) -> Any:
        """Tokens charged, once that has been said; None where it is not."""
        return self.response.usage

    @property
    def answer(self) -> ChatCompletion | None:
        """The chat completion, as far as it has come."""
        return self._answer if self._fold is None else self._fold.completion()

    @property
    def said(self) -> tuple[str, str, list[str]] | None:
        """Model, id and finish reasons of a chat answer, without putting a stream's text together for them."""
        if self._fold is not None:
            first = self._fold.first
            if first is None:
                return None
            return (
                first.model,
                first.id,
                [each.finish_reason for each in self._fold.choices.values() if each.finish_reason],
            )
        if self._answer is None:
            return None
        return (
            self._answer.model,
            self._answer.id,
            [each.finish_reason for each in self._answer.choices if each.finish_reason],
        )

    @property
    def fault(self) -> BaseException | None:
        """What broke a stream off."""
        stream = None if self._stream is None else self._stream()
        return None if stream is None else stream._fault  # pyright: ignore[reportPrivateUsage]

    @property
    def error(self) -> str | None:
        """
        A short word for what went wrong, of which there are few: the server's for a refusal (`rate_limit_reached_error`), or its
        status; the error's class for a stream that broke off; None for a call that went well.
        """
        if self.response.status >= 300:
            return _refusal(self.response)
        fault = self.fault
        return None if fault is None else error_type(fault)


class _Named(msgspec.Struct):
    model: str = ""


_decode_named = msgspec.json.Decoder(_Named).decode


def model_of(body: Any) -> str:
    """The model that a request names; empty where it names none."""
    try:
        return _decode_named(body).model
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return ""


def error_type(error: BaseException) -> str:
    """The class of an error, as a word."""
    return type(error).__qualname__


class _Refused(msgspec.Struct, frozen=True):
    type: str = ""


class _Refusal(msgspec.Struct):
    error: _Refused = _Refused()


def _refusal(response: Response) -> str:
    """The server's word for an error (`rate_limit_reached_error`), or the status where it has none."""
    try:
        kind = msgspec.json.decode(response.content, type=_Refusal).error.type
    except (msgspec.MsgspecError, UnicodeError, RecursionError, RuntimeError):
        kind = ""
    # A word, and no sentence: whoever counts by it must be able to rely on there being few.
    known = re.fullmatch(r"\w{1,64}", kind) and kind == redact(kind, secrets_of(response.request))
    return kind if known else str(response.status)
