"""
What JSON Schema's keywords are about: which type they speak of, which reach MFJS, and why the others cannot.
"""

from __future__ import annotations

from typing import Final

from .rules import Json

__all__ = ["DROPPED", "EFFECTIVE", "HINTS", "REF_KEYS", "TYPE_ALIASES", "is_not_anything"]

# Names that are no JSON types but stand in published tool schemas (Berkeley function calling set, OpenAPI 2, Python).
TYPE_ALIASES: Final = {
    "any": "any",
    "arraylist": "array",
    "bigint": "integer",
    "bool": "boolean",
    "byte": "integer",
    "char": "string",
    "dict": "object",
    "double": "number",
    "float": "number",
    "hash": "object",
    "hashmap": "object",
    "hashtable": "object",
    "int": "integer",
    "list": "array",
    "long": "integer",
    "map": "object",
    "none": "null",
    "queue": "array",
    "set": "array",
    "short": "integer",
    "stack": "array",
    "str": "string",
    "text": "string",
    "tuple": "array",
}

HINTS: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        ],
        "object",
    ),
    **dict.fromkeys(
        [
            "items",
            "prefixItems",
            "additionalItems",
            "contains",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minContains",
            "maxContains",
            "unevaluatedItems",
        ],
        "array",
    ),
    **dict.fromkeys(
        [
            "minLength",
            "maxLength",
            "pattern",
            "format",
            "contentEncoding",
            "contentMediaType",
            "contentSchema",
        ],
        "string",
    ),
    **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"], "number"),
}

# Keywords whose meaning reaches the result. A subschema that has none of them accepts everything.
EFFECTIVE: Final = frozenset(
    [
        "type",
        "enum",
        "const",
        "$ref",
        "$dynamicRef",
        "$recursiveRef",
        "allOf",
        "anyOf",
        "oneOf",
        "nullable",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)

# Keywords that constrain and have no MFJS form, with what becomes of them.
DROPPED: Final = {
    "format": "MFJS has no formats",
    "contentEncoding": "MFJS does not describe the content of strings",
    "contentMediaType": "MFJS does not describe the content of strings",
    "contentSchema": "MFJS does not describe the content of strings",
    "uniqueItems": "MFJS cannot ask for distinct items",
    "contains": "MFJS cannot ask for one matching item",
    "minContains": "MFJS cannot ask for one matching item",
    "maxContains": "MFJS cannot ask for one matching item",
    "unevaluatedItems": "MFJS has one schema for all items",
    "minProperties": "MFJS does not count properties",
    "maxProperties": "MFJS does not count properties",
    "dependentRequired": "MFJS has no conditions between properties",
    "dependentSchemas": "MFJS has no conditions between properties",
    "dependencies": "MFJS has no conditions between properties",
    "if": "MFJS has no conditions",
    "then": "MFJS has no conditions",
    "else": "MFJS has no conditions",
    "not": "MFJS has no negation",
}

REF_KEYS: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def is_not_anything(keywords: Json) -> bool:
    return keywords.get("not") is True or keywords.get("not") == {}
