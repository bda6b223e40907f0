"""
A plain reading of JSON Schema 2020-12, to compare translations with: does this schema accept this value?

It knows the keywords that the strategies below use, and is written to be obviously right, not fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == int(v),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def accepts(schema: Any, value: Any, root: Any, within: frozenset[tuple[int, int]] = frozenset()) -> bool:
    if isinstance(schema, bool):
        return schema
    here = (id(schema), id(value))
    if here in within:
        return False  # a reference that leads back to itself without a step down accepts nothing (least fixpoint)

    def sub(inner: Any, part: Any) -> bool:
        return accepts(inner, part, root, within | {here} if part is value else frozenset())

    if "$ref" in schema:
        target = root
        for token in schema["$ref"].split("/")[1:]:
            target = target[token]
        if not sub(target, value):
            return False
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(TYPES[kind](value) for kind in kinds):
            return False
    if "enum" in schema and not any(same(value, v) for v in schema["enum"]):
        return False
    if "const" in schema and not same(value, schema["const"]):
        return False
    if not all(sub(part, value) for part in schema.get("allOf", [])):
        return False
    if "anyOf" in schema and not any(sub(part, value) for part in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(sub(part, value) for part in schema["oneOf"]) != 1:
        return False
    if "not" in schema and sub(schema["not"], value):
        return False
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            return False
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return False
    elif TYPES["number"](value):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            return False
        if value <= schema.get("exclusiveMinimum", value - 1) or value >= schema.get(
            "exclusiveMaximum", value + 1
        ):
            return False
        if "multipleOf" in schema and value % schema["multipleOf"]:
            return False
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9):
            return False
        prefix = schema.get("prefixItems", [])
        if not all(sub(inner, part) for inner, part in zip(prefix, value, strict=False)):
            return False
        if "items" in schema and not all(sub(schema["items"], part) for part in value[len(prefix) :]):
            return False
    elif isinstance(value, dict):
        if not all(name in value for name in schema.get("required", [])):
            return False
        for name, part in value.items():
            matched = False
            if name in schema.get("properties", {}):
                matched = True
                if not sub(schema["properties"][name], part):
                    return False
            for pattern, inner in schema.get("patternProperties", {}).items():
                if re.search(pattern, name):
                    matched = True
                    if not sub(inner, part):
                        return False
            if (
                not matched
                and "additionalProperties" in schema
                and not sub(schema["additionalProperties"], part)
            ):
                return False
    return True


NAMES = st.sampled_from(["a", "b", "c/d", "e"])
NUMBERS = st.one_of(st.integers(-3, 6), st.sampled_from([0.5, 2.5, -1.5, 1e-7, 2**60, 1e300]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(["", "x", "xy", "xyz"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
REFS = st.sampled_from(["#", "#/$defs/A", "#/$defs/B", "#/properties/a"])


def typed(kind: str, **keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=keywords)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        typed(
            "object",
            properties=st.dictionaries(NAMES, inner, max_size=3),
            required=st.lists(NAMES, unique=True, max_size=2),
            additionalProperties=st.one_of(st.booleans(), inner),
            patternProperties=st.dictionaries(st.sampled_from(["^a", ".*"]), inner, max_size=1),
            allOf=some,
            anyOf=some,
        ),
        typed(
            "array",
            items=inner,
            prefixItems=st.lists(inner, min_size=1, max_size=2),
            minItems=st.integers(0, 2),
            maxItems=st.integers(0, 3),
        ),
        st.fixed_dictionaries(
            {"anyOf": some}, optional={"type": st.sampled_from(["object", "string", "number"])}
        ),
        st.fixed_dictionaries({"oneOf": some}, optional={"description": st.just("d")}),
        st.fixed_dictionaries({"allOf": some}, optional={"anyOf": some, "title": st.just("t")}),
        st.fixed_dictionaries({"$ref": REFS}, optional={"description": st.just("site"), "allOf": some}),
        st.fixed_dictionaries(
            {"type": st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=3, unique=True)},
            optional={"minLength": st.just(1), "maximum": NUMBERS, "items": inner, "default": VALUES},
        ),
    )


SCHEMAS = st.recursive(
    st.one_of(
        st.booleans(),
        st.just({}),
        typed(
            "string",
            minLength=st.integers(0, 3),
            maxLength=st.integers(0, 3),
            default=VALUES,
            pattern=st.just("x"),
        ),
        typed(
            "integer",
            minimum=NUMBERS,
            exclusiveMinimum=NUMBERS,
            maximum=NUMBERS,
            multipleOf=st.sampled_from([1, 2, 0.5]),
        ),
        typed(
            "number",
            minimum=NUMBERS,
            exclusiveMaximum=NUMBERS,
            enum=st.lists(NUMBERS, min_size=1, max_size=3),
        ),
        typed("boolean", default=st.booleans()),
        typed("null"),
        st.fixed_dictionaries(
            {"enum": st.lists(VALUES, min_size=1, max_size=4)},
            optional={"type": st.sampled_from(["string", "integer"])},
        ),
        st.fixed_dictionaries({"const": VALUES}),
        st.fixed_dictionaries({"$ref": REFS}),
    ),
    grown,
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "type": st.just("object"),
        "properties": st.fixed_dictionaries({"a": SCHEMAS}, optional={"b": SCHEMAS}),
        "$defs": st.fixed_dictionaries({"A": SCHEMAS, "B": SCHEMAS}),
    },
    optional={
        "required": st.just(["a"]),
        "additionalProperties": st.booleans(),
        "allOf": st.lists(SCHEMAS, max_size=2),
    },
)
