"""
Completions whose answer has been read as a value: what `chat.completions.parse` gives.

What was read is kept beside the fields of the wire: a message goes back into `messages` exactly as it came.
"""

from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from ._base import absent, held, wire
from .completions import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageToolCall,
    Choice,
    Function,
)

__all__ = [
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "ParsedFunction",
    "ParsedFunctionToolCall",
]

T = TypeVar("T")


class ParsedFunction(Function):
    @property
    def parsed_arguments(self) -> Any:
        """
        The arguments as a value where the tool was given by a type (`pydantic_function_tool`), as plain JSON where its
        definition is strict, else None.
        """
        return held(self).get("_parsed")


class ParsedFunctionToolCall(ChatCompletionMessageToolCall):
    function: ParsedFunction = msgspec.field(default_factory=ParsedFunction)  # pyright: ignore[reportIncompatibleVariableOverride]


@wire
class ParsedChatCompletionMessage(ChatCompletionMessage, Generic[T]):
    tool_calls: list[ParsedFunctionToolCall] | None = absent()  # type: ignore[assignment]

    @property
    def parsed(self) -> T | None:
        """The answer as a value; None where the model called tools instead, or refused."""
        return cast("T | None", held(self).get("_parsed"))


class ParsedChoice(Choice, Generic[T]):
    __children__: ClassVar[tuple[str, ...]] = ("message", "usage")

    message: ParsedChatCompletionMessage[T] = msgspec.field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default_factory=ParsedChatCompletionMessage[Any]
    )


class ParsedChatCompletion(ChatCompletion, Generic[T]):
    choices: list[ParsedChoice[T]] = msgspec.field(default_factory=list)  # type: ignore[assignment]

    @property
    def parsed(self) -> T | None:
        """The value of the first choice."""
        return self.choices[0].message.parsed if self.choices else None
