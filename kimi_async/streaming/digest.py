"""
Bytes of one streamed reply to chunks: what an event holds, whether it is the end, an error, or cannot be read.

No loop, no clock, no socket. What comes after the end or a fault is not looked at; what came before it is handed out first.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from ..codec.faults import error_in_stream
from ..codec.foreign import as_wire, error_object, is_suspect, strays_in
from ..codec.json import SurrogateJoiner, decode_chunk, decode_patiently, fit
from ..errors import APIError, IncompleteStreamError
from ..providers.advice import KimiWarning
from ..redact import redact
from ..sse import BOM, EventTooLargeError, SSEDecoder, encode_event
from ..transport.exchange import Response
from ..types.completions import ChatCompletion, ChatCompletionChunk, CompletionUsage
from .fold import Accumulator
from .not_a_stream import NotAStream, as_chunk, unfit
from .skim import Skim

__all__ = ["Continuation", "Digest", "folded"]

T = TypeVar("T")
Payload = bytes | memoryview

DONE = b"[DONE]"

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Continuation(Protocol):
    """How the chunks of a reply that goes on with a broken answer fit into it."""

    @property
    def usage(self) -> CompletionUsage | None:
        """What this reply alone was charged, once it has said so."""
        ...

    def fits(self, chunk: ChatCompletionChunk) -> bool:
        """Makes it a chunk of the one answer. False if nothing of it is new."""
        ...


class Digest(Generic[T]):
    """
    One reply's events, decoded and folded as they come.

    `fold` None means events of a type of the caller's (`decode`), of which nothing else is known: they are neither folded nor
    looked through for errors, and the end of the body is their end.

    :param finishes: whether this host always says a `finish_reason`, so that `[DONE]` without one is no end.
    """

    __slots__ = (
        "_continuation",
        "_decode",
        "_finishes",
        "_first",
        "_fresh",
        "_joiner",
        "_raw",
        "_response",
        "_said_done",
        "_smooth",
        "_sse",
        "_waiting",
        "done",
        "fault",
        "fold",
        "head",
        "in_run",
        "runs",
        "skim",
    )

    def __init__(
        self,
        response: Response,
        *,
        decode: Callable[[Payload], T] | None,
        fold: Accumulator | None,
        max_event_size: int,
        finishes: bool = False,
    ) -> None:
        self._response = response
        self._decode = cast("Callable[[Payload], T]", decode or decode_chunk)
        self._sse = SSEDecoder(max_event_size)
        self._finishes = finishes
        self._joiner: SurrogateJoiner | None = None
        self._fresh = True
        """No byte of the body has been seen."""
        self._said_done = False
        self._smooth: Accumulator | None = None
        """Where plain chunks go, while nothing but such has come in the packets before."""
        self.skim: Skim = Skim()
        self._continuation: Continuation | None = None
        self.fold = fold
        if fold is not None:
            fold.wary = True
        self.runs: bool = False
        """Whether what came in one packet is handed out bit by bit: runs of text, and every other chunk alone, folded when its
        turn comes."""
        self._raw = False
        """Whether `feed` gives events as they came, once they are folded."""
        self.head: list[Payload] = []
        """The events of the first packet, until it is known who reads."""
        self._first = True
        """The first packet is handed out so in any case: who will read is not known by then, and its text need not wait for an end in
        it to be looked at."""
        self.in_run: bool = False
        """Whether what was handed out last is such a run of text."""
        self._waiting: tuple[list[T], list[Payload], int] | None = None
        """Chunks of the last packet that were not handed out, with their events, from which on."""
        self.done: bool = False
        """The end has been seen."""
        self.fault: APIError | None = None

    def feed(self, data: bytes) -> list[T]:
        """
        The chunks in these bytes. Notes the end, or a fault, that comes after them.

        :raises NotAStream: the body begins like JSON or a page.
        """
        fold = self._smooth
        if fold is not None and (payload := self._sse.lone(data)) is not None:
            try:
                chunk = self._decode(payload)
            except UNREADABLE:
                pass  # the end, or for the long way
            else:
                self.in_run = False
                if fold.add(cast("ChatCompletionChunk", chunk)):
                    return [chunk]
                return self._folded([chunk], [payload])
        if self._fresh and (start := data.lstrip()[:4]):
            self._fresh = False
            if start.removeprefix(BOM)[:1] in (b"{", b"[", b"<"):
                raise NotAStream(data)
        sse = self._sse
        if self._raw and self._skims(data):
            return cast("list[T]", [data])
        try:
            payloads = sse.payloads(data)
        except EventTooLargeError as exc:
            self.fault = self.incomplete(str(exc))
            return []
        strays, self.in_run, self._smooth = sse.strays, False, None
        if not (payloads or strays):
            return []
        first, self._first = self._first, False
        if first or self.head:
            self.head = list(payloads) if first else []
        if self._raw:
            passed = self._handed_on(payloads)
            self.skim.learn(b"".join(passed), self.fold)
            return cast("list[T]", passed)
        if self._joiner is None and self._continuation is None and not strays and not sse.typed:
            if payloads[-1] == DONE:
                payloads.pop()
                self._said_done = True
            fold = self.fold
            try:
                items = list(map(self._decode, payloads))
            except UNREADABLE:
                if self._said_done:
                    self._said_done = False  # one in the middle may come first
                    payloads.append(DONE)
            else:
                if not first:
                    self._smooth = fold
                if (self.runs or first) and len(items) > 1 and fold is not None:
                    self._waiting = items, payloads, 0
                    return self.next_run()
                items = self._folded(items, payloads)
                if self._said_done:
                    self._conclude()
                return items
        return self._digested(payloads)

    def take_in(self, data: bytes) -> bool:
        """`feed` for one who does not want the chunks: whether there were any."""
        found, sse = False, self._sse
        if not sse.starts_anew(b"") and (start := data.find(b"\n\n") + 2) > 1:
            found, data = bool(self.feed(data[:start])), data[start:]
            if self.done or self.fault is not None:
                return found
        return bool(self.take_texts(data, reasoning=True)) or found

    def take_texts(self, data: bytes, reasoning: bool = False) -> list[T]:
        """`feed`, but of events that are alike the texts alone, which are folded; also where they are reasoning."""
        whole, self.in_run = data[: data.rfind(b"\n\n") + 2], False
        if (reasoning or self.skim.knows_text) and (texts := self._skims(whole)):
            self.feed(data[len(whole) :])
            return cast("list[T]", texts)
        items = self.feed(data)
        self.skim.learn(whole, self.fold)
        return items

    def _skims(self, data: bytes) -> list[str]:
        """The texts of these bytes, if they are events of a kind that is known. They are then folded."""
        changed, sse = self._joiner or self._continuation, self._sse
        if changed or sse.strays or not sse.starts_anew(data):
            return []
        return self.skim.folds(data, self.fold)

    def hand_on(self) -> list[bytes]:
        """From here on `feed` gives events as they came. Returns those of the first packet."""
        self.settle()
        self._raw, self._smooth = True, None
        head, self.head = [payload for payload in self.head if payload != DONE], []
        if self.fault is not None and self.fold is not None:
            head = head[: self.fold.chunks]  # what came before it
        return as_events(head)

    def _handed_on(self, payloads: list[Payload]) -> list[bytes]:
        fold = cast("Accumulator", self.fold)
        decode = cast("Callable[[Payload], ChatCompletionChunk]", self._decode)
        # Decoding (0.4 µs) is also the quickest way to see whether an event tells of an end, a usage or an error: a search for
        # the words took ten times as long.
        passed: list[Payload] = []
        queue = payloads[::-1]
        typed = [data for kind, data in self._sse.typed if kind.lower() == "error"]
        while queue and not self._said_done and self.fault is None:
            payload = queue.pop()
            if payload in typed and self._told(bytes(payload)):
                break
            try:
                plain = self._joiner is None and fold.add(decode(payload))
            except UNREADABLE:
                plain = False
            if plain or self._patiently(payload, queue):
                passed.append(payload)
        if self._said_done:
            self._conclude()
        if self._sse.strays and self.fault is None and not self.done:
            self._digested([])
        return as_events(passed)

    @property
    def waits(self) -> int:
        """How many chunks `next_run` has, before anything is read."""
        return 0 if self._waiting is None else len(self._waiting[0]) - self._waiting[2]

    def settle(self) -> None:
        """Folds what has arrived and will not be handed out."""
        while self.waits:
            self.next_run()

    def next_run(self) -> list[T]:
        """The next of the last packet's chunks: a run of text, or one of another kind."""
        if self._waiting is None:
            return []
        items, sources, at = self._waiting
        fold = cast("Accumulator", self.fold)
        goes_on = self._continuation is not None
        count = 0 if goes_on else fold.text_run(cast("list[ChatCompletionChunk]", items), at)
        self.in_run = count > 0
        if count:
            found = items[at : at + count]
        else:
            count, chunk = 1, items[at]
            plain = not goes_on and fold.add(cast("ChatCompletionChunk", chunk))
            found = [chunk] if plain else self._folded([chunk], sources[at : at + 1])
        more = at + count < len(items) and self.fault is None
        self._waiting = (items, sources, at + count) if more else None
        if self._said_done and not more:
            self._conclude()
        return found

    def end(self) -> list[T]:
        """The body has ended: what its last, unterminated event holds."""
        try:
            last = [event.data for event in self._sse.finish()]
        except EventTooLargeError as exc:
            self.fault = self.incomplete(str(exc))
            return []
        items = self._digested(last)
        fold = self.fold
        if not self.done and self.fault is None:
            if fold is None or fold.finished:
                self.done = True
            else:
                left = " ".join(self._sse.strays.decode("utf-8", "replace").split())
                held = f" (it holds lines that are no event: {redact(left[:200])!r})" if left else ""
                self.fault = self.incomplete(
                    f"the stream ended before [DONE] and without a finish_reason{held}"
                )
        return items

    def take(self, body: bytes) -> list[T]:
        """
        What a whole body holds that is no event stream: a completion, or chunks as JSON, line by line or one after another.

        :raises ValueError: where it is neither.
        """
        fold = self.fold
        values, rest = strays_in(body.decode("utf-8-sig", "replace"))
        for value in values:
            if (error := error_object(value)) is not None:
                self._refused(error)
                return []
        if fold is None or not values:
            raise ValueError("no object")
        whole = len(values) == 1 and not rest.strip() and _is_whole(values[0])
        items: list[T] = []
        for value in values:
            chunk = (
                as_chunk(fit(value, ChatCompletion))
                if whole
                else fit(as_wire(value, "delta"), ChatCompletionChunk)
            )
            fold.settle(chunk)
            items.append(cast("T", chunk))
        if rest.strip():
            # Events follow: what stood before them had no `data:`.
            items += self.feed(rest.lstrip().encode())
            items += self.end() if not self.done and self.fault is None else []
        elif fold.finished:
            self.done = True
        elif not fold.chunks:
            raise ValueError("no choices")
        else:
            self.fault = self.incomplete("the reply ended without a finish_reason")
        return items

    def adopted(self, continuation: Continuation, fold: Accumulator, items: list[T]) -> list[T]:
        """From here on what comes goes on with the answer of `fold`. `items`, which came before, are fitted in."""
        self._continuation, self.fold, self._smooth = continuation, fold, None
        chunks = [chunk for chunk in cast("list[ChatCompletionChunk]", items) if continuation.fits(chunk)]
        for chunk in chunks:
            fold.settle(chunk)
        return cast("list[T]", chunks)

    @property
    def charged(self) -> CompletionUsage | None:
        """What this reply was charged, once it has said so."""
        if self._continuation is not None:
            return self._continuation.usage
        return self.fold.usage if self.fold is not None else None

    def incomplete(self, why: str) -> IncompleteStreamError:
        """The error for a stream that did not come to its end. When it was noticed is for the reader to add."""
        return cut_short(why, self._response, 0 if self.fold is None else self.fold.chunks)

    def _conclude(self) -> None:
        """`[DONE]` has come: is the answer whole?"""
        fold = self.fold
        if self.fault is not None or self.done:
            return
        if fold is None or fold.finished:
            self.done = True
        elif self._finishes:
            self.fault = self.incomplete("[DONE] came without a finish_reason, which this host always sends")
        elif fold.in_a_call:
            self.fault = self.incomplete("[DONE] came in the middle of a tool call")
        else:
            self.done = True
            if fold.chunks:
                warnings.warn(
                    "[DONE] came without a finish_reason: whether the answer is whole is not known",
                    KimiWarning,
                    stacklevel=2,
                )

    # --- the long way ---

    def _digested(self, payloads: list[Payload]) -> list[T]:
        """
        What the quick way is not for: an end in the middle, foreign leniencies, halves of characters, errors that are announced
        by their type or lack their `data:`, or garbage.
        """
        items: list[T] = []
        sse = self._sse
        errors = [data for kind, data in sse.typed if kind.lower() == "error"]
        queue = payloads[::-1]
        while queue and not self._said_done and self.fault is None:
            payload = queue.pop()
            if payload in errors and self._told(bytes(payload)):
                break
            items += self._patiently(payload, queue)
        if sse.strays and self.fold is not None and self.fault is None and not self.done:
            found, left = strays_in(sse.strays.decode("utf-8", "replace"))
            sse.strays[:] = left.encode()
            for value in found:
                if self.fault is None:
                    items += self._patiently(msgspec.json.encode(value), [])
        if self._said_done:
            self._conclude()
        return items

    def _told(self, payload: bytes) -> bool:
        """Whether an event of type "error" is one: not where it is a chunk."""
        error = None if self.fold is None else announced_error(payload)
        if error is not None:
            self._refused(error)
        return error is not None

    def _patiently(self, payload: Payload, queue: list[Payload]) -> list[T]:
        """The chunks of one event. Lines that are events of their own, for want of a blank line, go back into the queue."""
        found: list[T]
        try:
            found = [self._decode(payload)]
        except UNREADABLE as exc:
            text = bytes(payload).strip()
            if text.strip(b"\"'") == DONE:
                self._said_done = True
                return []
            if self.fold is None:
                self.fault = self.incomplete(f"an event cannot be decoded ({exc})")
                return []
            try:
                found = cast(
                    "list[T]",
                    decode_patiently(payload, ChatCompletionChunk, joined=SurrogateJoiner.FIELDS),
                )
            except ValueError as reason:
                if b"\n" in text:
                    queue += [line for line in reversed(text.split(b"\n")) if line.strip()]
                elif not self.fold.finished:  # else it is part of the goodbye: the answer is whole
                    self.fault = self.incomplete(f"an event is not a chunk ({reason}): {text[:200]!r}")
                return []
            # Not for pings and nulls: with it, every chunk goes the long way.
            if self._joiner is None and found:
                self._joiner, self._smooth = SurrogateJoiner(), None
        if self._joiner is not None:
            for chunk in cast("list[ChatCompletionChunk]", found):
                self._joiner.mend(chunk)
        return self._folded(found, [payload] * len(found))

    def _folded(self, items: list[T], sources: list[Payload]) -> list[T]:
        fold = self.fold
        if fold is None:
            return items
        chunks = cast("list[ChatCompletionChunk]", items)
        if self._continuation is not None:
            fits = self._continuation.fits
            kept = [pair for pair in zip(chunks, sources, strict=True) if fits(pair[0])]
            chunks, sources = [chunk for chunk, _ in kept], [source for _, source in kept]
        at = 0
        while at < len(chunks) and (at := at + fold.extend(chunks[at:] if at else chunks)) < len(chunks):
            # Neither choices nor usage, an end, an error beside them: look at the event itself.
            chunk = self._looked_at(chunks[at], sources[at])
            if chunk is None:
                del chunks[at:]
                break
            chunks[at] = chunk
            fold.settle(chunk)
            at += 1
        return cast("list[T]", chunks)

    def _looked_at(self, chunk: ChatCompletionChunk, payload: Payload) -> ChatCompletionChunk | None:
        """The chunk as it should be read; None for an error, which is then the fault."""
        chunk, error = second_look(chunk, payload)
        if error is not None:
            self._refused(error)
        return chunk if error is None else None

    def _refused(self, error: object) -> None:
        self.fault = error_in_stream(error, self._response.headers, self._response.request)


def cut_short(why: str, response: Response, chunks: int) -> IncompleteStreamError:
    rid = response.request_id
    return IncompleteStreamError(
        message=f"{why}, after {chunks} chunks and {response.bytes_received:,} bytes"
        f"{f' (request {rid})' if rid else ''}; .partial holds what arrived",
        request=response.request,
        phase="body" if chunks else "first_token",
    )


def announced_error(payload: bytes) -> object:
    """What an event of type "error" tells; None where it is a chunk."""
    try:
        value: Any = decode_patiently(payload, cast("type[Any]", Any))[0]
    except (ValueError, IndexError):
        value = payload.decode("utf-8", "replace")
    error = error_object(value)
    if error is None:
        if isinstance(value, dict) and cast("dict[str, object]", value).get("choices"):
            return None
        error = {"error": cast("object", value) or "the server sent an event of type error"}
    return error


def second_look(chunk: ChatCompletionChunk, payload: Payload) -> tuple[ChatCompletionChunk, object]:
    """The chunk, with what a foreign shape hides from its struct; and the error that the event is, or None."""
    failed = "error" in [choice.finish_reason for choice in chunk.choices]
    if chunk.choices and not chunk.error and not failed and not is_suspect(payload):
        return chunk, None
    try:
        value: Any = msgspec.json.decode(payload)
    except UNREADABLE:
        value = None
    error = error_object(value) or ({"error": chunk.error} if chunk.error else None)
    if error is None and failed:
        message = "the server ended the answer with finish_reason 'error'"
        error = {"error": {"message": message, "type": "server_error"}}
    if error is None and value is not None:
        try:
            chunk = fit(as_wire(value, "delta"), ChatCompletionChunk)
        except ValueError:
            pass
    return chunk, error


def as_events(payloads: list[Payload]) -> list[bytes]:
    """Events as bytes of a stream, in one piece."""
    if not payloads:
        return []
    pieces: list[Payload] = []
    for payload in payloads:
        if type(payload) is memoryview or b"\n" not in payload:  # a view is one line within what was read
            pieces += (b"data: ", payload, b"\n\n")
        else:
            pieces.append(encode_event(payload))
    return [b"".join(pieces)]


def _is_whole(value: Mapping[str, object]) -> bool:
    """Whether it is a completion, and not a chunk."""
    choices: object = value.get("choices")
    if not isinstance(choices, list) or value.get("object") == "chat.completion.chunk":
        return False
    return not any(isinstance(each, dict) and "delta" in each for each in cast("list[object]", choices))


def folded(body: bytes, response: Response) -> ChatCompletion:
    """
    The completion of a whole body that is a stream: events, or chunks as JSON.

    :raises APIError: what reading it as a stream would have raised; what it holds is then `partial`.
    """
    fold = Accumulator()
    digest: Digest[ChatCompletionChunk] = Digest(
        response, decode=None, fold=fold, max_event_size=max(1, len(body))
    )
    try:
        digest.feed(body)
        digest.settle()
        if not digest.done and digest.fault is None:
            digest.end()
    except NotAStream:
        try:
            digest.take(body)
        except ValueError:
            raise unfit(body, response) from None
    completion = fold.completion()
    if digest.fault is not None:
        digest.fault.partial = completion
        raise digest.fault
    if completion is None:
        raise unfit(body, response)
    return completion
