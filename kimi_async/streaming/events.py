"""
A streamed answer with its bookkeeping: events, plain text, the whole answer at the end, and how fast it came.

`AsyncStream` gives chunks; this gives what they mean. A chunk's events cost two small objects; snapshots are put together only
when somebody looks.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Generic, Self, TypeVar, cast

from ..errors import IncompleteStreamError, KimiError
from ..transport.exchange import Response
from ..types._base import held, is_given
from ..types.completions import ChatCompletion, ChatCompletionChunk, ChunkChoice, CompletionUsage
from ..types.events import (
    ChatCompletionStreamEvent,
    ChunkEvent,
    ContentDeltaEvent,
    ContentDoneEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    LogprobsContentDeltaEvent,
    LogprobsContentDoneEvent,
    LogprobsRefusalDeltaEvent,
    LogprobsRefusalDoneEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    RefusalDeltaEvent,
    RefusalDoneEvent,
    StreamResumedEvent,
    UsageEvent,
)
from .fold import Accumulator, CallFold, ChoiceFold, logprobs_of
from .resume import Repeater
from .stream import AsyncStream

__all__ = [
    "AsyncChatCompletionStream",
    "AsyncChatCompletionStreamManager",
    "ChatCompletionStreamState",
    "StreamMetrics",
]


class _Choice:
    """Which "done" events a choice still owes."""

    __slots__ = ("call", "content", "done", "named", "reasoning", "refusal")

    def __init__(self) -> None:
        self.content = False
        self.reasoning = False
        self.refusal = False
        self.call: CallFold | None = None
        self.named = False
        self.done = False


class ChatCompletionStreamState:
    """
    Chunks in, events out; no event loop needed. Also folds chunks that come from elsewhere:

        state = ChatCompletionStreamState()
        for chunk in chunks:
            for event in state.handle_chunk(chunk): ...
        completion = state.get_final_completion()

    :param response_format: a type: `content.done` and the final completion then have the answer as a value in `parsed`.
    :param input_tools: the request's tools; calls of those given by a type have `parsed_arguments`.
    :param parse: makes the `parsed` of `content.done` from the whole text; None leaves it None.
    :param parse_arguments: makes the `parsed_arguments` of a whole call from its name and arguments.
    :param so_far: makes the `parsed` of `content.delta` from the text so far.
    """

    def __init__(
        self,
        *,
        response_format: Any = None,
        input_tools: Any = None,
        parse: Callable[[str], Any] | None = None,
        parse_arguments: Callable[[str, str], Any] | None = None,
        so_far: Callable[[str], Any] | None = None,
    ) -> None:
        self._choices: dict[int, _Choice] = {}
        self._finish: Callable[[ChatCompletion], ChatCompletion] | None = None
        if response_format is not None or input_tools is not None:
            from ..schema.answers import (
                arguments_reader,
                parse_completion,
                response_format_of,
                value_or_none,
                value_so_far,
            )

            tools: list[Any] = []
            if input_tools is not None and is_given(input_tools):
                tools.extend(input_tools)
            wanted = response_format_of(response_format)
            if wanted is not None and parse is None:
                parse = partial(value_or_none, wanted)
            if wanted is not None and so_far is None:
                so_far = partial(value_so_far, wanted)
            if parse_arguments is None:
                parse_arguments = arguments_reader(tools)
            if wanted is not None or parse_arguments is not None:
                self._finish = partial(parse_completion, wanted=wanted, tools=tools)
        self._parse = parse
        self._parse_arguments = parse_arguments
        self._so_far = so_far
        self.use(Accumulator())

    def use(self, fold: Accumulator) -> None:
        """From here on the events are those of an answer that somebody else folds."""
        self._fold = fold
        # Not bound methods of self: events hold them, and would make a cycle of every event and its stream.
        self._snapshot = lambda: fold.completion() or ChatCompletion()
        self._content = fold.text
        self._reasoning = partial(fold.text, "reasoning")
        self._refusal = partial(fold.text, "refusal")

    @property
    def current_completion_snapshot(self) -> ChatCompletion:
        """
        The answer so far.

        :raises RuntimeError: before the first chunk.
        """
        completion = self._fold.completion()
        if completion is None:
            raise RuntimeError("there is no completion yet: no chunk has been handled")
        return completion

    def get_final_completion(self) -> ChatCompletion:
        """
        The answer of all chunks handled. Whether they were all is the caller's to know: an `AsyncStream` does.

        Where a type was given, what `parse` raises is raised here.
        """
        completion = self.current_completion_snapshot
        return completion if self._finish is None else self._finish(completion)

    def handle_chunk(self, chunk: ChatCompletionChunk) -> list[ChatCompletionStreamEvent]:
        """The events of one chunk: the chunk itself first, then what it holds."""
        if not self._fold.add(chunk):
            self._fold.settle(chunk)
        return list(self.told(chunk))

    def told_of_text(self, chunks: Sequence[ChatCompletionChunk]) -> Iterator[ChatCompletionStreamEvent]:
        """
        The events of a run of text, which has been folded. A chunk is told of when its first event is asked for, so that
        snapshots are never ahead.
        """
        fold, snapshot, content, so_far = self._fold, self._snapshot, self._content, self._so_far
        texts = [cast("str", chunk.choices[0].delta.content) for chunk in chunks]
        fold.ahead = sum(map(len, texts))
        at = 0
        first = self._choices.get(0)
        if first is None or not first.content:
            fold.ahead -= len(texts[0])
            yield from self._told_in_full(chunks[0])
            at = 1
        for chunk, text in zip(chunks[at:] if at else chunks, texts[at:] if at else texts, strict=True):
            fold.ahead -= len(text)
            yield ChunkEvent(chunk, snapshot)
            yield ContentDeltaEvent(text, content, so_far)

    def told(self, chunk: ChatCompletionChunk) -> Iterable[ChatCompletionStreamEvent]:
        """The events of one chunk, which has been folded."""
        choices = chunk.choices
        first = self._choices.get(0)
        # The chunk that comes a thousand times: one choice, with text, after text.
        if first is not None and first.content and len(choices) == 1:
            choice = choices[0]
            delta = choice.delta
            if (
                choice.finish_reason is None
                and choice.index == 0
                and delta.tool_calls is None
                and delta.reasoning_content is None
                and choice.logprobs is None
                and delta.refusal is None
                and choice.usage is None
                and chunk.usage is None
                and (text := delta.content)
            ):
                return ChunkEvent(chunk, self._snapshot), ContentDeltaEvent(text, self._content, self._so_far)
        return self._told_in_full(chunk)

    def _told_in_full(self, chunk: ChatCompletionChunk) -> list[ChatCompletionStreamEvent]:
        fold = self._fold
        events: list[ChatCompletionStreamEvent] = [ChunkEvent(chunk, self._snapshot)]
        for choice in chunk.choices:
            state = self._choices.get(choice.index)
            if state is None:
                state = self._choices[choice.index] = _Choice()
            folded = fold.choices.get(choice.index)
            if folded is not None:
                self._choice(choice, state, folded, events)
        usage = chunk.usage
        if usage is not None:
            events.append(UsageEvent(usage))
        return events

    def _choice(
        self, choice: ChunkChoice, state: _Choice, fold: ChoiceFold, events: list[ChatCompletionStreamEvent]
    ) -> None:
        delta = choice.delta
        first = choice.index == 0
        if delta.reasoning_content:
            state.reasoning = True
            text = self._reasoning if first else _later(fold.reasoning)
            events.append(ReasoningDeltaEvent(delta.reasoning_content, text))
        if delta.content:
            self._reasoning_done(state, fold, events)
            state.content = True
            text = self._content if first else _later(fold.content)
            events.append(ContentDeltaEvent(delta.content, text, self._so_far))
        if delta.refusal:
            state.refusal = True
            text = self._refusal if first else _later(fold.refusal)
            events.append(RefusalDeltaEvent(delta.refusal, text))
        for fragment in delta.tool_calls or ():
            call = _call_of(fold, fragment.index, fragment.id)
            if call is None:
                continue
            if call is not state.call:
                self._text_done(state, fold, events)
                self._call_done(state, events)
                state.call, state.named = call, False
            arguments = fragment.function.arguments if fragment.function is not None else None
            # The first of a call may bring a name alone; whoever shows what is being called need not wait for arguments.
            begins = bool(call.name) and not state.named
            state.named = state.named or begins
            if arguments or begins:
                events.append(
                    FunctionToolCallArgumentsDeltaEvent(
                        call.name, call.index, arguments or "", _arguments_of(call)
                    )
                )
        for name, tokens in logprobs_of(choice).items():
            if name == "content":
                events.append(LogprobsContentDeltaEvent(tokens, list(fold.logprobs["content"])))
            elif name == "refusal":
                events.append(LogprobsRefusalDeltaEvent(tokens, list(fold.logprobs["refusal"])))
        if choice.finish_reason and not state.done:
            state.done = True
            self._text_done(state, fold, events)
            self._call_done(state, events)
            if done := fold.logprobs.get("content"):
                events.append(LogprobsContentDoneEvent(list(done)))
            if done := fold.logprobs.get("refusal"):
                events.append(LogprobsRefusalDoneEvent(list(done)))

    def _reasoning_done(
        self, state: _Choice, fold: ChoiceFold, events: list[ChatCompletionStreamEvent]
    ) -> None:
        if state.reasoning:
            state.reasoning = False
            events.append(ReasoningDoneEvent("".join(fold.reasoning)))

    def _text_done(self, state: _Choice, fold: ChoiceFold, events: list[ChatCompletionStreamEvent]) -> None:
        self._reasoning_done(state, fold, events)
        if state.content:
            state.content = False
            content = "".join(fold.content)
            # A cut answer is not parsed: it would be found wrong, when it is only unfinished.
            whole = fold.finish_reason not in ("length", "content_filter")
            events.append(ContentDoneEvent(content, self._parse(content) if self._parse and whole else None))
        if state.refusal:
            state.refusal = False
            events.append(RefusalDoneEvent("".join(fold.refusal)))

    def _call_done(self, state: _Choice, events: list[ChatCompletionStreamEvent]) -> None:
        call, state.call = state.call, None
        if call is not None:
            text = call.text
            value = self._parse_arguments(call.name, text) if self._parse_arguments is not None else None
            events.append(FunctionToolCallArgumentsDoneEvent(call.name, call.index, text, value))


def _says_something(chunk: ChatCompletionChunk | str) -> bool:
    return isinstance(chunk, str) or any(
        choice.delta.content or choice.delta.reasoning_content or choice.delta.tool_calls
        for choice in chunk.choices
    )


def _later(fragments: list[str]) -> Callable[[], str]:
    return lambda: "".join(fragments)


def _arguments_of(call: CallFold) -> Callable[[], str]:
    return lambda: call.text


def _call_of(fold: ChoiceFold, index: int | None, call_id: str | None) -> CallFold | None:
    for call in reversed(fold.calls):
        if (index is None or call.index == index) and (not call_id or not call.id or call.id == call_id):
            return call
    return fold.calls[-1] if fold.calls else None


@dataclass(frozen=True, slots=True)
class StreamMetrics:
    """How an answer came. Times in seconds from the sending of the request."""

    time_to_first_token: float | None
    """Until the first reasoning, text or tool call; None if there was none yet."""
    duration: float
    """Until the end, or until now."""
    chunks: int
    completion_tokens: int | None
    """From the usage; None while the server has not said."""
    tokens_per_second: float | None
    """Tokens over the time since the first one; None without usage."""


C = TypeVar("C", bound=ChatCompletion)


class AsyncChatCompletionStream(Generic[C]):
    """
    The events of one answer, as they come: `async for event in stream`.

    Or `text_stream()` for its text alone. Afterwards, or instead, `get_final_completion()`.

    Errors are those of `AsyncStream`, partial answer included.
    """

    def __init__(
        self,
        stream: AsyncStream[ChatCompletionChunk],
        *,
        parse: Callable[[str], object] | None = None,
        parse_arguments: Callable[[str, str], object] | None = None,
        finish: Callable[[ChatCompletion], C] | None = None,
        so_far: Callable[[str], object] | None = None,
        repeat: Callable[[], Awaitable[AsyncStream[ChatCompletionChunk]]] | None = None,
        repeats: int = 0,
    ) -> None:
        self._stream = stream
        self._finish = finish
        self._state = ChatCompletionStreamState(parse=parse, parse_arguments=parse_arguments, so_far=so_far)
        if stream.fold is not None:
            self._state.use(stream.fold)
        stream.tell_by_runs()
        self._begun = False
        """Whether anything has been handed out."""
        self._repeat: Callable[[], Awaitable[AsyncStream[ChatCompletionChunk]]] | None = repeat
        self._repeats = repeats
        self._repeater: Repeater | None = None
        self._pending: Iterator[ChatCompletionStreamEvent] = iter(())
        self._loop = asyncio.get_running_loop()
        self._first: float | None = None
        self._ended: float | None = None
        self._told = 0

    @property
    def response(self) -> Response:
        return self._stream.response

    @property
    def request_id(self) -> str | None:
        return self._stream.request_id

    @property
    def usage(self) -> CompletionUsage | None:
        return self._stream.usage

    @property
    def current_completion_snapshot(self) -> ChatCompletion:
        return self._state.current_completion_snapshot

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionStreamEvent:
        for event in self._pending:
            return event
        self._begun = True
        self._stream.tell_texts(False)
        while True:
            # With the chunk come those that arrived in the same packet: a loop over them, not a call for each.
            self._pending = self._told_of(await self._next())
            for event in self._pending:
                return event

    async def _next(self) -> list[ChatCompletionChunk]:
        try:
            chunk = await self._stream.__anext__()
        except (StopAsyncIteration, KimiError):
            if self._ended is None:
                self._ended = self._loop.time()
            raise
        chunks = [chunk, *self._stream.take()]
        if self._first is None and any(map(_says_something, chunks)):
            self._first = self._loop.time()
        return chunks

    @property
    def _resumed(self) -> bool:
        return len(self._stream.resumptions) > self._told

    def _resumptions(self) -> Iterator[ChatCompletionStreamEvent]:
        for each in self._stream.resumptions[self._told :]:
            self._told += 1
            yield StreamResumedEvent(each.number, each.error, each.restarted)

    async def text_stream(self) -> AsyncIterator[str]:
        """The text of the first choice, fragment by fragment, without reasoning."""
        self._begun = True
        stream = self._stream
        stream.tell_texts()
        while True:
            for event in self._pending:
                if type(event) is ContentDeltaEvent:
                    yield event.delta
            try:
                found: list[Any] = await self._next()
            except StopAsyncIteration:
                return
            if type(found[0]) is not str:
                self._pending = self._told_of(found)
                continue
            fold, texts = cast("Accumulator", stream.fold), iter(found)
            fold.ahead = sum(map(len, found))
            self._pending = self._told_later(texts)
            for text in texts:
                fold.ahead -= len(text)
                yield text

    def _told_later(self, texts: Iterator[str]) -> Iterator[ChatCompletionStreamEvent]:
        """The events of what is left of a run of texts, for one who goes on with events in the middle of it."""
        if chunks := self._stream.chunks_of(texts):
            yield from self._state.told_of_text(chunks)

    def _told_of(self, chunks: list[ChatCompletionChunk]) -> Iterator[ChatCompletionStreamEvent]:
        state = self._state
        if self._stream.in_run:
            events = state.told_of_text(chunks)
        elif len(chunks) == 1:
            events = iter(state.told(chunks[0]))
        else:
            events = chain.from_iterable(map(state.told, chunks))
        return chain(self._resumptions(), events) if self._resumed else events

    async def until_done(self) -> Self:
        """Takes in the rest of the stream."""
        if self._begun:
            async for _ in self:
                pass
            return self
        # Nobody has seen anything of it: no event need be made, and what breaks off can be repeated unseen.
        stream = self._stream
        stream.gather()
        stream.drop_chunks()
        stream.tell_by_runs(False)  # what came in one packet is folded in one go
        if self._repeat is not None and self._repeater is None:
            self._repeater = Repeater(self._repeat, self._repeats)
            stream.repeat_with(self._repeater)
        try:
            while True:
                await self._next()
        except StopAsyncIteration:
            pass
        finally:
            stream.drop_chunks(False)
            stream.tell_by_runs()
            if stream.fold is not None:
                self._state.use(stream.fold)
        self._begun = True
        return self

    async def get_final_completion(self) -> C:
        """
        The whole answer, once it is whole; read as a value where a `response_format` type was given.

        Before anything was iterated a stream that breaks off is repeated (`max_retries`), or continued where `resume=` was
        given and the host can: nobody has seen what is thrown away. `completion.attempts` tells.
        """
        await self.until_done()
        completion = self._stream.snapshot()
        if completion is None:
            raise IncompleteStreamError(
                message="the stream ended without a single chunk", request=self.response.request, phase="body"
            )
        held(completion)["_rid"] = self.request_id
        if self._repeater is not None and self._repeater.attempts:
            held(completion)["_history"] = self._repeater.attempts
        return cast("C", completion) if self._finish is None else self._finish(completion)

    async def get_final_text(self) -> str:
        """The text of the whole answer; `""` if it holds none."""
        completion = await self.get_final_completion()
        return (completion.choices[0].message.content or "") if completion.choices else ""

    @property
    def metrics(self) -> StreamMetrics:
        """How it came so far."""
        started = self._stream.started
        now = self._loop.time() if self._ended is None else self._ended
        usage = self._stream.usage
        tokens = usage.completion_tokens if usage is not None else None
        flowing = now - self._first if self._first is not None else 0.0
        return StreamMetrics(
            time_to_first_token=None if self._first is None else self._first - started,
            duration=now - started,
            chunks=self._stream.chunks,
            completion_tokens=tokens,
            tokens_per_second=tokens / flowing if tokens and flowing > 0 else None,
        )

    async def close(self) -> None:
        await self._stream.close()

    async def aclose(self) -> None:
        await self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncChatCompletionStreamManager(Generic[C]):
    """Sends the request on entering, closes the stream on leaving."""

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[AsyncStream[ChatCompletionChunk]]],
        *,
        parse: Callable[[str], object] | None = None,
        parse_arguments: Callable[[str, str], object] | None = None,
        finish: Callable[[ChatCompletion], C] | None = None,
        so_far: Callable[[str], object] | None = None,
        repeats: int = 0,
    ) -> None:
        self._open_stream = open_stream
        self._parse = parse
        self._parse_arguments = parse_arguments
        self._finish = finish
        self._so_far = so_far
        self._repeats = repeats
        self._stream: AsyncChatCompletionStream[C] | None = None

    async def __aenter__(self) -> AsyncChatCompletionStream[C]:
        self._stream = AsyncChatCompletionStream(
            await self._open_stream(),
            parse=self._parse,
            parse_arguments=self._parse_arguments,
            finish=self._finish,
            so_far=self._so_far,
            repeat=self._open_stream,
            repeats=self._repeats,
        )
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        if self._stream is not None:
            await self._stream.close()
