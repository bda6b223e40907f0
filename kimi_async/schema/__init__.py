"""
Python types → JSON schema → MFJS, the subset of JSON Schema that Moonshot's servers enforce, and replies back to values.

MFJS ("Moonshot Flavored JSON Schema") is specified, and checked, by https://github.com/MoonshotAI/walle
(`docs/mfjs-spec.md`, `docs/walle.md`). What there is:

* `json_schema(tp)`: a Python type as MFJS;
* `to_mfjs(schema)`: any JSON schema (draft 4 to 2020-12, OpenAPI, MCP) as MFJS, or `SchemaError`;
* `mfjs_tool(definition)`: a tool definition of another API (OpenAI, MCP, Anthropic) with its schema translated;
* `check_mfjs(schema)`: what MFJS forbids in a schema, written apart from the translation so that one tests the other;
* `response_format_for(tp)`: what to send as `response_format`, and how to read the reply.

The rule of the translation is that it may loosen and may not tighten: every value the original schema accepts, the
result accepts. MFJS has no `pattern`, `format` or `oneOf`; such constraints are dropped or weakened, and each is put
into `report` when the caller hands over a list. Two things are not looseness: a subschema without `type` gets the type
its other keywords speak of (`{"minLength": 1}` means a string), and the root, which must be an object, loses `null`.
What has no looser form either (a property called `required`, a root that is a string, a reference to another document)
is refused, with the JSON pointer of the place.
"""

from __future__ import annotations

from .check import check_mfjs
from .python_types import ROOT_KEY, OutputError, ResponseFormat, decoder_for, json_schema, response_format_for
from .rules import Loss, SchemaError
from .translate import mfjs_tool, to_mfjs

__all__ = [
    "ROOT_KEY",
    "Loss",
    "OutputError",
    "ResponseFormat",
    "SchemaError",
    "check_mfjs",
    "decoder_for",
    "json_schema",
    "mfjs_tool",
    "response_format_for",
    "to_mfjs",
]
