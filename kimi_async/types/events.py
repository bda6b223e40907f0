"""
Events of `client.chat.completions.stream(...)`: the OpenAI SDK's by name and field, and under names of our own what Kimi adds.

`snapshot` is the answer as far as the event's chunk; it is put together when it is read, so that a loop which does not look at
it pays nothing. Read it before asking for the next event.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from .completions import ChatCompletion, ChatCompletionChunk, CompletionUsage

__all__ = [
    "ChatCompletionStreamEvent",
    "ChunkEvent",
    "ContentDeltaEvent",
    "ContentDoneEvent",
    "FunctionToolCallArgumentsDeltaEvent",
    "FunctionToolCallArgumentsDoneEvent",
    "LogprobsContentDeltaEvent",
    "LogprobsContentDoneEvent",
    "LogprobsRefusalDeltaEvent",
    "LogprobsRefusalDoneEvent",
    "ReasoningDeltaEvent",
    "ReasoningDoneEvent",
    "RefusalDeltaEvent",
    "RefusalDoneEvent",
    "StreamResumedEvent",
    "UsageEvent",
]


class ChunkEvent(msgspec.Struct, gc=False):
    """Every chunk, before what it holds."""

    chunk: ChatCompletionChunk
    _snapshot: Callable[[], ChatCompletion]
    type: Literal["chunk"] = "chunk"

    @property
    def snapshot(self) -> ChatCompletion:
        return self._snapshot()


class _Delta(msgspec.Struct, gc=False):
    delta: str
    _snapshot: Callable[[], str]

    @property
    def snapshot(self) -> str:
        return self._snapshot()


class ContentDeltaEvent(_Delta, gc=False):
    """
    Text of the answer. `parsed` is what can be read of the text so far, as plain values, where a `response_format` type was
    given (extra `[partial]`, or pydantic, reads it; None without), else None. It is read when it is asked for.
    """

    _read: Callable[[str], object] | None = None
    type: Literal["content.delta"] = "content.delta"

    @property
    def parsed(self) -> Any:
        return None if self._read is None else self._read(self._snapshot())


class ContentDoneEvent(msgspec.Struct, gc=False):
    content: str
    parsed: Any = None
    type: Literal["content.done"] = "content.done"


class ReasoningDeltaEvent(_Delta, gc=False):
    """Text of the model's thinking. Ours: the OpenAI SDK has no such event."""

    type: Literal["reasoning.delta"] = "reasoning.delta"


class ReasoningDoneEvent(msgspec.Struct, gc=False):
    reasoning: str
    type: Literal["reasoning.done"] = "reasoning.done"


class RefusalDeltaEvent(_Delta, gc=False):
    type: Literal["refusal.delta"] = "refusal.delta"


class RefusalDoneEvent(msgspec.Struct, gc=False):
    refusal: str
    type: Literal["refusal.done"] = "refusal.done"


class FunctionToolCallArgumentsDeltaEvent(msgspec.Struct, gc=False):
    """A fragment of a call's arguments. `arguments` is what there is so far; it need not be JSON yet."""

    name: str
    index: int
    arguments_delta: str
    _arguments: Callable[[], str]
    parsed_arguments: Any = None
    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"

    @property
    def arguments(self) -> str:
        return self._arguments()


class FunctionToolCallArgumentsDoneEvent(msgspec.Struct, gc=False):
    """A call is whole. `arguments` is the model's text, unchecked."""

    name: str
    index: int
    arguments: str
    parsed_arguments: Any = None
    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"


class LogprobsContentDeltaEvent(msgspec.Struct, gc=False):
    content: list[Any]
    snapshot: list[Any]
    type: Literal["logprobs.content.delta"] = "logprobs.content.delta"


class LogprobsContentDoneEvent(msgspec.Struct, gc=False):
    content: list[Any]
    type: Literal["logprobs.content.done"] = "logprobs.content.done"


class LogprobsRefusalDeltaEvent(msgspec.Struct, gc=False):
    refusal: list[Any]
    snapshot: list[Any]
    type: Literal["logprobs.refusal.delta"] = "logprobs.refusal.delta"


class LogprobsRefusalDoneEvent(msgspec.Struct, gc=False):
    refusal: list[Any]
    type: Literal["logprobs.refusal.done"] = "logprobs.refusal.done"


class UsageEvent(msgspec.Struct, gc=False):
    """Tokens charged, as soon as the server says so. Ours."""

    usage: CompletionUsage
    type: Literal["usage"] = "usage"


class StreamResumedEvent(msgspec.Struct, gc=False):
    """The stream had dropped, and goes on from where it was. Ours; only with `resume=`."""

    attempt: int
    """1 for the first resumption."""
    error: Exception
    """What ended the attempt before."""
    restarted: bool = False
    """Nothing but reasoning had arrived, so that the answer begins anew: reasoning already shown is void."""
    type: Literal["stream.resumed"] = "stream.resumed"


ChatCompletionStreamEvent: TypeAlias = (
    ChunkEvent
    | ContentDeltaEvent
    | ContentDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | FunctionToolCallArgumentsDeltaEvent
    | FunctionToolCallArgumentsDoneEvent
    | LogprobsContentDeltaEvent
    | LogprobsContentDoneEvent
    | LogprobsRefusalDeltaEvent
    | LogprobsRefusalDoneEvent
    | UsageEvent
    | StreamResumedEvent
)
