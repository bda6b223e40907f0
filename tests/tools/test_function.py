"""
`tools`: what a signature and a docstring become, and how a model's arguments become a call.
"""

from __future__ import annotations

import enum
import functools
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import msgspec
import pydantic
import pytest

from kimi_async import (
    ConfigurationError,
    SchemaError,
    Tool,
    ToolContext,
    ToolError,
    tool,
    tool_from,
    web_search,
)
from kimi_async.codec.json import encode
from kimi_async.schema import check_mfjs
from kimi_async.tools import ToolArgumentsError, parse_docstring, result_text


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Place(msgspec.Struct):
    city: str
    country: str = "CN"


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


@tool
async def weather(
    city: str,
    /,
    days: int = 1,
    *,
    unit: Unit = Unit.CELSIUS,
    near: Place | None = None,
    tags: Sequence[str] = (),
    note: Annotated[str, msgspec.Meta(max_length=5, description="Said here.")] = "x",
) -> str:
    """
    The weather of a city.

    Only for cities.

    Args:
        city: Its name
            in English.
        days (int): How many days ahead.
        note: Not this text.

    Returns:
        A sentence.
    """
    return f"{city} {days} {unit.value} {near} {tags!r} {note}"


def test_tool_definition_from_signature_and_docstring() -> None:
    """Name, description, parameters, defaults and their descriptions come from the function, in Moonshot's flavour."""
    assert weather.definition == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.\n\nOnly for cities.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name in English."},
                    "days": {"type": "integer", "description": "How many days ahead.", "default": 1},
                    "unit": {"$ref": "#/$defs/Unit"},
                    "near": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}]},
                    "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                    "note": {"type": "string", "maxLength": 5, "description": "Said here.", "default": "x"},
                },
                "required": ["city"],
                "additionalProperties": False,
                "$defs": {
                    "Unit": {"type": "string", "enum": ["celsius", "kelvin"], "title": "Unit"},
                    "Place": {
                        "type": "object",
                        "properties": {
                            "city": {"type": "string"},
                            "country": {"type": "string", "default": "CN"},
                        },
                        "required": ["city"],
                        "title": "Place",
                    },
                },
            },
            "strict": True,
        },
    }
    assert check_mfjs(weather.definition["function"]["parameters"]) == []


async def test_tool_call_validates_and_converts() -> None:
    """Arguments arrive as the annotated types, and absent ones as the function's own defaults."""
    text = '{"city": "北京", "unit": "kelvin", "near": {"city": "x"}, "tags": ["a"]}'
    assert await weather.run(text, ToolContext()) == "北京 1 kelvin Place(city='x', country='CN') ['a'] x"
    assert await weather.run('{"city": "b"}', ToolContext()) == "b 1 celsius None () x"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("{}", "city"),
        ("", "city"),
        ('{"city": 3}', "$.city"),
        ('{"city": "x", "days": "many"}', "$.days"),
        ('{"city": "x", "note": "too long"}', "$.note"),
        ('{"city": "x", "colour": 1}', "colour"),
        ('{"city": "x"', "truncated"),
        ("not json", "malformed"),
        ("[1]", "object"),
        ('{"city": ' + "[" * 100_000, "city"),
    ],
)
async def test_tool_call_with_arguments_that_do_not_fit(arguments: str, word: str) -> None:
    """What is wrong with the model's arguments is said in words that name the field."""
    with pytest.raises(ToolArgumentsError) as caught:
        await weather.run(arguments, ToolContext())
    assert word in str(caught.value)


async def test_tool_without_parameters_takes_empty_arguments() -> None:
    """Models write "" or {} for a call without arguments."""

    @tool
    async def now() -> str:
        return "noon"

    assert now.definition["function"]["parameters"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert "description" not in now.definition["function"]
    assert [await now.run(text, ToolContext()) for text in ("", "{}", " ")] == ["noon"] * 3


async def test_tool_stays_a_function() -> None:
    """A decorated function can still be called, and knows its name and documentation."""

    @tool
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert add(1) == 3
    assert (add.__name__, add.__doc__, repr(add)) == ("add", "Adds.", "<FunctionTool add>")
    assert await add.run('{"a": 1}', ToolContext()) == "3"
    assert (
        await tool(
            add,
        ).run('{"a": 2}', ToolContext())
        == "4"
    )


async def test_tool_of_sync_function_runs_in_a_thread() -> None:
    """A function that is not async does not block the event loop, unless asked to."""
    here = threading.get_ident()

    @tool
    def where() -> bool:
        return threading.get_ident() == here

    @tool(thread=False, name="where_inline")
    def inline() -> bool:
        return threading.get_ident() == here

    assert await where.run("{}", ToolContext()) == "false"
    assert await inline.run("{}", ToolContext()) == "true"


async def test_tool_of_method_partial_and_callable_object() -> None:
    """Methods are bound, partials keep what they fill in, and objects with __call__ are functions too."""

    class Desk:
        def __init__(self) -> None:
            self.seen: list[int] = []

        @tool
        async def note(self, number: int) -> int:
            """Notes."""
            self.seen.append(number)
            return len(self.seen)

    class Doubler:
        def __call__(self, number: int) -> int:
            return 2 * number

    desk = Desk()
    assert list(desk.note.definition["function"]["parameters"]["properties"]) == ["number"]
    assert await desk.note.run('{"number": 5}', ToolContext()) == "1"
    assert desk.seen == [5]

    def scaled(factor: int, number: int) -> int:
        return factor * number

    tripled = tool(name="tripled")(functools.partial(scaled, 3))
    assert list(tripled.definition["function"]["parameters"]["properties"]) == ["number"]
    assert await tripled.run('{"number": 5}', ToolContext()) == "15"
    assert await tool(name="doubled")(Doubler()).run('{"number": 5}', ToolContext()) == "10"


async def test_tool_context_is_filled_in_and_hidden() -> None:
    """A parameter of type ToolContext is not offered to the model."""

    @tool
    async def whoami(context: ToolContext, loud: bool = False) -> str:
        return f"{context.call_id} {loud}"

    assert list(whoami.definition["function"]["parameters"]["properties"]) == ["loud"]
    assert await whoami.run("{}", ToolContext(call_id="whoami:0")) == "whoami:0 False"


async def test_tool_parameters_of_every_kind() -> None:
    """Literals, unions, dataclasses, pydantic models, Any, and `None` as the default of a plain type."""

    @dataclass
    class Box:
        size: int

    @tool
    async def mixed(
        mode: Literal["a", "b"],
        amount: int | str,
        box: Box,
        person: Person,
        anything,
        people: list[Person] = [],  # noqa: B006
        maybe: Optional[int] = None,  # noqa: UP045
        hidden: str = None,  # type: ignore[assignment]  # noqa: RUF013
        marker: Any = object(),  # noqa: B008
    ) -> str:
        return f"{mode} {amount} {box.size} {person.name} {anything} {len(people)} {maybe} {hidden}"

    parameters = mixed.definition["function"]["parameters"]
    assert check_mfjs(parameters) == []
    assert parameters["required"] == ["mode", "amount", "box", "person", "anything"]
    assert parameters["properties"]["mode"] == {"type": "string", "enum": ["a", "b"]}
    text = (
        '{"mode": "a", "amount": "3", "box": {"size": 1}, "person": {"name": "n", "age": 1}, "anything": [1]}'
    )
    assert await mixed.run(text, ToolContext()) == "a 3 1 n [1] 0 None None"
    with pytest.raises(ToolArgumentsError, match="greater than or equal to 0"):
        await mixed.run(text.replace('"age": 1', '"age": -1'), ToolContext())


@pytest.mark.parametrize(
    ("function", "error", "word"),
    [
        (lambda x: x, ConfigurationError, "name="),
        (lambda *args: args, ConfigurationError, "name"),
    ],
)
def test_tool_refuses_nameless_functions(function: Any, error: type[Exception], word: str) -> None:
    """A lambda has no name a server takes."""
    with pytest.raises(error, match=word):
        tool(function)


def test_tool_refuses_what_a_model_cannot_fill() -> None:
    """Star parameters, reserved names, types without schema and unresolvable annotations are refused when made."""

    def starred(*values: int) -> None: ...
    def reserved(required: bool) -> None: ...
    def odd(value: complex) -> None: ...
    def lost(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="named parameters"):
        tool(starred)
    with pytest.raises(SchemaError, match="reserves the property name 'required'"):
        tool(reserved)
    with pytest.raises(SchemaError, match="complex"):
        tool(odd)
    with pytest.raises(ConfigurationError, match="Missing"):
        tool(lost)
    with pytest.raises(ConfigurationError, match="1bad"):
        tool(name="1bad")(starred)


async def test_tool_from_definition() -> None:
    """An MCP server's definition and a function make a tool; its schema is translated."""
    definition = {
        "name": "read",
        "description": "Reads.",
        "inputSchema": {
            "$schema": "x",
            "type": "object",
            "properties": {"path": {"type": "string", "pattern": "^/"}},
        },
    }
    seen: list[Any] = []

    async def read(**arguments: Any) -> dict[str, Any]:
        seen.append(arguments)
        return {"ok": True}

    made = tool_from(definition, read)
    assert made.definition["function"]["parameters"] == {
        "type": "object",
        "properties": {"path": {"type": "string", "pattern": "^/"}},
    }
    assert await made.run('{"path": "/x"}', ToolContext()) == '{"ok":true}'
    assert (
        await tool_from({"type": "function", "function": definition}, lambda **a: "s").run("", ToolContext())
        == "s"
    )
    with pytest.raises(ToolArgumentsError):
        await made.run("[]", ToolContext())
    assert seen == [{"path": "/x"}]


async def test_web_search_echoes() -> None:
    """The built-in search wants its own arguments back, byte for byte."""
    search = web_search()
    assert search.definition == {"type": "builtin_function", "function": {"name": "$web_search"}}
    text = '{"search_result": {"search_id":"é"},  "usage":{"total_tokens":13046}}'
    assert await search.run(text, ToolContext()) == text


def test_tool_is_sent_as_its_definition() -> None:
    """A tool may stand in any request body."""
    assert json.loads(encode({"tools": [weather, web_search()]}))["tools"] == [
        weather.definition,
        web_search().definition,
    ]
    assert isinstance(weather, Tool)
    assert weather["function"]["name"] == "weather"
    assert dict(weather) == weather.definition


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, "null"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Place("x"), '{"city":"x","country":"CN"}'),
        (Person(name="n", age=1), '{"name":"n","age":1}'),
        ([Person(name="n", age=1)], '[{"name":"n","age":1}]'),
        (Unit.KELVIN, '"kelvin"'),
        (complex(1, 2), '"(1+2j)"'),
        (True, "true"),
    ],
)
def test_result_text(value: Any, text: str) -> None:
    """Text is passed as it is, anything else as JSON, and what JSON cannot hold as str() says it."""
    assert result_text(value) == text


GOOGLE = """
Does it.

More.

Args:
    first: One.
    second (list[str], optional): Two
        and more: still two.
    *rest: Star.

Raises:
    ValueError: never.
"""
NUMPY = """
Does it.

More.

Parameters
----------
first : int
    One.
second, rest : list of str, optional
    Two
    and more.

Returns
-------
str
"""
SPHINX = """
Does it.

More.

:param first: One.
:param list[str] second: Two
    and more.
:type first: int
:returns: it.
"""


@pytest.mark.parametrize(
    ("doc", "told"),
    [
        (GOOGLE, {"first": "One.", "second": "Two and more: still two.", "rest": "Star."}),
        (NUMPY, {"first": "One.", "second": "Two and more.", "rest": "Two and more."}),
        (SPHINX, {"first": "One.", "second": "Two and more."}),
    ],
)
def test_parse_docstring_styles(doc: str, told: dict[str, str]) -> None:
    """The three styles tell the same: text above the sections, and a sentence for each parameter."""
    assert parse_docstring(doc) == ("Does it.\n\nMore.", told)


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        (None, ""),
        ("", ""),
        ("One line.", "One line."),
        ("Note: not a section.", "Note: not a section."),
        ("Text.\n\n- a: b\n- c: d", "Text.\n\n- a: b\n- c: d"),
        ("Text.\n\nReturns:\n    x", "Text."),
    ],
)
def test_parse_docstring_without_parameters(doc: str | None, text: str) -> None:
    """A docstring in no known style is text as a whole."""
    assert parse_docstring(doc) == (text, {})


def test_tool_error_is_ours() -> None:
    """Both errors of a tool can be caught as one, and as the package's."""
    assert issubclass(ToolArgumentsError, ToolError)
