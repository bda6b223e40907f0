"""
Going on where a stream broke off, by Kimi's partial mode.

When a stream drops, stalls or is cut, the conversation is sent again with what had arrived as the beginning of the answer
(`{"role": "assistant", "content": …, "reasoning_content": …, "partial": true}`), and the reply holds only the rest
(platform.kimi.ai, "Use Partial Mode"). To the user it is one stream.

The price: every resumption is a request of its own, charged its prompt, which now includes the answer so far, and counted
against the limits. What the broken request was charged is not known: its usage never came.

What may be resumed, and how, is decided by plain functions here; `Resumer` acts on it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgspec

from ..errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    Attempt,
    ConfigurationError,
    RateLimitReachedError,
)
from ..providers.hosts import Provider
from ..types.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceDelta,
    CompletionUsage,
    UsageAttempt,
    total_usage,
)
from .fold import Accumulator
from .stream import AsyncStream, Resumption

__all__ = [
    "Repeater",
    "ResumePolicy",
    "Resumer",
    "Resumption",
    "can_mend",
    "check_resume",
    "continued",
    "why_not",
]


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

    @classmethod
    def of(cls, value: object) -> "ResumePolicy | None":
        """
        Understands what callers pass as `resume=`: a policy, True for the usual one, None or False for none.

        :raises TypeError: for anything else, with what was probably meant.
        """
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        if isinstance(value, cls):
            return value
        meant = (
            f"; for so many attempts, ResumePolicy(max_attempts={value})" if isinstance(value, int) else ""
        )
        raise TypeError(f"resume must be a ResumePolicy, True or None, not {type(value).__name__}{meant}")

    def delay(self, fruitless: int) -> float:
        """Seconds to wait after this many resumptions in a row without progress."""
        return 0.0 if fruitless == 0 else min(self.cap, self.base * 2.0 ** (fruitless - 1))


def why_not(body: Mapping[str, object], partial: ChatCompletion | None) -> str | None:
    """Why a stream cannot be resumed, or None if it can."""
    n = body.get("n")
    if isinstance(n, int) and n > 1:
        return "it has more than one choice (n > 1), and partial mode continues one"
    response_format = body.get("response_format")
    kind = (
        cast("dict[str, object]", response_format).get("type") if isinstance(response_format, dict) else None
    )
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


def check_resume(provider: Provider | None) -> None:
    """:raises ConfigurationError: this host is not known to go on with a partial message. One that is unknown may."""
    if provider is not None and not provider.continues_partial:
        raise ConfigurationError(
            f"resume= needs a host that goes on with a partial message, and {provider.title} is not known to: it would "
            "begin the answer anew, or refuse. Leave it out, and repeat the request where a stream breaks off"
        )


def can_mend(error: BaseException) -> bool:
    """Whether asking again can help: the connection broke or fell silent, or the server failed in the middle."""
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
# the answer (a refrain, a table's rule) comes token by token. Only the first is taken for an echo, and only of a prefix longer
# than a token is.
ECHO = 24

# A host of which it is not known whether it goes on with a partial message may begin the answer anew, token by token. There a
# repetition of all that had arrived, from so many characters on, is taken for that, and not for a refrain.
ANEW = 8


# What one request was charged, and its id.
Charge: TypeAlias = tuple[CompletionUsage, str | None]


class Resumer:
    """
    Goes on with a stream where it broke off; what an `AsyncStream` with `resume=` has beside its reply.

    One `id` throughout; no text twice and none missing; `usage` adds up what the server reported, with each request in
    `usage.attempts`. `resumptions` lists what happened. If nothing but reasoning had arrived, the answer begins anew: reasoning
    that comes out the same is not repeated; if it differs, the new one is handed out whole and replaces the old in `partial`
    and the final completion.

    What cannot be resumed raises what a plain stream would have raised, with a note that says why.
    """

    __slots__ = (
        "_body",
        "_charged",
        "_error",
        "_fruitless",
        "_known",
        "_open",
        "_policy",
        "_size",
        "resumptions",
    )

    def __init__(
        self,
        *,
        body: bytes,
        policy: ResumePolicy,
        reopen: Callable[[bytes], Awaitable[AsyncStream[ChatCompletionChunk]]],
        known: bool = True,
    ) -> None:
        self._body: dict[str, object] = msgspec.json.decode(body)
        self._policy = policy
        self._open = reopen
        self._known = known
        """Whether the host is known to go on with a partial message."""
        self._error: APIError | None = None
        """What the latest request ended with."""
        self._fruitless = 0
        """Resumptions in a row that brought nothing new."""
        self._size = 0
        """Characters that had arrived when it was last resumed."""
        self._charged: list[Charge] = []
        """What each request was charged; without numbers where it broke off before it said so."""
        self.resumptions: list[Resumption] = []

    async def mended(
        self, fault: APIError, fold: Accumulator
    ) -> tuple[AsyncStream[ChatCompletionChunk], "Rest"]:
        main = fold.choices.get(0)
        content = "".join(main.content) if main is not None else ""
        reasoning = "".join(main.reasoning) if main is not None and main.seen_reasoning else None
        if self._error is None:  # else it was cancelled while it was being resumed, and has been judged
            size = len(content) + len(reasoning or "")
            if size != self._size:
                self._fruitless, self._size = 0, size
            self._judge(fault, fold)
            self._note_charge(fold)
            self._error = fault
        body = msgspec.json.encode(continued(self._body, content, reasoning))
        while True:
            error = self._error
            delay = self._policy.delay(self._fruitless)
            if isinstance(error, RateLimitReachedError) and error.retry_after:
                delay = max(delay, error.retry_after)
            if delay > 0:
                await asyncio.sleep(delay)
            try:
                stream = await self._open(body)
                break
            except APIError as exc:
                self._fruitless += 1
                if can_mend(exc) and self._fruitless < self._policy.max_attempts:
                    self._error = exc
                    continue
                exc.add_note(f"while resuming a stream that had ended with {type(error).__name__}: {error}")
                raise self._final(exc) from error
        self._fruitless += 1
        restarted = not content and reasoning is not None
        self.resumptions.append(Resumption(len(self.resumptions) + 1, error, restarted))
        self._error = None
        rest = Rest(fold, self._charged, stream.request_id, content, reasoning, known=self._known)
        return stream, rest

    def _judge(self, fault: APIError, fold: Accumulator) -> None:
        """:raises APIError: the fault, where it shall not be resumed."""
        if not can_mend(fault):
            raise self._final(fault)
        reason = why_not(self._body, fold.completion())
        if reason is None and self._fruitless >= self._policy.max_attempts:
            reason = f"{self._fruitless} resumptions in a row brought nothing new"
        if reason is not None:
            fault.add_note(f"not resumed: {reason}")
            raise self._final(fault)

    def _note_charge(self, fold: Accumulator) -> None:
        """The request that broke off is in the list, whether or not it has said what it was charged."""
        if not self._charged and (usage := fold.usage) is not None:
            self._charged.append((usage, None))
        while len(self._charged) <= len(self.resumptions):
            self._charged.append((CompletionUsage(), None))

    def _final(self, exc: APIError) -> APIError:
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


class Repeater:
    """
    Asks again for an answer of which nobody has seen anything, where it broke off.

    Waits between attempts as a `ResumePolicy` does. `attempts` lists what failed.
    """

    __slots__ = ("_again", "_left", "attempts", "told")

    def __init__(
        self,
        again: Callable[[], Awaitable[AsyncStream[ChatCompletionChunk]]],
        repeats: int,
        told: Callable[[], None] | None = None,
    ) -> None:
        self._again = again
        self._left = repeats
        self.told: Callable[[], None] | None = told
        """Called where the answer begins anew."""
        self.attempts: tuple[Attempt, ...] = ()

    async def again(self, fault: APIError) -> AsyncStream[ChatCompletionChunk]:
        """:raises APIError: the fault, where it is of no use to ask again; or what the last attempt ended with."""
        while True:
            if not can_mend(fault) or self._left <= 0:
                fault.attempts = (*self.attempts, *fault.attempts)
                raise fault
            self._left -= 1
            number = len(self.attempts)
            waited = ResumePolicy().delay(number)
            if isinstance(fault, RateLimitReachedError) and fault.retry_after:
                waited = max(waited, fault.retry_after)
            self.attempts = (
                *self.attempts,
                Attempt(
                    number=number + 1,
                    cause="stream",
                    status=getattr(fault, "status_code", None),
                    error_type=fault.type,
                    message=str(fault),
                    waited=waited,
                ),
            )
            if waited > 0:
                await asyncio.sleep(waited)
            try:
                stream = await self._again()
            except APIError as exc:
                fault = exc
                continue
            if self.told is not None:
                self.told()
            return stream


class Rest:
    """The rest of an answer, from a request that was given its beginning."""

    __slots__ = (
        "_anew",
        "_charged",
        "_echo",
        "_expected",
        "_fold",
        "_held",
        "_number",
        "_request_id",
        "usage",
    )

    def __init__(
        self,
        fold: Accumulator,
        charged: list[Charge],
        request_id: str | None,
        content: str,
        reasoning: str | None,
        *,
        known: bool = True,
    ) -> None:
        self._fold = fold
        self._charged = charged
        self._number = len(charged)
        self._request_id = request_id
        self._echo = content if len(content) >= ECHO else ""
        """What it may repeat in one piece, before its own text."""
        self._anew = content if not known and len(content) >= ANEW else ""
        """What it may say once more, token by token, if it begins anew."""
        self._held = ""
        """How much of that it has said."""
        self._expected = (reasoning or "") if not content else ""
        """The thought that it may think again."""
        self.usage: CompletionUsage | None = None

    def fits(self, chunk: ChatCompletionChunk) -> bool:
        first = self._fold.first
        if first is not None:
            chunk.id, chunk.created, chunk.model = first.id, first.created, first.model
        usage = chunk.usage
        if usage is not None:
            self._count(chunk, usage)
        keep = usage is not None or not chunk.choices
        for choice in chunk.choices:
            delta = choice.delta
            if delta.reasoning is not None and delta.reasoning_content is None:
                delta.reasoning_content = delta.reasoning
            if choice.finish_reason is not None or delta.tool_calls or delta.refusal:
                keep = True
            self._without_repetition(delta, choice.finish_reason is not None)
            delta.role = None
            if delta.content or delta.reasoning_content:
                keep = True
        return keep

    def _without_repetition(self, delta: ChoiceDelta, last: bool) -> None:
        if self._expected:
            fold = self._fold.choices[0]
            before = "".join(fold.reasoning)
            thought = delta.reasoning_content
            if thought:
                delta.reasoning = None
                if self._expected.startswith(thought):
                    self._expected = self._expected[len(thought) :]
                    delta.reasoning_content = None
                elif thought.startswith(self._expected):
                    delta.reasoning_content = thought[len(self._expected) :]
                    self._expected = ""
                else:
                    # It thinks otherwise this time. What was swallowed belongs to the new thought.
                    swallowed = before[: len(before) - len(self._expected)]
                    fold.reasoning.clear()
                    delta.reasoning_content = swallowed + thought
                    self._expected = ""
            elif delta.content:
                fold.reasoning[:] = [before[: len(before) - len(self._expected)]]
                self._expected = ""
        if self._anew:
            self._without_beginning(delta, last)
        if self._echo and delta.content:
            if delta.content.startswith(self._echo):
                delta.content = delta.content[len(self._echo) :] or None
            self._echo = ""

    def _without_beginning(self, delta: ChoiceDelta, last: bool) -> None:
        """
        Holds text back as long as it repeats the answer from its beginning. Once it has repeated all that had arrived, it was
        the answer begun anew, and only what follows is new; where it turns out to be something else, it is handed out.
        """
        said = self._held + (delta.content or "")
        if said.startswith(self._anew):
            delta.content = said[len(self._anew) :] or None
            self._anew = self._echo = ""
        elif last or not self._anew.startswith(said):
            delta.content = said or None
            self._anew = ""
        else:
            self._held, delta.content = said, None

    def _count(self, chunk: ChatCompletionChunk, usage: CompletionUsage) -> None:
        """Adds what this request was charged to what those before it were. A request reports once, or the same twice."""
        self.usage = usage
        self._charged[self._number :] = [(usage, self._request_id)]
        total = total_usage(usage for usage, _ in self._charged) or usage
        total.attempts = [_attempt(usage, request_id) for usage, request_id in self._charged]
        # Where it stood: a usage in a choice and another in a chunk of its own must not become two of the second kind.
        for choice in chunk.choices:
            if choice.usage is not None:
                choice.usage = total
        if chunk.usage is not total:
            chunk.usage = total


def _attempt(usage: CompletionUsage, request_id: str | None) -> UsageAttempt:
    attempt = UsageAttempt(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
    if request_id:
        attempt.request_id = request_id
    if usage.cost is not None:
        attempt.cost = usage.cost
    return attempt
