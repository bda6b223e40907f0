"""
Answers as values: `response_format=T` on the way out, `parsed` on the way back.

Three things can be wrong with an answer that should be a value, and they are told apart: it was cut by its budget
(`LengthFinishReasonError`), it was stopped by moderation (`ContentFilterFinishReasonError`), or it is whole and not of the
type (`schema.OutputError`, with the completion in `.completion`).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from ..errors import ConfigurationError, ContentFilterFinishReasonError, LengthFinishReasonError
from ..types._base import Reply, held, is_given
from ..types.completions import ChatCompletion
from ..types.parsed import (
    ParsedChatCompletion,
    ParsedChatCompletionMessage,
    ParsedChoice,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from . import ROOT_KEY, OutputError, ResponseFormat, decoder_for, json_schema, response_format_for
from .partial import read_so_far

__all__ = [
    "ModelTool",
    "argument_readers",
    "arguments_reader",
    "parse_completion",
    "pydantic_function_tool",
    "reask",
    "response_format_of",
    "value_or_none",
    "value_so_far",
]

S = TypeVar("S", bound=Reply)


def response_format_of(value: object) -> ResponseFormat[Any] | None:
    """
    What reads the answers to this `response_format`; None where it is a mapping of the wire's shape, or absent.

    Schemas are made once for each type.
    """
    if value is None or not is_given(value) or isinstance(value, Mapping):
        return None
    if isinstance(value, ResponseFormat):
        return value  # pyright: ignore[reportUnknownVariableType]
    try:
        return _made(value)
    except TypeError:  # not hashable
        return response_format_for(value)


@lru_cache(maxsize=256)
def _made(tp: object) -> ResponseFormat[object]:
    return response_format_for(tp)


def arguments_reader(tools: object) -> Callable[[str, str], Any] | None:
    """
    What reads a call's arguments by the name of its tool, for events; None if no tool was given by a type.

    Like `value_or_none` it never raises: arguments that do not fit read as None.
    """
    readers = argument_readers(tools)
    if not readers:
        return None

    def read(name: str, arguments: str) -> object:
        reader = readers.get(name)
        try:
            return reader(arguments) if reader is not None else None
        except (ValueError, TypeError, RecursionError):
            return None

    return read


def value_or_none(wanted: ResponseFormat[Any], text: str) -> Any:
    """The value of a text; None if it is not one. For events: what is wrong is raised at the end, with the whole answer."""
    try:
        return wanted.decode(text)
    except OutputError:
        return None


def value_so_far(wanted: ResponseFormat[Any], text: str) -> Any:
    """What can be read of an answer that is still coming, as plain values; see `partial.read_so_far`."""
    return read_so_far(text, under=ROOT_KEY if wanted.wrapped else None)


class ModelTool(dict[str, object]):
    """A tool definition, as a plain dict, that remembers the type of its arguments."""

    model: Any


def pydantic_function_tool(
    model: object, *, name: str | None = None, description: str | None = None
) -> ModelTool:
    """
    A tool definition whose arguments are a type: a pydantic model, or any other that `schema.json_schema` takes.

    `parse` then gives the calls of it `function.parsed_arguments`.
    """
    parameters = json_schema(model)
    text = description if description is not None else parameters.pop("description", None)
    function: dict[str, object] = {"name": name or getattr(model, "__name__", "function"), "strict": True}
    if text:
        function["description"] = text
    function["parameters"] = parameters
    made = ModelTool(type="function", function=function)
    made.model = model
    return made


def argument_readers(tools: object) -> dict[str, Callable[[str], Any]]:
    """Readers of arguments by the name of the tool, for a request's `tools`."""
    readers: dict[str, Callable[[str], object]] = {}
    for tool in cast("Iterable[object]", tools) if isinstance(tools, (list, tuple)) else ():
        if not isinstance(tool, Mapping):
            continue
        definition = cast("Mapping[str, object]", tool)
        function = cast("Mapping[str, object]", definition.get("function") or {})
        # The OpenAI SDK's own function of this name keeps the model on the inner object.
        model = getattr(definition, "model", None) or getattr(function, "model", None)
        if model is not None:
            readers[str(function.get("name"))] = decoder_for(model)
        elif function.get("strict") is True:
            # As the OpenAI SDK has it: a plain definition that is strict has its arguments read as JSON.
            readers[str(function.get("name"))] = msgspec.json.decode
    return readers


def parse_completion(
    completion: ChatCompletion, wanted: ResponseFormat[Any] | None, tools: object = (), *, cut: bool = False
) -> ParsedChatCompletion[Any]:
    """
    The completion with its answer read.

    :param cut: whether an answer that was cut may pass, as where nothing is to be read.
    :param tools: the request's; those made by `pydantic_function_tool` have their calls' arguments read too.
    :raises LengthFinishReasonError, ContentFilterFinishReasonError: the answer is not whole.
    :raises OutputError: it is whole, and not a value of the type.
    """
    readers = argument_readers(tools)
    choices: list[ParsedChoice[object]] = []
    for choice in completion.choices:
        if choice.finish_reason == "length" and not cut:
            raise LengthFinishReasonError(completion=completion)
        if choice.finish_reason == "content_filter" and not cut:
            raise ContentFilterFinishReasonError(completion=completion)
        message = choice.message
        calls: list[ParsedFunctionToolCall] | None = None
        if message.tool_calls is not None:
            calls = []
            for call in message.tool_calls:
                function = _recast(call.function, ParsedFunction)
                reader = readers.get(function.name)
                if reader is not None:
                    held(function)["_parsed"] = _read(reader, function.arguments, completion)
                calls.append(_recast(call, ParsedFunctionToolCall, function=function))
        changes = {} if calls is None else {"tool_calls": calls}
        parsed: ParsedChatCompletionMessage[object] = _recast(
            message, ParsedChatCompletionMessage[object], **changes
        )
        if wanted is not None and not calls and not message.refusal:
            held(parsed)["_parsed"] = _read(wanted.decode, message.content or "", completion)
        choices.append(_recast(choice, ParsedChoice[object], message=parsed))
    return _recast(completion, ParsedChatCompletion[object], choices=choices)


def _read(read: Callable[[str], object], text: str, completion: ChatCompletion) -> object:
    try:
        return read(text)
    except OutputError as error:
        error.completion = completion
        raise
    except (ValueError, TypeError, RecursionError) as error:
        wrong = OutputError(str(error) or type(error).__name__, text)
        wrong.completion = completion
        raise wrong from error


def _recast(reply: Reply, cls: type[S], **changes: object) -> S:
    """The same object as a subclass of its type; fields that were absent stay absent."""
    values = dict(zip(type(reply).__struct_fields__, msgspec.structs.astuple(reply), strict=True))
    values.update(changes)
    made = cls(**values)
    held(made).update(held(reply))
    return made


def reask(error: OutputError) -> list[Any]:
    """
    What to add to the conversation so that the model can mend its answer: the answer as it came, and what is wrong with it.

    :raises ConfigurationError: the error holds no completion.
    """
    if error.completion is None:
        raise ConfigurationError("this error does not hold the completion it is about")
    message = error.completion.choices[0].message
    said: list[object] = []
    if message.content or message.tool_calls:
        said.append(message)  # an empty assistant message would be a 400
    said.append(
        {
            "role": "user",
            "content": f"Your answer does not fit the schema: {error.reason}\n"
            "Give the whole answer again, as JSON that fits the schema and nothing else.",
        }
    )
    return said
