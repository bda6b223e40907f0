"""
`check_mfjs`: what MFJS forbids, at both levels.
"""


# Rows of a table stay on one line, however long: they are read against each other.

from __future__ import annotations

from typing import Any

import pytest

from kimi_async.schema import (
    Loss,
    check_mfjs,
    to_mfjs,
)
from support.schemas import inside


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ("no schema", "/"),
        ({"type": "string"}, "/"),
        ({"anyOf": [{"type": "object"}]}, "/"),
        (inside({"description": "no type"}), "/properties/p"),
        (inside(True), "/properties/p"),
        (inside({"type": "text"}), "/properties/p/type"),
        (inside({"type": ["string", "string"]}), "/properties/p/type"),
        (inside({"type": "string", "format": "date"}), "/properties/p/format"),
        (inside({"type": "string", "const": "x"}), "/properties/p/const"),
        (inside({"type": "string", "minimum": 1}), "/properties/p/minimum"),
        (inside({"type": "string", "$defs": {}}), "/properties/p/$defs"),
        (inside({"type": ["string", "null"], "minLength": 1}), "/properties/p/minLength"),
        (inside({"type": ["array", "null"], "enum": [None]}), "/properties/p/type"),
        (inside({"type": "string", "anyOf": [{"type": "string"}]}), "/properties/p/type"),
        (inside({"anyOf": [{"type": "string"}], "default": "x"}), "/properties/p/default"),
        (inside({"anyOf": []}), "/properties/p/anyOf"),
        (inside({"anyOf": [True]}), "/properties/p/anyOf/0"),
        (inside({"$ref": "#/$defs/X"}), "/properties/p/$ref"),
        (inside({"$ref": "#/properties/p"}), "/properties/p/$ref"),
        (inside({"$ref": "#", "type": "object"}), "/properties/p/type"),
        (inside({"$ref": "#/$defs/X", "description": "d"}, **{"$defs": {"X": {"type": "null", "description": "e"}}}), "/properties/p/$ref"),
        (inside({"type": "null"}, **{"$defs": {"a/b": {"type": "null"}}}), "/$defs"),
        (inside({"type": "string", "enum": []}), "/properties/p/enum"),
        (inside({"type": "boolean", "enum": ["true"]}), "/properties/p/enum"),
        (inside({"type": "string", "enum": ["a", 1]}), "/properties/p/enum"),
        (inside({"type": "integer", "enum": [2**53]}), "/properties/p/enum"),
        (inside({"type": "number", "enum": [1e-7]}), "/properties/p/enum"),
        (inside({"type": "integer", "minimum": 1.5}), "/properties/p/minimum"),
        (inside({"type": "number", "minimum": 3, "maximum": 2}), "/properties/p/minimum"),
        (inside({"type": "string", "minLength": -1}), "/properties/p/minLength"),
        (inside({"type": "string", "default": 1}), "/properties/p/default"),
        (inside({"type": "array", "default": {}}), "/properties/p/default"),
        (inside({"type": "array", "items": True}), "/properties/p/items"),
        (inside({"type": "string", "pattern": 5}), "/properties/p/pattern"),
        (inside({"type": "array", "minItems": None}), "/properties/p/minItems"),
        (inside({"type": "array", "items": {"$ref": "#"}}, required=["p"]), "/"),
        (inside({"type": "null"}, **{"$defs": {"X": {"type": "object", "properties": {"a/b": {}}}}}), "/$defs"),
        (inside({"type": "array", "items": [{"type": "null"}]}), "/properties/p/items"),
        (inside({"type": "null"}, required=["q"]), "/required"),
        (inside({"type": "null"}, required=["p", "p"]), "/required"),
        ({"type": "object", "properties": {"anyOf": {"type": "null"}}}, "/properties/anyOf"),
        (inside({"type": "string", "description": 5}), "/properties/p/description"),
        (inside({"$ref": "#"}, required=["p"]), "/"),
    ],
)  # fmt: skip
def test_check_mfjs_finds(schema: Any, pointer: str) -> None:
    """Each rule of MFJS, when broken, is reported at its place."""
    assert pointer in [problem.partition(": ")[0] for problem in check_mfjs(schema)]


def test_check_mfjs_accepts_what_the_specification_shows() -> None:
    """The linked list of the MFJS specification, any-typed extras and nullable enums are in order."""
    node = {
        "type": "object",
        "properties": {
            "value": {"type": "number"},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "additionalProperties": False,
        "required": ["next", "value"],
    }
    assert (
        check_mfjs(
            {
                "type": "object",
                "properties": {"list": {"$ref": "#/$defs/node"}},
                "$defs": {"node": node},
                "$id": "x",
            }
        )
        == []
    )
    assert check_mfjs({"type": "object", "additionalProperties": {}}) == []
    assert check_mfjs(inside({"type": ["string", "null"], "enum": ["a", None]})) == []


@pytest.mark.parametrize(
    "schema",
    [
        {},
        inside({}),
        inside({"anyOf": [{}, {"type": "null"}]}),
        inside({"type": "array", "items": {}, "default": []}),
        inside({"type": "object", "default": {"a": 1}, "properties": {"": {"type": "string"}}, "required": [""]}),
        inside({"type": "string", "pattern": "^[a-z]+$", "enum": ["", "a"]}),
        inside({"type": "boolean", "enum": [True, False]}),
        inside({"type": "number", "enum": [1, 2.5, -3.7]}),
        inside({"$ref": "#/$defs/X/properties/id"}, **{"$defs": {"X": {"type": ["object"], "properties": {"id": {"type": ["number"]}}}}}),
        inside({"$ref": "#/$defs/X"}, **{"$defs": {"X": {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "required": ["x"]}}}),
        inside({"type": "array", "items": {"$ref": "#"}}, properties={"p": {"type": "array", "items": {"$ref": "#"}}, "name": {"type": "string"}}, required=["p", "name"]),
        inside({"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, required=["p"]),
    ],
)  # fmt: skip
def test_check_mfjs_accepts_what_the_severest_validator_accepts(schema: Any) -> None:
    """What walle passes at its severest level is MFJS, even where its prose is narrower."""
    assert check_mfjs(schema) == []
    assert check_mfjs(schema, level="strict") == []


@pytest.mark.parametrize(
    "beside",
    [
        {"format": "date"},
        {"exclusiveMinimum": 1},
        {"multipleOf": 2},
        {"const": "x"},
        {"examples": ["x"]},
        {"uniqueItems": True},
        {"$comment": "c"},
    ],
)
def test_check_mfjs_strict_ignores_what_it_does_not_know(beside: dict[str, Any]) -> None:
    """At the servers' level keywords that MFJS lacks are let pass; MFJS itself forbids them."""
    schema = inside({"type": "string", **beside})
    assert check_mfjs(schema, level="strict") == []
    assert check_mfjs(schema) != []


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "string"}, {"type": "null"}], "discriminator": {"propertyName": "kind"}},
        {"allOf": [{"$ref": "#/definitions/X"}], "description": "d"},
        {"const": "x"},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "T"},
        {"$ref": "#", "default": {}},
    ],
)
def test_check_mfjs_strict_takes_what_pydantic_writes(schema: Any) -> None:
    """Discriminated unions, constants and defaults beside `anyOf` stand in the schemas of every framework."""
    assert check_mfjs(inside(schema), level="strict") == []


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "string", "anyOf": [{"type": "string"}]}, "/properties/p/type"),
        ({"type": "object", "$ref": "#"}, "/properties/p/type"),
        ({"minLength": 1}, "/properties/p"),
        ({"enum": ["a"]}, "/properties/p"),
        ({"description": "no type"}, "/properties/p"),
        (True, "/properties/p"),
        ({"$ref": "#/definitions/X"}, "/properties/p/$ref"),
        ({"$ref": "https://example.com/x"}, "/properties/p/$ref"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "/properties/p/required"),
        ({"type": ["string", "integer"], "minLength": 1}, "/properties/p/minLength"),
        ({"type": "string", "enum": [1]}, "/properties/p/enum"),
        ({"type": "integer", "minimum": 9, "maximum": 1}, "/properties/p/minimum"),
    ],
)
def test_check_mfjs_strict_finds(schema: Any, pointer: str) -> None:
    """What the servers do refuse is found at their level as well."""
    assert pointer in [problem.partition(": ")[0] for problem in check_mfjs(inside(schema), level="strict")]


def test_to_mfjs_ends_a_recursion_that_only_an_empty_array_ends() -> None:
    """`{"children": []}` ends a tree, but the servers refuse its schema; so its items may be null as well."""
    report: list[Loss] = []
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert to_mfjs({**tree, "required": ["children"]}, report=report)["properties"] == {
        "children": {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}
    }
    assert [loss.keyword for loss in report] == ["items"]
    assert to_mfjs(tree) == tree


def test_to_mfjs_leaves_a_recursion_alone_that_ends_elsewhere() -> None:
    """One required property that ends is enough for the servers."""
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name", "children"],
    }
    assert to_mfjs(tree) == tree
