"""
The values that the simulator's model fills schemas with: each satisfies its schema, whatever the dice.
"""

from __future__ import annotations

import random
from datetime import date, datetime, time
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest

from kimi_async.schema import check_mfjs
from kimi_async.testing.simulator.instances import instance
from support.json_schema_model import accepts


def inside(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"p": schema}, "required": ["p"], **more}


MFJS = [
    {},
    inside({}),
    inside({"type": ["string", "null", "integer", "boolean", "array", "object", "number"]}),
    inside({"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]+$"}),
    inside({"type": "string", "pattern": r"^[A-Z]{2}-\d{3,5}(\.[^.]+)?$"}),
    inside({"type": "string", "pattern": "^(?:left|right)$", "minLength": 4}),
    inside({"type": "string", "pattern": r"^\S+@\S+\.\w+$"}),
    inside({"type": "string", "pattern": "a", "minLength": 30}),
    inside({"type": "number", "enum": [1, 2.5, -3.7], "minimum": -10, "maximum": 10}),
    inside({"type": "integer", "minimum": -10, "maximum": -7}),
    inside({"type": "integer", "maximum": -200}),
    inside({"type": "number", "minimum": 1000.5}),
    inside({"type": "boolean", "enum": [True]}),
    inside({"type": ["string", "null"], "enum": ["a", None]}),
    inside({"type": "array", "items": {"type": "string"}, "minItems": 0, "maxItems": 0}),
    inside({"type": "array", "items": {"type": "array", "items": {"type": "null"}, "minItems": 3}}),
    inside({"type": "object", "properties": {"": {"type": "string"}, "a/b": {"type": "null"}}, "required": ["", "a/b"]}),
    inside({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"g.f": {"type": "string"}}}]}),
    inside({"$ref": "#/$defs/X/properties/id"}, **{"$defs": {"X": {"type": ["object"], "properties": {"id": {"type": ["number"]}}}}}),
    inside({"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}),
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name", "children"],
    },
]  # fmt: skip
BEYOND = [
    inside({"const": "x"}),
    inside({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}),
    inside({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    inside({"type": "integer", "minimum": 1, "maximum": 50, "multipleOf": 7}),
    inside({"oneOf": [{"type": "integer"}, {"type": "null"}]}),
    inside({"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]}, **{"$defs": {"A": inside({"type": "string"})}}),
    inside({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2}),
    inside({"allOf": [{"type": "integer", "minimum": 3}, {"type": "number", "minimum": 1, "maximum": 4}]}),
]  # fmt: skip


@pytest.mark.parametrize("schema", [*MFJS, *BEYOND])
def test_instance_satisfies_its_schema(schema: dict[str, Any]) -> None:
    """Whatever the dice say, the value is one that the schema accepts."""
    for seed in range(40):
        value = instance(random.Random(seed), schema, schema)
        assert accepts(schema, value, schema), value


@pytest.mark.parametrize("schema", MFJS)
def test_instance_schemas_are_mfjs(schema: dict[str, Any]) -> None:
    """They are what the servers' validator passes at its severest."""
    assert check_mfjs(schema) == []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    born: date


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    weight: Annotated[float, pydantic.Field(gt=0, lt=90)]


class Visit(pydantic.BaseModel):
    id: UUID
    at: datetime
    until: time
    pet: Cat | Dog = pydantic.Field(discriminator="kind")
    code: str = pydantic.Field(pattern=r"^[A-Z]{3}\d{2}$")
    rating: int = pydantic.Field(ge=0, le=10, multiple_of=5)
    notes: set[str] = pydantic.Field(min_length=2)
    sizes: tuple[int, str]
    extra: dict[str, int] = {}


def test_instance_is_read_by_pydantic() -> None:
    """A model as programs write them, with dates, patterns and a discriminated union, validates its own instance."""
    schema = Visit.model_json_schema()
    for seed in range(60):
        Visit.model_validate(instance(random.Random(seed), schema, schema))
    assert check_mfjs(schema, level="strict") == []


@pytest.mark.parametrize("pattern", ["(", r"^(a)\1$", "(?=b)a", "[^\\s\\S]", "a{9999999}"])
def test_instance_gives_up_on_patterns_beyond_it(pattern: str) -> None:
    """A pattern that is none, or that looks around, costs the pattern and nothing else."""
    schema = inside({"type": "string", "pattern": pattern})
    assert isinstance(instance(random.Random(1), schema, schema)["p"], str)


def test_instance_of_an_endless_schema_ends() -> None:
    """A schema that nothing satisfies still gets some value."""
    schema = inside({"$ref": "#"})
    assert "p" in instance(random.Random(1), schema, schema)
