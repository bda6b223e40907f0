"""
Python types as schemas, and replies as values.
"""


# Rows of a table stay on one line, however long: they are read against each other.

from __future__ import annotations

import datetime
import enum
import json
import pickle
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from kimi_async.schema import (
    ROOT_KEY,
    OutputError,
    SchemaError,
    check_mfjs,
    json_schema,
    response_format_for,
)
from support.json_schema_model import accepts


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: Annotated[int, msgspec.Meta(ge=0, description="Height.")] = 0


class Tree(msgspec.Struct):
    children: list[Tree]
    colour: Colour | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


@dataclass
class Person:
    name: str
    tags: list[str] = field(default_factory=list)


class Movie(TypedDict, total=False):
    title: str
    year: int


@attrs.define
class Car:
    wheels: int


class Pair(NamedTuple):
    a: int
    b: str


class Invoice(pydantic.BaseModel):
    """An invoice."""

    number: str = pydantic.Field(pattern=r"^\d+$", description="Its number")
    lines: list[Line] = []
    parent: Invoice | None = None


class Line(pydantic.BaseModel):
    price: float = pydantic.Field(gt=0)
    colour: Colour


Invoice.model_rebuild()


@pytest.mark.parametrize(
    ("tp", "text", "value"),
    [
        (Point, '{"x": 1}', Point(1)),
        (Tree, '{"children": [{"children": []}], "colour": "red"}', Tree([Tree([])], Colour.RED)),
        (Person, '{"name": "n"}', Person("n")),
        (Movie, '{"title": "t"}', {"title": "t"}),
        (Car, '{"wheels": 4}', Car(4)),
        (Pair, '{"value": [1, "b"]}', Pair(1, "b")),
        (Cat | Dog, '{"value": {"type": "Dog", "name": "d"}}', Dog("d")),
        (Point | None, '{"value": null}', None),
        (list[Point], '{"value": [{"x": 1}]}', [Point(1)]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int, '{"value": 3}', 3),
        (bool, '{"value": true}', True),
        (Literal["a", "b"], '{"value": "a"}', "a"),
        (Colour, '{"value": "blue"}', Colour.BLUE),
        (datetime.date, '{"value": "2026-01-02"}', datetime.date(2026, 1, 2)),
        (str | int | None, '{"value": "x"}', "x"),
        (Any, '{"value": [1, null]}', [1, None]),
        (tuple[int, str], '{"value": [1, "b"]}', (1, "b")),
        (set[int], '{"value": [1, 1]}', {1}),
        (Invoice, '{"number": "1", "lines": [{"price": 2, "colour": "red"}]}', Invoice(number="1", lines=[Line(price=2, colour=Colour.RED)])),
        (list[Invoice], '{"value": [{"number": "1"}]}', [Invoice(number="1")]),
        (dict[str, Invoice], '{"k": {"number": "1"}}', {"k": Invoice(number="1")}),
        (pydantic.TypeAdapter(list[Line]), '{"value": []}', []),
    ],
)  # fmt: skip
def test_response_format_for_type(tp: Any, text: str, value: Any) -> None:
    """Every kind of type has a correct schema that its value fits, and is read back as itself."""
    wanted = response_format_for(tp)
    assert check_mfjs(wanted.schema) == []
    assert wanted.schema == json_schema(tp)
    assert accepts(wanted.schema, json.loads(text), wanted.schema)
    assert wanted.decode(text) == value
    assert type(wanted.decode(text)) is type(value)


def test_response_format_wire_form() -> None:
    """The object to send has the shape of the chat API, with a name it takes."""
    assert response_format_for(Point).wire == {
        "type": "json_schema",
        "json_schema": {
            "name": "Point",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "x": {"type": "integer"},
                    "y": {"type": "integer", "minimum": 0, "description": "Height.", "default": 0},
                },
                "required": ["x"],
                "title": "Point",
            },
        },
    }
    assert (
        response_format_for(list[Point], "1 point/s", strict=False).wire["json_schema"]["name"]
        == "T_1_point_s"
    )
    assert response_format_for(Point, strict=False).wire["json_schema"]["strict"] is False
    assert repr(response_format_for(Point)) == "<ResponseFormat Point of Point>"


def test_response_format_losses_are_still_checked_on_reply() -> None:
    """What the server cannot enforce stands in `losses`, is told to the model, and is checked when the reply comes."""
    wanted = response_format_for(Invoice)
    assert ("/$defs/Line/properties/price", "exclusiveMinimum") in [
        (loss.pointer, loss.keyword) for loss in wanted.losses
    ]
    assert wanted.schema["properties"]["number"]["description"] == r"Its number (pattern: ^\d+$)"
    with pytest.raises(OutputError, match="pattern") as caught:
        wanted.decode('{"number": "x"}')
    assert not caught.value.truncated


@pytest.mark.parametrize(
    ("text", "truncated"),
    [
        ('{"value": [{"x": 1', True),
        ('{"value": [{"x": 1}]', True),
        ('{"value": [{"x": 1}], "la', True),
        ('{"value": [], "t": "\\', True),
        ("```json\n{\"value\": [", True),
        ("The answer is 3", False),
        ('{"value": [{"x": "1"}]}', False),
        ('{"value": 1}', False),
        ('{"val": []}', False),
        ("[]", False),
        ('{"value": []} and more', False),
        ('{"value": [}', False),
    ],
)  # fmt: skip
def test_response_format_decode_tells_cut_from_wrong(text: str, truncated: bool) -> None:
    """An answer that stops in the middle is truncated; one that is complete, or never was JSON, is wrong."""
    with pytest.raises(OutputError) as caught:
        response_format_for(list[Point]).decode(text)

    assert caught.value.truncated is truncated
    assert caught.value.text == text
    assert pickle.loads(pickle.dumps(caught.value)).truncated is truncated


def test_response_format_decode_names_the_path() -> None:
    """The reason can be handed to the model: it names the field."""
    with pytest.raises(OutputError) as caught:
        response_format_for(Tree).decode('{"children": [{"children": 3}]}')
    assert caught.value.reason == "Expected `array`, got `int` - at `$.children[0].children`"


@pytest.mark.parametrize(
    "text", ['```json\n{"x": 1}\n```', '```\n{"x": 1}```', '\n {"x": 1} \n', '```json {"x": 1} ```']
)
def test_response_format_decode_takes_off_the_fence(text: str) -> None:
    """A Markdown fence round the answer is no part of it."""
    assert response_format_for(Point).decode(text) == Point(1)


def test_response_format_decode_survives_hostile_text() -> None:
    """Deep nesting and lone surrogates give our error, not the decoder's."""
    for text in ('{"value": ' + "[" * 100_000, '{"value": "\ud83c"}', "[" * 100_000 + "]" * 100_000):
        with pytest.raises(OutputError):
            response_format_for(Any).decode(text)


def test_json_schema_refuses_types_without_one() -> None:
    """A type msgspec cannot read is refused in words, with msgspec's reason and what helps."""
    loose = namedtuple("loose", "a")
    assert check_mfjs(json_schema(loose)) == []
    assert check_mfjs(json_schema(Point | Tree)) == []
    with pytest.raises(SchemaError, match="has no JSON schema"):
        json_schema(complex)


def test_json_schema_puts_anything_but_an_object_under_the_root_key() -> None:
    """Lists, scalars and unions travel as the one required property of an object."""
    schema = json_schema(list[int])
    assert schema == {
        "type": "object",
        "properties": {ROOT_KEY: {"type": "array", "items": {"type": "integer"}}},
        "required": [ROOT_KEY],
        "additionalProperties": False,
    }
    assert response_format_for(list[int]).wrapped
    assert not response_format_for(Point).wrapped


def test_schema_error_pickles() -> None:
    """Errors cross process borders with their data."""
    error = pickle.loads(pickle.dumps(SchemaError("/a", "why")))
    assert (error.pointer, error.reason, str(error)) == ("/a", "why", "at /a: why")
