"""
Bytes of one streamed reply to chunks: what an event holds, whether it is the end, an error, or cannot be read.

No loop, no clock, no socket. What comes after the end or a fault is not looked at; what came before it is handed out first.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from ..codec.faults import error_in_stream, error_object
from ..codec.json import SurrogateJoiner, decode_chunk, decode_patiently
from ..errors import APIError, IncompleteStreamError
from ..sse import BOM, EventTooLargeError, SSEDecoder
from ..transport.exchange import Response
from ..types.chat import ChatCompletionChunk, CompletionUsage
from .fold import Accumulator
from .not_a_stream import NotAStream

__all__ = ["Continuation", "Digest"]

T = TypeVar("T")
Payload = bytes | memoryview

DONE = b"[DONE]"

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Continuation(Protocol):
    """
    How the chunks of a reply that goes on with a broken answer fit into it.
    """

    @property
    def usage(self) -> CompletionUsage | None:
        """What this reply alone was charged, once it has said so."""
        ...

    def fits(self, chunk: ChatCompletionChunk) -> bool:
        """
        Makes it a chunk of the one answer. False if nothing of it is new.
        """
        ...


class Digest(Generic[T]):
    """
    One reply's events, decoded and folded as they come.

    `fold` None means events of a type of the caller's (`decode`), of which nothing else is known: they are neither folded nor
    looked through for errors, and the end of the body is their end.
    """

    __slots__ = (
        "_continuation",
        "_decode",
        "_fresh",
        "_joiner",
        "_response",
        "_sse",
        "done",
        "fault",
        "fold",
    )

    def __init__(
        self,
        response: Response,
        *,
        decode: Callable[[Payload], T] | None,
        fold: Accumulator | None,
        max_event_size: int,
    ) -> None:
        self._response = response
        self._decode = cast("Callable[[Payload], T]", decode or decode_chunk)
        self._sse = SSEDecoder(max_event_size)
        self._joiner: SurrogateJoiner | None = None
        self._fresh = True
        """No byte of the body has been seen."""
        self.fold = fold
        self._continuation: Continuation | None = None
        self.done = False
        """The end has been seen."""
        self.fault: APIError | None = None

    def feed(self, data: bytes) -> list[T]:
        """
        The chunks in these bytes. Notes the end, or a fault, that comes after them.

        :raises NotAStream: the body begins like JSON or a page.
        """
        if self._fresh and (start := data.lstrip()[:4]):
            self._fresh = False
            if start.removeprefix(BOM)[:1] in (b"{", b"[", b"<"):
                raise NotAStream(data)
        try:
            payloads = self._sse.payloads(data)
        except EventTooLargeError as exc:
            self.fault = self.incomplete(str(exc))
            return []
        if not payloads:
            return []
        if payloads[-1] == DONE:
            payloads.pop()
            self.done = True
        if self._joiner is None and self._continuation is None:
            fold = self.fold
            try:
                if len(payloads) == 1 and fold is not None:
                    chunk = self._decode(payloads[0])
                    if fold.add(cast("ChatCompletionChunk", chunk)):
                        return [chunk]
                    items = [chunk]
                else:
                    items = list(map(self._decode, payloads))
            except UNREADABLE:
                pass
            else:
                return self._folded(items, payloads)
        return self._patiently(payloads)

    def end(self) -> list[T]:
        """
        The body has ended: what its last, unterminated event holds.
        """
        items: list[T] = []
        try:
            last = [event.data for event in self._sse.finish()]
        except EventTooLargeError as exc:
            self.fault = self.incomplete(str(exc))
            return items
        fold = self.fold
        if last:
            items = self._patiently(last)
            if fold is not None and fold.finished and isinstance(self.fault, IncompleteStreamError):
                self.fault = None  # cut in the goodbye: the answer is whole
        if not self.done and self.fault is None:
            if fold is None or fold.finished:
                self.done = True
            else:
                self.fault = self.incomplete("the stream ended before [DONE] and without a finish_reason")
        return items

    def adopted(self, continuation: Continuation, fold: Accumulator, items: list[T]) -> list[T]:
        """
        From here on what comes goes on with the answer of `fold`. `items`, which came before, are fitted in.
        """
        self._continuation, self.fold = continuation, fold
        chunks = [chunk for chunk in cast("list[ChatCompletionChunk]", items) if continuation.fits(chunk)]
        for chunk in chunks:
            fold.add(chunk)
        return cast("list[T]", chunks)

    @property
    def charged(self) -> CompletionUsage | None:
        """
        What this reply was charged, once it has said so.
        """
        if self._continuation is not None:
            return self._continuation.usage
        return self.fold.usage if self.fold is not None else None

    def incomplete(self, why: str) -> IncompleteStreamError:
        """
        The error for a stream that did not come to its end. When it was noticed is for the reader to add.
        """
        response, fold = self._response, self.fold
        chunks = 0 if fold is None else fold.chunks
        rid = response.request_id
        return IncompleteStreamError(
            message=f"{why}, after {chunks} chunks and {response.bytes_received:,} bytes"
            f"{f' (request {rid})' if rid else ''}; .partial holds what arrived",
            request=response.request,
            phase="body" if chunks else "first_token",
        )

    # --- the long way ---

    def _patiently(self, payloads: list[Payload]) -> list[T]:
        """
        What the quick way could not decode: an end in the middle, foreign leniencies, halves of characters, or garbage.
        """
        items: list[T] = []
        sources: list[Payload] = []
        for payload in payloads:
            found: list[T]
            try:
                found = [self._decode(payload)]
            except UNREADABLE as exc:
                text = bytes(payload).strip()
                if text == DONE:
                    self.done = True
                    break
                if self.fold is None:
                    self._nonsense(f"an event cannot be decoded ({exc})")
                    break
                try:
                    found = cast(
                        "list[T]",
                        decode_patiently(payload, ChatCompletionChunk, joined=SurrogateJoiner.FIELDS),
                    )
                except ValueError as reason:
                    self._nonsense(f"an event is not a chunk ({reason}): {text[:200]!r}")
                    break
                # Not for pings and nulls: with it, every chunk goes the long way.
                if self._joiner is None and found:
                    self._joiner = SurrogateJoiner()
            if self._joiner is not None:
                for chunk in cast("list[ChatCompletionChunk]", found):
                    self._joiner.mend(chunk)
            items += found
            sources += [payload] * len(found)
        return self._folded(items, sources)

    def _nonsense(self, why: str) -> None:
        self.fault = self.incomplete(why)
        self.done = False

    def _folded(self, items: list[T], sources: list[Payload]) -> list[T]:
        fold = self.fold
        if fold is None:
            return items
        chunks = cast("list[ChatCompletionChunk]", items)
        if self._continuation is not None:
            fits = self._continuation.fits
            kept = [pair for pair in zip(chunks, sources, strict=True) if fits(pair[0])]
            chunks, sources = [chunk for chunk, _ in kept], [source for _, source in kept]
        at = fold.extend(chunks)
        while at < len(chunks):
            # Neither choices nor usage, or an error beside them: look at the event itself.
            error = error_in(chunks[at], sources[at])
            if error is not None:
                del chunks[at:]
                self.done = False
                self.fault = error_in_stream(error, self._response.headers, self._response.request)
                break
            at += 1 + fold.extend(chunks[at + 1 :])
        return cast("list[T]", chunks)


def error_in(chunk: ChatCompletionChunk, payload: Payload) -> Any:
    """
    The error that an event holds, or None.
    """
    if chunk.error is not None:
        return {"error": chunk.error}
    try:
        value = msgspec.json.decode(payload)
    except UNREADABLE:
        return None
    error = error_object(value)
    if error is None and any(choice.finish_reason == "error" for choice in chunk.choices):
        error = {
            "error": {
                "message": "the server ended the answer with finish_reason 'error'",
                "type": "server_error",
            }
        }
    return error
