"""
A stream whose leaked tool calls come as calls: `leaked_tools="mend"` on a streamed answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Self

from ..errors import ConfigurationError
from ..streaming.fold import Accumulator
from ..streaming.stream import AsyncStream
from ..transport.exchange import Response
from ..types.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChunkChoice,
    CompletionUsage,
)
from .leaks import Leak, LeakScanner, find_leak, tell_leak

__all__ = ["MendedStream"]


class _Mending:
    """What one choice has given, and what is held back of it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.scanner = LeakScanner(names)
        self.thought: list[str] = []
        self.spoke = False
        self.calls = 0
        self.over = False


class MendedStream:
    """
    Hands on the chunks of a stream, but for markup of tool calls in their text: what is whole comes as `tool_calls` with the
    finish, what is not comes as the text it was. Text that cannot be markup is not held back.

    It offers what `AsyncStream` does. What fails, fails with the error of the stream inside; its `partial` has the text as it came.
    """

    def __init__(self, inner: AsyncStream[ChatCompletionChunk], names: Iterable[str]) -> None:
        self._inner = inner
        self._names = tuple(names)
        self._choices: dict[int, _Mending] = {}
        self._fold = Accumulator()
        self._last: ChatCompletionChunk | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        while True:
            try:
                chunk = await self._inner.__anext__()
            except StopAsyncIteration:
                if (rest := self._unsaid()) is not None:
                    return self._folded(rest)
                raise
            if (mended := self._mended(chunk)) is not None:
                return mended

    def take(self) -> list[ChatCompletionChunk]:
        return [mended for chunk in self._inner.take() if (mended := self._mended(chunk)) is not None]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._inner.close()

    async def aclose(self) -> None:
        await self._inner.close()

    def drop_chunks(self, on: bool = True) -> None:
        """Does nothing: what is mended is the chunks."""

    def tell_texts(self, on: bool = True) -> None:
        """Nor does this."""

    def raw_events(self) -> NoReturn:
        raise ConfigurationError(
            "raw_events() hands on what came, and leaked_tools='mend' changes it: iterate over the chunks"
        )

    def __repr__(self) -> str:
        return f"<MendedStream of {self._inner!r}>"

    def __getattr__(self, name: str) -> Any:
        # What only some streams have, the resumptions of one that goes on for instance.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def response(self) -> Response:
        return self._inner.response

    @property
    def request_id(self) -> str | None:
        return self._inner.request_id

    @property
    def started(self) -> float:
        return self._inner.started

    @property
    def chunks(self) -> int:
        return self._inner.chunks

    @property
    def usage(self) -> CompletionUsage | None:
        return self._inner.usage

    def snapshot(self) -> ChatCompletion | None:
        return self._fold.completion()

    # --- chunks ---

    def _folded(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        self._fold.extend((chunk,))
        return chunk

    def _mended(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk | None:
        """The chunk with its text as far as it is certain; None if nothing is left of it."""
        says = not chunk.choices or chunk.usage is not None
        for choice in chunk.choices:
            kept = self._choices.get(choice.index)
            if kept is None:
                kept = self._choices[choice.index] = _Mending(self._names)
            delta = choice.delta
            if delta.reasoning_content:
                kept.thought.append(delta.reasoning_content)
            if delta.tool_calls:
                kept.calls = max(kept.calls, *((call.index or 0) + 1 for call in delta.tool_calls))
            if delta.content:
                delta.content = kept.scanner.feed(delta.content) or None
                kept.spoke = True
            if choice.finish_reason is not None and not kept.over:
                self._finished(choice, kept)
            says = says or bool(
                delta.content
                or delta.reasoning_content
                or delta.tool_calls
                or delta.role
                or delta.refusal
                or choice.finish_reason is not None
            )
        if not says:
            return None
        self._last = chunk
        return self._folded(chunk)

    def _finished(self, choice: ChunkChoice, kept: _Mending) -> None:
        kept.over = True
        delta = choice.delta
        rest, leak = kept.scanner.finish()
        if leak is None and not kept.spoke and not kept.calls:
            leak = find_leak("".join(kept.thought), self._names)
        if leak is not None and leak.whole and choice.finish_reason in ("stop", "tool_calls"):
            delta.tool_calls = [*(delta.tool_calls or ()), *_fragments(leak, kept.calls)]
            choice.finish_reason = "tool_calls"
        elif leak is not None:
            tell_leak(leak, choice.finish_reason, mend=True)
            rest = kept.scanner.raw
        if rest:
            delta.content = (delta.content or "") + rest

    def _unsaid(self) -> ChatCompletionChunk | None:
        """What is held back of a stream that ended without saying how: its text, which is all that is certain."""
        choices: list[ChunkChoice] = []
        for index, kept in self._choices.items():
            if not kept.over:
                kept.over = True
                rest, leak = kept.scanner.finish()
                if leak is not None:
                    tell_leak(leak, None, mend=True)
                    rest = kept.scanner.raw
                if rest:
                    choices.append(ChunkChoice(index=index, delta=ChoiceDelta(content=rest)))
        if not choices or self._last is None:
            return None
        last = self._last
        return ChatCompletionChunk(choices=choices, id=last.id, created=last.created, model=last.model)


def _fragments(leak: Leak, first: int) -> list[ChoiceDeltaToolCall]:
    return [
        ChoiceDeltaToolCall(
            index=first + at,
            id=call.id,
            type="function",
            function=ChoiceDeltaToolCallFunction(name=call.name, arguments=call.arguments),
        )
        for at, call in enumerate(leak.calls)
    ]
