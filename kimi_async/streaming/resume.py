"""
Going on where a stream broke off, by Kimi's partial mode.

When a stream drops, stalls or is cut, the conversation is sent again with what had arrived as the beginning of the answer
(`{"role": "assistant", "content": …, "reasoning_content": …, "partial": true}`), and the reply holds only the rest
(platform.kimi.ai, "Use Partial Mode"). To the user it is one stream.

The price: every resumption is a request of its own, charged its prompt, which now includes the answer so far, and counted
against the limits. What the broken request was charged is not known: its usage never came.

What may be resumed, and how, is decided by plain functions here; `ResumingStream` acts on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from ..errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    Attempt,
    EmptyResponseError,
    KimiError,
    RateLimitReachedError,
)
from ..transport.exchange import Response
from ..types.chat import ChatCompletion, ChatCompletionChunk, CompletionUsage, UsageAttempt
from .fold import Accumulator
from .stream import AsyncStream

__all__ = ["ResumePolicy", "ResumingStream", "Resumption", "continued", "why_not"]


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """
    How hard to try to finish a stream.

        await client.chat.completions.create(..., stream=True, resume=ResumePolicy(max_attempts=3))
    """

    max_attempts: int = 3
    """Resumptions in a row that bring nothing new. One that brings text sets the count back to 0."""
    base: float = 0.5
    """Seconds before the second resumption without progress; doubled each time. The first is not delayed."""
    cap: float = 8.0
    """Seconds at most between two."""

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or self.max_attempts < 1:
            raise ValueError(f"ResumePolicy.max_attempts must be 1 or more; got {self.max_attempts!r}")

    def delay(self, fruitless: int) -> float:
        """
        Seconds to wait after this many resumptions in a row without progress.
        """
        return 0.0 if fruitless == 0 else min(self.cap, self.base * 2.0 ** (fruitless - 1))


@dataclass(frozen=True, slots=True)
class Resumption:
    """
    One resumption of a stream.
    """

    number: int
    """1 for the first."""
    error: Exception
    """What had ended the request before."""
    restarted: bool
    """Whether the answer began anew, since nothing but reasoning had arrived."""


def why_not(body: dict[str, Any], partial: ChatCompletion | None) -> str | None:
    """
    Why a stream cannot be resumed, or None if it can.
    """
    n = body.get("n")
    if isinstance(n, int) and n > 1:
        return "it has more than one choice (n > 1), and partial mode continues one"
    response_format = body.get("response_format")
    kind = cast("dict[str, Any]", response_format).get("type") if isinstance(response_format, dict) else None
    if kind in ("json_object", "json_schema"):
        return f"response_format is {kind}, which Kimi does not combine with partial mode"
    if partial is not None:
        if len(partial.choices) > 1:
            return "it has more than one choice, and partial mode continues one"
        for choice in partial.choices:
            if choice.message.tool_calls:
                return "a tool call was in progress, and half a call cannot be continued"
            if choice.message.refusal:
                return "the model was refusing"
    return None


def can_mend(error: BaseException) -> bool:
    """
    Whether asking again can help: the connection broke or fell silent, or the server failed in the middle.
    """
    if isinstance(error, APIStatusError):
        return error.retryable
    if isinstance(error, APIConnectionError):
        return error.retryable and error.phase != "total"
    return False


def continued(body: dict[str, Any], content: str, reasoning: str | None) -> dict[str, Any]:
    """
    The request that asks for the rest of an answer of which this much has arrived. `body` is not changed.

    Without content it is the request itself: a thought cannot be continued, only begun again. A partial message that the
    caller had put at the end themselves is lengthened.
    """
    if not content:
        return body
    messages: list[Any] = list(body["messages"])
    last: Any = messages[-1] if messages else None
    if isinstance(last, dict) and cast("dict[str, Any]", last).get("partial"):
        prefix = dict(cast("dict[str, Any]", last))
        prefix["content"] = (prefix.get("content") or "") + content
        if reasoning is not None:
            prefix["reasoning_content"] = (prefix.get("reasoning_content") or "") + reasoning
        messages[-1] = prefix
    else:
        message = {"role": "assistant", "content": content, "partial": True}
        if reasoning is not None:
            message["reasoning_content"] = reasoning
        messages.append(message)
    return {**body, "messages": messages}


# A server that repeats the prefix sends it in one piece, before its own text. A continuation that merely happens to begin like
# the answer (a refrain, a table's rule) comes token by token. Only the first is taken for an echo, and only of a prefix that
# had itself come in at least this many pieces.
ECHO_PIECES = 8


class ResumingStream(AsyncStream[ChatCompletionChunk]):
    """
    An `AsyncStream` that goes on where it broke off.

    One `id` throughout; no text twice and none missing; `usage` adds up what the server reported, with each request in
    `usage.attempts`. `resumptions` lists what happened. If nothing but reasoning had arrived, the answer begins anew: reasoning
    that comes out the same is not repeated; if it differs, the new one is handed out whole and replaces the old in `partial`
    and the final completion.

    What cannot be resumed raises what a plain stream would have raised, with a note that says why.
    """

    __slots__ = (
        "_attempts",
        "_body",
        "_closed",
        "_echo",
        "_error",
        "_expected",
        "_fruitless",
        "_inner",
        "_open",
        "_outer",
        "_pieces",
        "_policy",
        "_progress",
        "_received",
        "resumptions",
    )

    def __init__(
        self,
        inner: AsyncStream[ChatCompletionChunk],
        *,
        body: bytes,
        policy: ResumePolicy,
        reopen: Callable[[bytes], Awaitable[AsyncStream[ChatCompletionChunk]]],
        refuse_empty: bool = False,
    ) -> None:
        super().__init__(inner.response, refuse_empty=refuse_empty)
        self._ended = True  # the base class reads nothing: `inner` does
        self._inner: AsyncStream[ChatCompletionChunk] | None = inner
        self._body: dict[str, Any] = msgspec.json.decode(body)
        self._policy = policy
        self._open = reopen
        self._outer = Accumulator()
        self._error: KimiError | None = None
        self._closed = False
        self._fruitless = 0
        self._progress = False
        self._pieces = 0
        self._echo = ""
        self._expected = ""
        self._received = 0
        self._attempts: list[UsageAttempt] = []
        self.resumptions: list[Resumption] = []

    async def __anext__(self) -> ChatCompletionChunk:
        while True:
            if self._closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._inner is None:
                await self._resume()
                continue
            try:
                chunk = await self._inner.__anext__()
            except StopAsyncIteration:
                self._closed = True
                completion = self.snapshot()
                if self._refuse_empty and (completion is None or completion.is_empty):
                    self._error = EmptyResponseError(completion=completion)
                    raise self._error from None
                raise
            except APIError as exc:
                self._broke(exc)
                continue
            if self._passed(chunk):
                return chunk

    def take(self) -> list[ChatCompletionChunk]:
        return []

    async def close(self) -> None:
        self._closed = True
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.close()

    def __del__(self) -> None:
        pass  # the stream inside warns for itself

    @property
    def started(self) -> float:
        return self._started

    @property
    def chunks(self) -> int:
        return self._outer.chunks

    @property
    def usage(self) -> CompletionUsage | None:
        return self._outer.usage

    def snapshot(self) -> ChatCompletion | None:
        return self._outer.completion()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def __aenter__(self) -> Self:
        return self

    # --- what comes in ---

    def _passed(self, chunk: ChatCompletionChunk) -> bool:
        """
        Fits a chunk into the one logical stream. False if nothing of it is new.
        """
        outer = self._outer
        later = bool(self.resumptions)
        first = outer.first
        if later and first is not None:
            chunk.id, chunk.created, chunk.model = first.id, first.created, first.model
        usage = chunk.usage
        if usage is not None:
            self._count(chunk, usage)
        keep = not later or usage is not None or not chunk.choices
        for choice in chunk.choices:
            delta = choice.delta
            if choice.finish_reason is not None or delta.tool_calls or delta.refusal:
                keep = True
            if later:
                self._without_repetition(choice.delta)
                delta.role = None
            if delta.content or delta.reasoning_content:
                keep = self._progress = True
                self._pieces += bool(delta.content)
        if keep:
            outer.extend((chunk,))
        return keep

    def _without_repetition(self, delta: Any) -> None:
        if self._expected:
            thought = delta.reasoning_content
            if thought:
                if self._expected.startswith(thought):
                    self._expected = self._expected[len(thought) :]
                    delta.reasoning_content = None
                elif thought.startswith(self._expected):
                    delta.reasoning_content = thought[len(self._expected) :]
                    self._expected = ""
                else:
                    # It thinks otherwise this time. What was swallowed belongs to the new thought.
                    fold = self._outer.choices[0]
                    told = "".join(fold.reasoning)
                    swallowed = told[: len(told) - len(self._expected)]
                    fold.reasoning.clear()
                    delta.reasoning_content = swallowed + thought
                    self._expected = ""
            elif delta.content:
                fold = self._outer.choices[0]
                told = "".join(fold.reasoning)
                fold.reasoning[:] = [told[: len(told) - len(self._expected)]]
                self._expected = ""
        if self._echo and delta.content:
            if delta.content.startswith(self._echo):
                delta.content = delta.content[len(self._echo) :] or None
            self._echo = ""

    def _count(self, chunk: ChatCompletionChunk, usage: CompletionUsage) -> None:
        """
        Adds what this request was charged to what those before it were. A request reports once, or twice the same.
        """
        response = self._inner.response if self._inner is not None else None
        attempt = UsageAttempt(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        if response is not None and response.request_id:
            attempt.request_id = response.request_id
        number = len(self.resumptions)
        while len(self._attempts) < number:
            self._attempts.append(UsageAttempt())  # broke off before its usage came
        self._attempts[number:] = [attempt]
        if not self.resumptions:
            return
        total = usage.model_copy()
        total.prompt_tokens = sum(each.prompt_tokens for each in self._attempts)
        total.completion_tokens = sum(each.completion_tokens for each in self._attempts)
        total.total_tokens = total.prompt_tokens + total.completion_tokens
        total.attempts = list(self._attempts)
        chunk.usage = total
        for choice in chunk.choices:
            choice.usage = None

    # --- what goes wrong ---

    def _broke(self, exc: APIError) -> None:
        """
        The stream inside has ended with an error: shall we go on?

        :raises APIError: the error, if not.
        """
        inner = cast("AsyncStream[ChatCompletionChunk]", self._inner)
        self._received += inner.response.bytes_received
        partial = self._outer.completion()
        if self._progress:
            self._fruitless = 0
        reason: str | None = None
        if not can_mend(exc):
            reason = ""
        else:
            reason = why_not(self._body, partial)
            if reason is None and self._fruitless >= self._policy.max_attempts:
                reason = f"{self._fruitless} resumptions in a row brought nothing new"
        if reason is not None:
            if reason:
                exc.add_note(f"not resumed: {reason}")
            self._inner = None
            raise self._final(exc)
        self._inner = None
        self._error = exc

    def _final(self, exc: APIError) -> APIError:
        self._closed = True
        self._error = exc
        exc.partial = self._outer.completion()
        exc.chunks = self._outer.chunks
        exc.bytes_received = self._received
        exc.attempts = (
            *(
                Attempt(
                    number=each.number,
                    cause="stream",
                    status=getattr(each.error, "status_code", None),
                    error_type=getattr(each.error, "type", None),
                    message=str(each.error),
                )
                for each in self.resumptions
            ),
            *exc.attempts,
        )
        return exc

    async def _resume(self) -> None:
        error = cast("APIError", self._error)
        delay = self._policy.delay(self._fruitless)
        if isinstance(error, RateLimitReachedError) and error.retry_after:
            delay = max(delay, error.retry_after)
        if delay > 0:
            await asyncio.sleep(delay)
        fold = self._outer.choices.get(0)
        content = "".join(fold.content) if fold is not None else ""
        reasoning = "".join(fold.reasoning) if fold is not None and fold.seen_reasoning else None
        body = msgspec.json.encode(continued(self._body, content, reasoning))
        try:
            inner = await self._open(body)
        except APIError as exc:
            self._fruitless += 1
            if can_mend(exc) and self._fruitless < self._policy.max_attempts:
                self._error = exc
                return
            exc.add_note(f"while resuming a stream that had ended with {type(error).__name__}: {error}")
            raise self._final(exc) from error
        self._inner = inner
        self.response: Response = inner.response
        self._fruitless += 1
        self._progress = False
        self._echo = content if self._pieces >= ECHO_PIECES else ""
        self._expected = reasoning or "" if not content else ""
        self.resumptions.append(
            Resumption(len(self.resumptions) + 1, error, restarted=not content and reasoning is not None)
        )
        self._error = None
