"""
`to_mfjs`: what becomes of each keyword, what is refused and how.
"""


# Rows of a table stay on one line, however long: they are read against each other.

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_async.errors import KimiError
from kimi_async.schema import (
    Loss,
    SchemaError,
    check_mfjs,
    mfjs_tool,
    to_mfjs,
)
from support.json_schema_model import DOCUMENTS, VALUES, accepts
from support.schemas import ANY, inside, outcome, translated

# --- one keyword at a time ---


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        # annotations and keywords without an MFJS form
        ({"type": "string", "format": "date", "pattern": "^a$", "description": "d"}, {"type": "string", "pattern": "^a$", "description": "d"}),
        ({"type": "string", "$comment": "c", "examples": ["x"], "deprecated": True, "readOnly": True}, {"type": "string"}),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "object", "minProperties": 1, "if": {}, "then": {}, "dependentRequired": {}}, {"type": "object"}),
        ({"type": "string", "not": {"const": "x"}}, {"type": "string"}),
        ({"type": "string", "title": 5, "description": None}, {"type": "string"}),
        # missing types
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"enum": [1, 2]}, {"type": "integer", "enum": [1, 2]}),
        ({"enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"const": None}, {"type": "null"}),
        ({"const": True}, {"type": "boolean", "enum": [True]}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"enum": ["a", None]}, {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
        ({"enum": ["a", 1]}, {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "integer", "enum": [1]}]}),
        (
            {"const": {"k": "v"}},
            {"type": "object", "properties": {"k": {"type": "string", "enum": ["v"]}}, "required": ["k"], "additionalProperties": False},
        ),
        ({"const": []}, {"type": "array", "maxItems": 0}),
        ({"minLength": 2}, {"type": "string", "minLength": 2}),
        ({"pattern": "x"}, {"type": "string", "pattern": "x"}),
        ({"pattern": 5}, {"type": "string"}),
        ({"allOf": [{"type": "string", "pattern": "x"}, {"pattern": "y"}]}, {"type": "string", "pattern": "x"}),
        ({"allOf": [{"type": "string", "minLength": 1}, {"pattern": "y"}]}, {"type": "string", "minLength": 1, "pattern": "y"}),
        ({"properties": {"a": {"type": "null"}}}, {"type": "object", "properties": {"a": {"type": "null"}}}),
        ({"items": {"type": "null"}}, {"type": "array", "items": {"type": "null"}}),
        ({"minimum": 3}, {"type": "number", "minimum": 3}),
        ({"minimum": 3, "minLength": 1}, {"anyOf": [{"type": "string", "minLength": 1}, {"type": "number", "minimum": 3}]}),
        ({}, ANY),
        (True, ANY),
        ({"description": "anything"}, {**ANY, "description": "anything"}),
        # several types
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": ["string", "null"], "minLength": 1}, {"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}),
        ({"type": ["string"]}, {"type": "string"}),
        ({"type": ["integer", "number"]}, {"type": "number"}),
        ({"type": ["string", "null"], "default": "x"}, {"anyOf": [{"type": "string", "default": "x"}, {"type": "null"}]}),
        ({"type": ["string", "null"], "default": None}, {"type": ["string", "null"]}),
        # nullable (OpenAPI 3.0)
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"type": "string", "enum": ["a", None], "nullable": True}, {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
        # unions
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "string", "anyOf": [{"minLength": 2}, {"enum": ["x"]}]}, {"anyOf": [{"type": "string", "minLength": 2}, {"type": "string", "enum": ["x"]}]}),
        ({"type": "string", "anyOf": [{"minLength": 2}, {"type": "integer"}]}, {"type": "string", "minLength": 2}),
        ({"anyOf": [{"type": "string"}]}, {"type": "string"}),
        ({"anyOf": [{"type": "string"}, {"anyOf": [{"type": "null"}, {"type": "string"}]}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, {"type": "string", "enum": ["a", "b"]}),
        (
            {"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]},
            {"anyOf": [{"type": "string", "enum": ["a"], "title": "A"}, {"type": "string", "enum": ["b"], "title": "B"}]},
        ),
        ({"anyOf": [{"type": "string"}, False]}, {"type": "string"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3}, {"anyOf": [{"type": "integer", "default": 3}, {"type": "null"}]}),
        # allOf
        ({"allOf": [{"type": "string"}, {"minLength": 1}, {"maxLength": 3}]}, {"type": "string", "minLength": 1, "maxLength": 3}),
        ({"allOf": [{"type": "integer"}, {"type": "number", "minimum": 0.5}]}, {"type": "integer", "minimum": 1}),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]},
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a", "b"]},
        ),
        (
            {"allOf": [{"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"properties": {"a": {"type": "string"}, "b": {}}}]},
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        ),
        # numbers
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 9}, {"type": "integer", "minimum": 4, "maximum": 8}),
        ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, {"type": "integer", "minimum": 2, "maximum": 3}),
        ({"type": "number", "exclusiveMinimum": 0}, {"type": "number", "minimum": 0}),
        ({"type": "number", "multipleOf": 1}, {"type": "integer"}),
        ({"type": "number", "minimum": 1.0}, {"type": "number", "minimum": 1}),
        ({"type": "number", "minimum": 1e-7, "maximum": 1e30}, {"type": "number", "minimum": 0}),
        ({"type": "number", "minimum": -1e-7}, {"type": "number", "minimum": -0.001}),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, {"type": "integer"}),
        ({"type": "integer", "enum": [1, 2**60]}, {"type": "integer"}),
        ({"type": "integer", "enum": [1.0, 2.0]}, {"type": "integer", "enum": [1, 2]}),
        # sizes
        ({"type": "string", "minLength": 0, "maxLength": 5.0}, {"type": "string", "maxLength": 5}),
        ({"type": "array", "minItems": 1, "maxItems": 2, "items": {}}, {"type": "array", "minItems": 1, "maxItems": 2}),
        ({"type": "array", "items": True}, {"type": "array"}),
        ({"type": "array", "items": False}, {"type": "array", "maxItems": 0}),
        # tuples
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "minItems": 2, "maxItems": 2},
        ),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, {"type": "array", "items": {"type": "string"}, "maxItems": 1}),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, {"type": "array"}),
        # objects
        ({"type": "object", "additionalProperties": True}, {"type": "object"}),
        ({"type": "object", "additionalProperties": {}}, {"type": "object"}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"type": "object", "additionalProperties": {"type": "string"}}),
        ({"type": "object", "required": ["a"]}, {"type": "object", "properties": {"a": ANY}, "required": ["a"]}),
        ({"type": "object", "properties": {}, "required": ["a"], "additionalProperties": False}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"type": "object", "properties": {"a": False, "b": {"type": "null"}}}, {"type": "object", "properties": {"b": {"type": "null"}}}),
        ({"type": "object", "patternProperties": {"^.*$": {"type": "string"}}}, {"type": "object", "additionalProperties": {"type": "string"}}),
        ({"type": "object", "patternProperties": {"^x": {"type": "string"}}}, {"type": "object"}),
        ({"type": "object", "patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False}, {"type": "object", "additionalProperties": {"type": "string"}}),
        (
            {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "null"}},
            {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "additionalProperties": False},
        ),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}], "unevaluatedProperties": False},
            {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False},
        ),
        # defaults
        ({"type": "string", "default": "x"}, {"type": "string", "default": "x"}),
        ({"type": "string", "default": None}, {"type": "string"}),
        ({"type": "string", "enum": ["a"], "default": "b"}, {"type": "string", "enum": ["a"]}),
        ({"type": "integer", "default": 3.0}, {"type": "integer", "default": 3}),
        ({"type": "integer", "default": True}, {"type": "integer"}),
        ({"type": "array", "default": []}, {"type": "array", "default": []}),
        ({"type": "array", "default": {}}, {"type": "array"}),
        ({"type": "object", "default": {}}, {"type": "object", "default": {}}),
        # names that are no JSON types, slips of real tool lists
        ({"type": "dict", "properties": {"x": {"type": "float"}}}, {"type": "object", "properties": {"x": {"type": "number"}}}),
        ({"type": "any"}, ANY),
        ({"type": "ArrayList", "items": {"type": "char"}}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "object", "properties": [], "required": None}, {"type": "object", "properties": {}}),
        ({"type": "string", "required": True}, {"type": "string"}),
        ({"type": "string", "minLength": "2", "maxLength": 1.5, "enum": "a"}, {"type": "string"}),
        ({"type": "object", "required": "a", "additionalProperties": "false"}, {"type": "object"}),
        ({"type": "object", "required": ["a", None], "properties": {"a": {"type": "null"}}}, {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}),
        ({"type": None, "minimum": 1}, {"type": "number", "minimum": 1}),
        ({"type": "string", "enum": [1, 2]}, {"type": "string"}),
    ],
)  # fmt: skip
def test_to_mfjs_keyword(schema: Any, expected: Any) -> None:
    """Each keyword becomes the closest thing MFJS can say that accepts no less."""
    assert translated(schema) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {"type": "object"}),
        ({"properties": {"a": {"type": "null"}}}, {"type": "object", "properties": {"a": {"type": "null"}}}),
        ({"type": ["object", "null"], "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "object", "$schema": "s", "$id": "https://x/y", "title": "T"}, {"type": "object", "title": "T"}),
        (
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        ),
        (
            {"anyOf": [{"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"], "additionalProperties": False}, {"type": "object", "properties": {"k": {"const": "y"}, "n": {"type": "null"}}, "required": ["k"], "additionalProperties": False}]},
            {
                "type": "object",
                "properties": {"k": {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "string", "enum": ["y"]}]}, "n": {"type": "null"}},
                "required": ["k"],
                "additionalProperties": False,
            },
        ),
    ],
)  # fmt: skip
def test_to_mfjs_root(schema: Any, expected: Any) -> None:
    """The root comes out as one object schema."""
    assert to_mfjs(schema) == expected


# --- references ---


def test_to_mfjs_reference_to_definitions_moves_to_defs() -> None:
    """Definitions of older drafts become $defs, and only those that are used stay."""
    schema = inside(
        {"$ref": "#/definitions/My%20Type~1x"},
        definitions={"My Type/x": {"type": "integer"}, "Unused": {"type": "null"}},
    )
    assert to_mfjs(schema) == {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/My_Type_1x"}},
        "$defs": {"My_Type_1x": {"type": "integer"}},
    }


@pytest.mark.parametrize(
    ("ref", "beside"),
    [
        ("#/properties/q", {}),
        ("#/components/schemas/Q", {"components": {"schemas": {"Q": {"type": "integer"}}}}),
        ("#q", {"$defs": {"Q": {"$anchor": "q", "type": "integer"}}}),
        ("https://x.test/q.json", {"$defs": {"Q": {"$id": "https://x.test/q.json", "type": "integer"}}}),
        ("q.json", {"$id": "https://x.test/root.json", "$defs": {"Q": {"$id": "q.json", "type": "integer"}}}),
        ("#/$defs/Q", {"$defs": {"Q": {"$ref": "#/$defs/R"}, "R": {"type": "integer"}}}),
        ("#/$defs/Q", {"definitions": {"Q": {"type": "integer"}}}),
    ],
)
def test_to_mfjs_reference_anywhere_inside_the_document(ref: str, beside: dict[str, Any]) -> None:
    """A reference may use a pointer, an anchor or an identifier, as long as the document holds its target."""
    schema = {"type": "object", "properties": {"p": {"$ref": ref}, "q": {"type": "integer"}}, **beside}
    result = to_mfjs(schema)
    link = result["properties"]["p"]["$ref"]
    assert result["$defs"][link.removeprefix("#/$defs/")] == {"type": "integer"}
    assert check_mfjs(result) == []


def test_to_mfjs_reference_in_embedded_resource_is_read_from_its_own_root() -> None:
    """Below an `$id` the pointer `#/…` starts at that subschema."""
    schema = inside(
        {"$id": "urn:x", "$ref": "#/$defs/A", "$defs": {"A": {"type": "null"}}},
        **{"$defs": {"A": {"type": "string"}}},
    )
    assert to_mfjs(schema)["$defs"] == {"A": {"type": "null"}}


def test_to_mfjs_recursion_survives() -> None:
    """A tree stays a tree: through the root, through definitions, and where allOf meets recursion."""
    assert translated({"type": "array", "items": {"$ref": "#"}}) == {"type": "array", "items": {"$ref": "#"}}
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}},
        "required": ["next"],
    }
    assert to_mfjs(inside({"$ref": "#/$defs/N"}, **{"$defs": {"N": node}}))["$defs"] == {"N": node}
    both = {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "$defs": {
        "A": {"type": "object", "properties": {"x": {"$ref": "#/$defs/A"}}},
        "B": {"type": "object", "properties": {"x": {"$ref": "#/$defs/B"}, "y": {"type": "null"}}},
    }}  # fmt: skip
    result = to_mfjs(both)
    assert check_mfjs(result) == []
    assert result["properties"]["y"] == {"type": "null"}
    assert result["$defs"][result["properties"]["x"]["$ref"].removeprefix("#/$defs/")]["properties"]["y"] == {
        "type": "null"
    }


def test_to_mfjs_reference_with_siblings_is_merged() -> None:
    """Constraints beside a reference hold together with those of the target (2020-12), and not in draft 7."""
    defs = {"S": {"type": "string", "minLength": 1}}
    schema = inside({"$ref": "#/$defs/S", "maxLength": 9}, **{"$defs": defs})
    assert to_mfjs(schema)["properties"]["p"] == {"type": "string", "minLength": 1, "maxLength": 9}
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
    assert to_mfjs(draft_7)["properties"]["p"] == {"$ref": "#/$defs/S"}


def test_to_mfjs_description_beside_reference_does_not_clash() -> None:
    """A description in both places would be refused by the server; the one of the site keeps the reference in anyOf."""
    schema = inside(
        {"$ref": "#/$defs/S", "description": "site", "title": "here"},
        **{"$defs": {"S": {"type": "string", "description": "target", "title": "there"}}},
    )
    assert to_mfjs(schema)["properties"]["p"] == {"description": "site", "anyOf": [{"$ref": "#/$defs/S"}]}
    plain = inside({"$ref": "#/$defs/S", "description": "site"}, **{"$defs": {"S": {"type": "string"}}})
    assert to_mfjs(plain)["properties"]["p"] == {"$ref": "#/$defs/S", "description": "site"}


def test_to_mfjs_single_allof_of_pydantic_v1_stays_a_reference() -> None:
    """`{"allOf": [{"$ref"}], "description"}` is only a reference with a description."""
    schema = inside(
        {"allOf": [{"$ref": "#/$defs/S"}], "description": "d"}, **{"$defs": {"S": {"type": "string"}}}
    )
    assert to_mfjs(schema)["properties"]["p"] == {"$ref": "#/$defs/S", "description": "d"}


def test_to_mfjs_definition_with_slash_in_a_key_moves_to_its_place() -> None:
    """walle refuses a slash in any key below $defs, so such a definition is written where it is used."""
    schema = inside(
        {"$ref": "#/$defs/S"}, **{"$defs": {"S": {"type": "object", "properties": {"a/b": {"type": "null"}}}}}
    )
    result = to_mfjs(schema)
    assert result["properties"]["p"] == {"type": "object", "properties": {"a/b": {"type": "null"}}}
    assert "$defs" not in result
    outer = {"type": "object", "properties": {"s": {"$ref": "#/$defs/S"}}}
    inner = {"type": "object", "properties": {"a/b": {"type": "null"}}}
    result = to_mfjs(inside({"$ref": "#/$defs/O"}, **{"$defs": {"O": outer, "S": inner}}))
    assert result["properties"]["p"]["properties"]["s"] == inner
    assert "$defs" not in result


def test_to_mfjs_impossible_recursion_disappears_where_it_is_optional() -> None:
    """A definition that requires itself has no value; what may be left out is left out."""
    endless = {"type": "object", "properties": {"me": {"$ref": "#/$defs/E"}}, "required": ["me"]}
    assert to_mfjs(
        inside({"anyOf": [{"$ref": "#/$defs/E"}, {"type": "null"}]}, **{"$defs": {"E": endless}})
    ) == inside({"type": "null"})
    assert to_mfjs(
        inside({"type": "array", "items": {"$ref": "#/$defs/E"}}, **{"$defs": {"E": endless}})
    ) == inside({"type": "array", "maxItems": 0})


def test_to_mfjs_left_recursion_is_worked_out() -> None:
    """A = A or null is null: a branch that leads back without a step adds nothing."""
    defs = {
        "A": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]},
        "B": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "string"}]},
    }
    result = to_mfjs(inside({"$ref": "#/$defs/A"}, **{"$defs": defs}))
    assert result["$defs"]["A"] == {"type": ["string", "null"]}


# --- refusals ---


@pytest.mark.parametrize(
    ("schema", "pointer", "word"),
    [
        ({"type": "string"}, "", "the root is string"),
        ({"type": "array", "items": {"type": "string"}}, "", "the root is array"),
        ({"anyOf": [{"type": "object"}, {"type": "string"}]}, "", "the root is string"),
        (inside({"type": "object", "properties": {"required": {"type": "boolean"}}}), "/properties/p/properties/required", "reserves"),
        (inside({"$ref": "https://x.test/other.json"}), "/properties/p/$ref", "another document"),
        (inside({"$ref": "#/$defs/Missing"}), "/properties/p/$ref", "points to nothing"),
        (inside({"$ref": "#nowhere"}), "/properties/p/$ref", "anchor"),
        (inside({"$ref": 5}), "/properties/p/$ref", "string"),
        (inside({"type": "file"}), "/properties/p/type", "not a JSON type"),
        (inside({"type": []}), "/properties/p/type", "empty"),
        (inside({"anyOf": {"type": "string"}}), "/properties/p/anyOf", "list"),
        (inside("string"), "/properties/p", "a schema is"),
        (inside({"type": "string", "minLength": 5, "maxLength": 2}, required=["p"]), "/properties/p", "lower bound 5"),
        (inside(False, required=["p"]), "/properties/p", "false"),
        (inside({"allOf": [{"type": "string"}, {"type": "null"}]}, required=["p"]), "/properties/p/allOf", "nothing satisfies"),
        (inside({"$ref": "#"}, required=["p"]), "", "never ends"),
        ({"$ref": "#"}, "", "back to itself"),
    ],
)  # fmt: skip
def test_to_mfjs_refusal_names_the_place(schema: Any, pointer: str, word: str) -> None:
    """What MFJS has no form for is refused with the pointer and the reason."""
    with pytest.raises(SchemaError) as caught:
        to_mfjs(schema)

    assert caught.value.pointer == pointer
    assert word in caught.value.reason
    assert isinstance(caught.value, KimiError)
    assert isinstance(caught.value, ValueError)


def test_to_mfjs_refuses_what_is_too_large_or_deep() -> None:
    """Limits of the shipped validator are refusals, not requests that fail later, and no input exhausts the stack."""
    with pytest.raises(SchemaError, match="bytes"):
        to_mfjs(inside({"type": "string", "description": "x" * 120_001}))
    with pytest.raises(SchemaError, match="properties"):
        to_mfjs({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(3001)}})
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        deep = inside(deep)
    with pytest.raises(SchemaError, match="levels"):
        to_mfjs(deep)
    for _ in range(5000):
        deep = {"items": deep}
    with pytest.raises(SchemaError, match="deep"):
        to_mfjs(inside(deep))


def test_to_mfjs_depth_is_counted_through_references() -> None:
    """A chain of definitions is as deep as if it were written out; recursion is not endlessly deep."""
    chain = {
        f"D{i}": {"type": "object", "properties": {"d": {"$ref": f"#/$defs/D{i + 1}"}}} for i in range(31)
    }
    with pytest.raises(SchemaError, match="33 levels"):
        to_mfjs(inside({"$ref": "#/$defs/D0"}, **{"$defs": {**chain, "D31": inside({"type": "null"})}}))
    assert to_mfjs(inside({"$ref": "#/$defs/D3"}, **{"$defs": {**chain, "D31": {"$ref": "#/$defs/D3"}}}))[
        "$defs"
    ]


def test_to_mfjs_many_combinations_end_soon() -> None:
    """Products of unions, and diamonds of references, are bounded."""
    union = {"anyOf": [{"type": "string", "enum": [str(i)]} for i in range(80)]}
    assert check_mfjs(to_mfjs(inside({"allOf": [union] * 20}))) == []
    defs = {
        f"D{i}": {"allOf": [{"$ref": f"#/$defs/D{i + 1}"}, {"$ref": f"#/$defs/D{i + 1}"}]} for i in range(60)
    }
    assert to_mfjs(inside({"$ref": "#/$defs/D0"}, **{"$defs": {**defs, "D60": {"type": "null"}}}))["$defs"]


def test_to_mfjs_sheds_titles_to_fit() -> None:
    """Titles are the first to go when a schema is too large; nothing else is."""
    properties = {f"p{i}": {"type": "string", "title": "T" * 60, "description": "d"} for i in range(1150)}
    report: list[Loss] = []
    result = to_mfjs({"type": "object", "title": "Root", "properties": properties}, report=report)
    assert result["properties"]["p7"] == {"type": "string", "description": "d"}
    assert "title" not in result
    assert [(loss.pointer, loss.keyword) for loss in report] == [("", "title")]


def test_to_mfjs_enum_beyond_the_limit_is_dropped() -> None:
    """More values than the validator takes are reported as a loss; the type stays."""
    report: list[Loss] = []
    result = to_mfjs(inside({"enum": [f"v{i}" for i in range(1001)]}), report=report)
    assert result == inside({"type": "string"})
    assert [(loss.pointer, loss.keyword) for loss in report] == [("/properties/p", "enum")]


# --- reports, input, description ---


def test_to_mfjs_report_tells_every_loss() -> None:
    """Each dropped or weakened constraint is reported with its place and keyword."""
    report: list[Loss] = []
    to_mfjs(
        inside(
            {"type": "array", "uniqueItems": True, "items": {"type": "string", "format": "date"}},
            oneOf=[{"required": ["p"]}, {}],
        ),
        report=report,
    )
    assert {(loss.pointer, loss.keyword) for loss in report} == {
        ("/properties/p", "uniqueItems"),
        ("/properties/p/items", "format"),
        ("", "oneOf"),
        ("", "anyOf"),
    }
    exact: list[Loss] = []
    to_mfjs(inside({"type": "integer", "exclusiveMinimum": 1, "$comment": "c"}), report=exact)
    assert exact == []


def test_to_mfjs_describe_tells_the_model_what_the_server_will_not_enforce() -> None:
    """With `describe` formats and patterns stand in the description too."""
    result = to_mfjs(inside({"type": "string", "format": "date", "description": "When."}), describe=True)
    assert result["properties"]["p"] == {"type": "string", "description": "When. (format: date)"}


def test_to_mfjs_reads_any_mapping_and_changes_nothing() -> None:
    """The schema may be a read-only mapping with tuples; it is copied, never changed, and shares nothing."""
    from types import MappingProxyType

    schema = MappingProxyType(
        {
            "type": "object",
            "properties": MappingProxyType({"a": {"type": ("string", "null")}}),
            "required": ("a",),
        }
    )
    assert to_mfjs(schema) == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}},
        "required": ["a"],
    }
    shared = {"type": "string", "enum": ["a"]}
    document = inside({"anyOf": [shared, {"type": "null"}]})
    before = copy.deepcopy(document)
    to_mfjs(document)["properties"]["p"]["anyOf"][0]["enum"].append("b")
    assert document == before


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(DOCUMENTS, st.lists(VALUES, max_size=8))
def test_to_mfjs_never_tightens(document: Any, values: list[Any]) -> None:
    """
    Whatever the original accepts the translation accepts, it obeys MFJS, and a refusal means nothing was acceptable.
    """
    before = copy.deepcopy(document)
    objects = [o for v in values for o in ({"a": v}, {"a": v, "b": v}, v if isinstance(v, dict) else {})]
    result, refused = outcome(document)
    assert document == before
    if result is None:
        assert "accepts no value" in refused
        assert not any(accepts(document, value, document) for value in objects)
        return

    assert check_mfjs(result) == []
    for value in objects:
        assert accepts(result, value, result) or not accepts(document, value, document)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(DOCUMENTS)
def test_to_mfjs_twice_is_once(document: Any) -> None:
    """What MFJS can say it says the same way again."""
    once, _ = outcome(document)
    if once is None:
        return

    twice = to_mfjs(once)
    assert check_mfjs(twice) == []
    assert len(json.dumps(twice)) <= len(json.dumps(once)) * 2


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(["type", "properties", "required", "items", "enum", "const", "anyOf", "allOf", "oneOf", "$ref", "$defs", "minLength", "maximum", "default", "not"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
            lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
            max_leaves=5,
        ),
        max_size=5,
    )
)  # fmt: skip
def test_to_mfjs_garbage_is_refused_or_obeys(garbage: dict[str, Any]) -> None:
    """Whatever is put in, only a SchemaError or a correct schema comes out."""
    result, refused = outcome(garbage)
    assert check_mfjs(result) == [] if result is not None else refused


# --- schemas as they are met ---


GITHUB_ISSUE_TOOL = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "owner": {"type": "string", "description": "Repository owner"},
        "labels": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "default": []},
        "milestone": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "state": {"type": "string", "enum": ["open", "closed"], "default": "open"},
        "per_page": {"type": "integer", "exclusiveMinimum": 0, "maximum": 100},
        "since": {"type": "string", "format": "date-time"},
    },
    "required": ["owner"],
    "additionalProperties": False,
}
ZOD_UNION_TOOL = {
    "type": "object",
    "properties": {
        "edits": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    {"type": "object", "properties": {"op": {"type": "string", "const": "add"}, "line": {"type": "integer"}}, "required": ["op", "line"], "additionalProperties": False},
                    {"type": "object", "properties": {"op": {"type": "string", "const": "drop"}}, "required": ["op"], "additionalProperties": False},
                ]
            },
        },
        "same": {"$ref": "#/properties/edits/items"},
        "options": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
        "headers": {"type": "object", "propertyNames": {"pattern": "^x-"}, "additionalProperties": {"type": "string"}},
        "any": {},
    },
    "required": ["edits"],
}  # fmt: skip
OPENAPI_TOOL = {
    "type": "object",
    "required": ["pet", "missing"],
    "properties": {"pet": {"$ref": "#/components/schemas/Pet"}, "filter": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Filter"}]}},
    "components": {
        "schemas": {
            "Pet": {"type": "object", "discriminator": {"propertyName": "kind"}, "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]},
            "Base": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}, "id": {"type": "integer", "format": "int64", "maximum": 9223372036854775807}}},
            "Cat": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"type": "object", "properties": {"kind": {"enum": ["cat"]}, "lives": {"type": "integer", "minimum": 0, "exclusiveMaximum": True, "maximum": 10}}}]},
            "Dog": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"type": "object", "properties": {"friend": {"$ref": "#/components/schemas/Pet"}}}]},
            "Filter": {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}},
        }
    },
}  # fmt: skip
FHIR_LIKE = {
    "$id": "https://x.test/fhir",
    "oneOf": [{"$ref": "#/definitions/Patient"}],
    "definitions": {
        "Patient": {"properties": {"resourceType": {"const": "Patient"}, "contact": {"type": "array", "items": {"$ref": "#/definitions/Contact"}}}, "required": ["resourceType"], "additionalProperties": False},
        "Contact": {"properties": {"of": {"$ref": "#/definitions/Patient"}, "when": {"$ref": "#/definitions/dateTime"}}, "additionalProperties": False},
        "dateTime": {"type": "string", "pattern": "^[0-9]+$"},
    },
}  # fmt: skip


@pytest.mark.parametrize("schema", [GITHUB_ISSUE_TOOL, ZOD_UNION_TOOL, OPENAPI_TOOL, FHIR_LIKE])
def test_to_mfjs_schemas_as_they_are_met(schema: dict[str, Any]) -> None:
    """Tool schemas of MCP servers, zod, OpenAPI documents and draft-7 standards come through."""
    result = to_mfjs(schema)
    assert check_mfjs(result) == []
    assert to_mfjs(result) == result


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": GITHUB_ISSUE_TOOL}},
        {"name": "f", "description": "d", "parameters": GITHUB_ISSUE_TOOL},
        {
            "name": "f",
            "description": "d",
            "inputSchema": GITHUB_ISSUE_TOOL,
            "annotations": {"readOnlyHint": True},
        },
        {"name": "f", "description": "d", "input_schema": GITHUB_ISSUE_TOOL},
    ],
)
def test_mfjs_tool_understands_every_form(definition: dict[str, Any]) -> None:
    """Definitions of OpenAI, MCP and Anthropic become Kimi's, with the schema translated."""
    before = copy.deepcopy(definition)
    assert mfjs_tool(definition) == {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": to_mfjs(GITHUB_ISSUE_TOOL)},
    }
    assert definition == before


def test_to_mfjs_malformed_constraints_are_losses() -> None:
    """A constraint that is no JSON Schema is dropped and reported; structure that is none is refused."""
    report: list[Loss] = []
    to_mfjs(inside({"type": "string", "minLength": "2", "enum": "a"}), report=report)
    assert [(loss.pointer, loss.keyword) for loss in report] == [
        ("/properties/p", "minLength"),
        ("/properties/p", "enum"),
    ]


def test_mfjs_tool_without_parameters_and_builtin() -> None:
    """No parameters are an object; `$web_search` is no function and stays as it is; `strict` is kept."""
    assert mfjs_tool({"name": "f", "strict": False})["function"] == {
        "name": "f",
        "parameters": {"type": "object"},
        "strict": False,
    }
    search = {"type": "builtin_function", "function": {"name": "$web_search"}}
    assert mfjs_tool(search) == search


def test_to_mfjs_openapi_allof_keeps_both_halves() -> None:
    """Inheritance by allOf keeps the base's properties, narrowed by the derived schema."""
    result = to_mfjs(OPENAPI_TOOL)
    cat = result["$defs"]["Cat"]
    assert cat["properties"]["kind"] == {"type": "string", "enum": ["cat"]}
    assert cat["properties"]["id"] == {"type": "integer"}
    assert cat["properties"]["lives"] == {"type": "integer", "minimum": 0, "maximum": 9}
    assert cat["required"] == ["kind"]
    assert result["properties"]["missing"] == ANY
