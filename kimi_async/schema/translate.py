"""
Any JSON schema as MFJS.

Three steps: find what references point to (`identify`, `resolve`), read a place as alternatives (`alts`), write
alternatives as MFJS (`build`). References and plain unions keep their form; only what MFJS lacks is taken apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast
from urllib.parse import unquote, urljoin

from .alternatives import (
    NEVER,
    Alt,
    Alts,
    Conj,
    Node,
    everything,
    expressible,
    is_integral,
    is_number,
    meet,
    tighter_high,
    tighter_low,
)
from .rules import (
    ALL_TYPES,
    FORBIDDEN_KEYS,
    MAX_BRANCHES,
    MAX_ENUM,
    MAX_INT,
    MAX_SIZE,
    TYPES,
    Json,
    Loss,
    RootError,
    SchemaError,
    check_mfjs,
    escape,
    is_list,
    is_object,
    kind_of,
    same,
)

__all__ = ["mfjs_tool", "to_mfjs", "translate"]

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
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)

# Keywords that constrain and have no MFJS form, with what becomes of them.
DROPPED: Final = {
    "pattern": "MFJS has no regular expressions",
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


class _Translation:
    """One call of `to_mfjs`. Works on a private copy of the schema, so nothing of the caller's is ever changed."""

    def __init__(self, schema: Json, *, describe: bool, exact_root: bool) -> None:
        self.document = schema
        self.describe = describe
        self.exact_root = exact_root
        self.losses: dict[tuple[str, str], Loss] = {}
        self.contradictions: list[tuple[str, str]] = []
        self.nodes: dict[str, Node] = {}
        self.resources: dict[str, str] = {}  # URI without fragment → pointer
        self.bases: dict[str, str] = {"": ""}  # pointer of a resource → its URI
        self.anchors: dict[tuple[str, str], str] = {}
        draft = schema.get("$schema")
        self.legacy = isinstance(draft, str) and any(f"draft-0{n}" in draft for n in "34567")
        self.dynamic: set[str] = set()  # reference keywords that depend on how they were reached
        self.identify(schema, "", "")
        self.memo: dict[str, Alts] = {}
        self.expanding: set[str] = set()
        self.cut = 0
        self.names: dict[frozenset[str], str] = {}
        self.defs: dict[str, Json] = {}
        self.building: dict[frozenset[str], bool] = {}
        self.built: dict[frozenset[str], Json] = {}
        self.depth = 0
        self.steps = 0

    # -- the document --

    def identify(self, value: Any, pointer: str, resource: str) -> None:
        """Note every `$id` and anchor below. Values of `enum` and `const` are data, whatever they look like."""
        if is_object(value):
            keywords = value
            for key in ("$id", "id") if self.legacy else ("$id",):
                uri = keywords.get(key)
                if not isinstance(uri, str) or (self.legacy and "$ref" in keywords):
                    continue
                if uri.startswith("#"):
                    self.anchors[resource, uri[1:]] = pointer
                else:
                    base = urljoin(self.bases[resource], uri).rstrip("#")
                    resource = pointer
                    self.bases[resource] = base
                    self.resources[base] = pointer
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := keywords.get(key), str):
                    if key == "$dynamicAnchor" and any(name == anchor for _, name in self.anchors):
                        self.dynamic.add("$dynamicRef")
                    self.anchors[resource, anchor] = pointer
            if keywords.get("$recursiveAnchor") is True:
                self.dynamic.add("$recursiveRef")
            for key, child in keywords.items():
                if key not in ("enum", "const"):
                    self.identify(child, f"{pointer}/{escape(key)}", resource)
        elif is_list(value):
            for index, child in enumerate(value):
                self.identify(child, f"{pointer}/{index}", resource)

    def node(self, schema: Any, pointer: str, resource: str) -> Node:
        """The one node of this place. Two nodes with equal pointers are the same schema."""
        known = self.nodes.get(pointer)
        if known is None:
            if not isinstance(schema, (dict, bool)):
                raise SchemaError(pointer, f"a schema is an object or a boolean, not {kind_of(schema)}")
            if pointer in self.bases:
                resource = pointer
            known = self.nodes[pointer] = Node(schema, pointer, resource)
        return known

    def child(self, parent: Node, *path: str | int) -> Node:
        value = parent.schema
        for token in path:
            value = value[token]
        pointer = parent.pointer + "".join(f"/{escape(str(token))}" for token in path)
        return self.node(value, pointer, parent.resource)

    def artificial(self, schema: Any, pointer: str, parent: Node) -> Node:
        """A schema that is written nowhere. `pointer` starts with the place it was made from, then NUL and a name."""
        return self.nodes.setdefault(pointer, Node(schema, pointer, parent.resource))

    def union_of(self, parent: Node, name: str, branches: Sequence[Conj]) -> Node:
        node = self.artificial({}, f"{parent.pointer}\0{name}", parent)
        node.branches = tuple(branches)
        return node

    def resolve(self, node: Node, keyword: str) -> Node:
        ref = node.keywords[keyword]
        where = f"{node.pointer}/{escape(keyword)}"
        if not isinstance(ref, str):
            raise SchemaError(where, f"a reference is a string, not {kind_of(ref)}")
        uri, _, fragment = ref.partition("#")
        resource = node.resource
        if keyword in self.dynamic:
            self.lose(node.pointer, keyword, "what it refers to depends on how it was reached")
            return self.artificial({}, f"{node.pointer}\0{keyword}", node)
        if uri:
            target = urljoin(self.bases[resource], uri)
            if target not in self.resources:
                raise SchemaError(
                    where,
                    f"{ref!r} is in another document; copy that schema into $defs and refer to it as #/$defs/…",
                )
            resource = self.resources[target]
        if fragment and not fragment.startswith("/"):
            pointer = self.anchors.get((resource, unquote(fragment)))
            if pointer is None:
                raise SchemaError(where, f"no subschema has the anchor {fragment!r}")
            return self.walk(pointer, where, ref)
        found = self.find(resource, fragment)
        if found is None and fragment.startswith("/definitions/"):  # written for the other draft
            found = self.find(resource, "/$defs/" + fragment.removeprefix("/definitions/"))
        elif found is None and fragment.startswith("/$defs/"):
            found = self.find(resource, "/definitions/" + fragment.removeprefix("/$defs/"))
        if found is None:
            raise SchemaError(where, f"{ref!r} points to nothing in this schema")
        return self.walk(found, where, ref)

    def find(self, resource: str, fragment: str) -> str | None:
        """The document pointer of a fragment of a resource; None if nothing is there."""
        tokens = [unquote(t).replace("~1", "/").replace("~0", "~") for t in fragment.split("/")[1:]]
        pointer = resource + "".join(f"/{escape(token)}" for token in tokens)
        return pointer if self.at(pointer) is not None else None

    def at(self, pointer: str) -> tuple[Any, str] | None:
        """The value at a document pointer, and the resource it belongs to."""
        value: Any = self.document
        resource = walked = ""
        for token in pointer.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            if is_object(value) and key in value:
                value = value[key]
            elif is_list(value) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
            walked += f"/{token}"
            if walked in self.bases:
                resource = walked
        return value, resource

    def walk(self, pointer: str, where: str, ref: str) -> Node:
        found = self.at(pointer)
        if found is None or not isinstance(found[0], (dict, bool)):
            raise SchemaError(where, f"{ref!r} does not point to a schema")
        return self.node(found[0], pointer, found[1])

    # -- reports --

    def lose(self, at: str, keyword: str, reason: str) -> None:
        at = at.partition("\0")[0]
        self.losses.setdefault((at, keyword), Loss(at, keyword, reason))

    def contradict(self, at: str, reason: str) -> None:
        self.contradictions.append((at.partition("\0")[0], reason))

    # -- reading keywords --

    def get(self, node: Node, keyword: str, kind: type, what: str) -> Any:
        """
        The value of a keyword, None when absent or null.

        Tool lists in the wild say `"properties": null`, and PHP writes an empty object as `[]`.
        """
        value = node.keywords.get(keyword)
        if value is None or (value == [] and kind is dict):
            return None
        if not isinstance(value, kind):
            raise SchemaError(
                f"{node.pointer}/{escape(keyword)}", f"{keyword} must be {what}, not {kind_of(value)}"
            )
        return value

    def list_of(self, node: Node, keyword: str) -> list[Node]:
        values = self.get(node, keyword, list, "a list of schemas")
        return [] if values is None else [self.child(node, keyword, index) for index in range(len(values))]

    def bound(self, node: Node, keyword: str) -> int | float | None:
        value = node.keywords.get(keyword)
        if value is None:
            return None
        if not is_number(value):
            if not isinstance(value, bool):  # draft 4: exclusiveMinimum was a boolean beside minimum
                self.lose(node.pointer, keyword, f"it must be a number, not {kind_of(value)}")
            return None
        return cast("int | float", value)

    def count(self, node: Node, keyword: str) -> int | None:
        value = self.bound(node, keyword)
        if value is None:
            return None
        if not is_integral(value):
            self.lose(node.pointer, keyword, f"it must be a whole number, not {value}")
            return None
        # A lower bound below nothing asks for nothing; an upper one that no answer reaches neither.
        if keyword.startswith("min"):
            return int(value) if 0 < value <= MAX_INT else None if value <= 0 else MAX_INT
        if value < 0:
            self.contradict(f"{node.pointer}/{keyword}", f"{keyword} is negative")
        return int(value) if value <= MAX_INT else None

    def types(self, node: Node) -> list[str] | None:
        value = node.keywords.get("type")
        where = f"{node.pointer}/type"
        if value is None:
            if "type" in node.keywords:
                self.lose(
                    node.pointer, "type", 'it is null, and so says nothing; the type null is written "null"'
                )
            return None
        names = value if is_list(value) else [value]
        if not names:
            raise SchemaError(where, "type is an empty list; leave it out to allow every type")
        result: list[str] = []
        for name in names:
            if not isinstance(name, str):
                raise SchemaError(where, f"type must be a string or a list of strings, not {kind_of(name)}")
            known = name if name in TYPES else TYPE_ALIASES.get(name.lower(), name.lower())
            if known == "any":
                return None
            if known not in TYPES:
                raise SchemaError(where, f"{name!r} is not a JSON type ({', '.join(sorted(TYPES))})")
            result.append(known)
        return result

    def notes(self, node: Node) -> Json:
        """Title, description and default written at this place."""
        found: Json = {}
        for keyword in ("title", "description"):
            if isinstance(text := node.keywords.get(keyword), str) and text:
                found[keyword] = text
        if "default" in node.keywords:
            found["default"] = node.keywords["default"]
        if self.describe:
            said = [f"{k}: {v}" for k in ("format", "pattern") if isinstance(v := node.keywords.get(k), str)]
            if said:
                found["description"] = " ".join(
                    [*([found["description"]] if "description" in found else []), f"({', '.join(said)})"]
                )
        return found

    # -- alternatives --

    def base(self, node: Node) -> dict[str, Alt]:
        """One alternative for each type with the constraints this place puts on it."""
        at = node.pointer
        keywords = node.keywords
        alts = {kind: Alt(kind, at) for kind in ALL_TYPES}
        text = alts["string"]
        text.low, text.high = self.count(node, "minLength"), self.count(node, "maxLength")
        self.number(node, alts["number"])
        self.object(node, alts["object"])
        self.array(node, alts["array"])
        for keyword, reason in DROPPED.items():
            if keyword in keywords and keywords[keyword] not in (None, False) and keywords[keyword] != {}:
                self.lose(at, keyword, reason)
        return alts

    def number(self, node: Node, alt: Alt) -> None:
        low, high = self.bound(node, "minimum"), self.bound(node, "maximum")
        above, below = self.bound(node, "exclusiveMinimum"), self.bound(node, "exclusiveMaximum")
        if node.keywords.get("exclusiveMinimum") is True:
            above, low = low, None
        if node.keywords.get("exclusiveMaximum") is True:
            below, high = high, None
        step: Any = node.keywords.get("multipleOf")
        types = self.types(node)
        whole = types is not None and "integer" in types and "number" not in types
        if is_integral(step) and step != 0:
            # A multiple of a whole number is whole, and being whole is as much of it as MFJS can say.
            whole = True
            if abs(step) != 1:
                self.lose(node.pointer, "multipleOf", "MFJS cannot ask for multiples")
        elif step is not None:
            self.lose(node.pointer, "multipleOf", "MFJS cannot ask for multiples")
        if above is not None:
            if whole:
                low = tighter_low(low, math.floor(above) + 1)
            else:
                low = tighter_low(low, above)
                self.lose(node.pointer, "exclusiveMinimum", "became minimum: MFJS has inclusive bounds only")
        if below is not None:
            if whole:
                high = tighter_high(high, math.ceil(below) - 1)
            else:
                high = tighter_high(high, below)
                self.lose(node.pointer, "exclusiveMaximum", "became maximum: MFJS has inclusive bounds only")
        if whole:
            low = None if low is None else math.ceil(low)
            high = None if high is None else math.floor(high)
        alt.low, alt.high, alt.integer = low, high, whole

    def object(self, node: Node, alt: Alt) -> None:
        properties: Json | None = self.get(node, "properties", dict, "an object of schemas")
        if "properties" in node.keywords and node.keywords["properties"] is not None:
            alt.props = {name: (self.child(node, "properties", name),) for name in properties or {}}
        extra: Conj = ()
        if isinstance(node.keywords.get("additionalProperties"), (dict, bool)):
            extra = (self.child(node, "additionalProperties"),)
        elif node.keywords.get("additionalProperties") is not None:
            self.lose(node.pointer, "additionalProperties", "it must be a schema or a boolean")
        patterns = self.get(node, "patternProperties", dict, "an object of schemas")
        if patterns:
            # Names cannot be matched, so whatever some pattern allows is allowed for every name. Only a pattern that
            # matches all names keeps its strength.
            matched = [self.child(node, "patternProperties", name) for name in patterns]
            if len(matched) == 1 and next(iter(patterns)) in ("", ".*", "^.*$", ".*$", "^.*", "^"):
                extra = (matched[0],)
            elif extra:
                extra = (self.union_of(node, "patternProperties", [(m,) for m in matched] + [extra]),)
            alt.patterned = True
            self.lose(
                node.pointer,
                "patternProperties",
                "MFJS cannot match names; their schemas hold for any other name",
            )
        names = self.names_allowed(node)
        if names is not None:
            alt.props = {
                **{name: extra for name in names if name not in (alt.props or {})},
                **(alt.props or {}),
            }
            alt.props = {name: conj for name, conj in alt.props.items() if name in names}
            extra = (self.artificial(False, f"{node.pointer}\0closed", node),)
        alt.extra = extra
        required = node.keywords.get("required")
        if isinstance(required, bool):  # draft 3, and a common slip
            self.lose(
                node.pointer,
                "required",
                "a boolean: it belongs, as a list of names, into the schema of the object",
            )
        elif required is not None:
            if not is_list(required) or not all(isinstance(name, str) for name in required):
                self.lose(node.pointer, "required", "it must be a list of property names")
            named = [name for name in required if isinstance(name, str)] if is_list(required) else []
            wanted = list(dict.fromkeys(named))
            if alt.closed:
                # Taken at its word nothing satisfies this; it is nearly always a name that has changed since.
                for name in wanted:
                    if name not in (alt.props or {}):
                        self.lose(
                            node.pointer,
                            "required",
                            f"{name!r} is required but additionalProperties forbids it",
                        )
                wanted = [name for name in wanted if name in (alt.props or {})]
            alt.required = tuple(wanted)

    def names_allowed(self, node: Node) -> list[str] | None:
        """The property names, if `propertyNames` lists them (dictionaries keyed by an enum); else None."""
        value = node.keywords.get("propertyNames")
        if not is_object(value):
            return None
        names = self.child(node, "propertyNames")
        for _ in range(8):
            if "$ref" not in names.keywords:
                break
            names = self.resolve(names, "$ref")
        listed = names.keywords.get("enum")
        if "const" in names.keywords:
            listed = [names.keywords["const"]]
        if is_list(listed) and all(isinstance(name, str) for name in listed):
            return listed
        if names.keywords:
            self.lose(node.pointer, "propertyNames", "MFJS cannot constrain names")
        return None

    def array(self, node: Node, alt: Alt) -> None:
        alt.low, alt.high = self.count(node, "minItems"), self.count(node, "maxItems")
        items = node.keywords.get("items")
        prefix = self.list_of(node, "prefixItems")
        rest: Conj = ()
        if is_list(items):
            prefix = self.list_of(node, "items")
            if isinstance(node.keywords.get("additionalItems"), (dict, bool)):
                rest = (self.child(node, "additionalItems"),)
        elif isinstance(items, (dict, bool)):
            rest = (self.child(node, "items"),)
        elif items is not None:
            raise SchemaError(
                f"{node.pointer}/items", f"items is a schema or a list of schemas, not {kind_of(items)}"
            )
        if not prefix:
            alt.items = rest
            return
        closed = any(n.schema is False for n in rest)
        if closed:
            alt.high = tighter_high(alt.high, len(prefix))
        shown = prefix if alt.high is None else prefix[: int(alt.high)]
        branches: list[Conj] = [(n,) for n in shown]
        if not closed and (alt.high is None or alt.high > len(prefix)):
            branches.append(rest)
        if branches and all(branches):
            alt.items = (self.union_of(node, "items", branches),) if len(branches) > 1 else branches[0]
        if len(shown) > 1:
            self.lose(
                node.pointer, "prefixItems", "MFJS has one schema for all items: each may be any of them"
            )

    def own(self, node: Node) -> Alts:
        """What the keywords of this place, without references and combinations, accept."""
        keywords = node.keywords
        base = self.base(node)
        hints = frozenset(HINTS[k] for k, v in keywords.items() if k in HINTS and v is not None)
        types = self.types(node)
        alts: list[Alt] = []
        for kind in types or ALL_TYPES:
            if kind == "integer":
                if "number" not in (types or ()):
                    alts.append(replace(base["number"], integer=True))
            else:
                alts.append(base[kind])
        alts = [alt for alt in alts if self.possible(alt)]
        values = self.values(node)
        if values is None:
            return Alts(alts, types is not None, hints)
        listed = [met for value in values for alt in alts if (met := meet(value, alt)) is not None]
        if not listed and types is not None and alts and values:
            self.lose(node.pointer, "enum", f"none of its values is of type {'/'.join(types)}")
            return Alts(alts, True, hints)
        if not listed:
            self.contradict(node.pointer, "none of the values of enum is allowed by the other keywords")
        return Alts(listed, True, hints)

    def possible(self, alt: Alt) -> bool:
        if alt.low is not None and alt.high is not None and alt.low > alt.high:
            self.contradict(alt.at, f"the lower bound {alt.low} is above the upper bound {alt.high}")
            return False
        return not (alt.kind in ("string", "array") and alt.high is not None and alt.high < 0)

    def values(self, node: Node) -> list[Alt] | None:
        """The alternatives of `enum` and `const`; None if there is neither."""
        keywords = node.keywords
        listed: list[Any]
        if "const" in keywords:
            listed = [keywords["const"]]
            if is_list(keywords.get("enum")):
                listed = [v for v in listed if any(same(v, w) for w in keywords["enum"])]
        elif keywords.get("enum") is not None:
            if not is_list(keywords["enum"]):
                self.lose(
                    node.pointer, "enum", f"it must be a list of values, not {kind_of(keywords['enum'])}"
                )
                return None
            listed = keywords["enum"]
        else:
            return None
        at = node.pointer
        alts: list[Alt] = []
        texts = tuple(dict.fromkeys(v for v in listed if isinstance(v, str)))
        if texts:
            alts.append(Alt("string", at, values=texts))
        numbers = tuple(dict.fromkeys(v for v in listed if is_number(v)))
        if numbers:
            alts.append(Alt("number", at, values=numbers, integer=all(is_integral(v) for v in numbers)))
        truths = tuple(dict.fromkeys(v for v in listed if isinstance(v, bool)))
        if truths:
            alts.append(Alt("boolean", at, values=truths))
        if any(v is None for v in listed):
            alts.append(Alt("null", at))
        for index, value in enumerate(listed):
            place = f"{at}\0{index}"
            if is_object(value):
                fixed = value
                props: dict[str, Conj] = {
                    k: (self.artificial({"const": v}, f"{place}/{escape(k)}", node),)
                    for k, v in fixed.items()
                }
                closed = (self.artificial(False, f"{place}\0closed", node),)
                alts.append(Alt("object", at, props=props, required=tuple(props), extra=closed))
            elif is_list(value):
                members = value
                branches = [
                    (self.artificial({"const": v}, f"{place}/{i}", node),) for i, v in enumerate(members)
                ]
                items: Conj = ()
                if branches:
                    union = self.artificial({}, f"{place}\0items", node)
                    union.branches = tuple(branches)
                    items = (union,) if len(branches) > 1 else branches[0]
                if len(branches) > 1:
                    self.lose(at, "enum", "MFJS cannot fix the order of items")
                alts.append(Alt("array", at, low=len(members) or None, high=len(members), items=items))
        return alts

    def alts(self, node: Node) -> Alts:
        """Everything this place accepts. A place reached from itself without a step down adds nothing (least fixpoint)."""
        known = self.memo.get(node.pointer)
        if known is not None:
            return known
        if node.schema is True:
            return Alts(everything(node.pointer), False, frozenset())
        if node.schema is False:
            self.contradict(node.pointer, "the schema `false` accepts nothing")
            return Alts([], True, frozenset())
        if node.pointer in self.expanding:
            self.cut += 1
            return Alts([], True, frozenset())
        self.step()
        self.expanding.add(node.pointer)
        before = self.cut
        try:
            found = self.read(node)
        finally:
            self.expanding.discard(node.pointer)
        if self.cut == before:
            self.memo[node.pointer] = found
        return found

    def read(self, node: Node) -> Alts:
        keywords = node.keywords
        if node.branches is not None:
            return self.join(node, [(conj, self.meet_all(conj)) for conj in node.branches])
        if self.legacy and "$ref" in keywords:
            result = self.alts(self.resolve(node, "$ref"))
        else:
            result = self.own(node)
            for keyword in REF_KEYS:
                if keyword in keywords:
                    result = self.meet(node, keyword, result, self.alts(self.resolve(node, keyword)))
            for part in self.list_of(node, "allOf"):
                result = self.meet(node, "allOf", result, self.alts(part))
            for keyword in ("anyOf", "oneOf"):
                branches = self.list_of(node, keyword)
                if branches:
                    joined = self.join(node, [((b,), self.alts(b)) for b in branches])
                    result = self.meet(node, keyword, result, joined)
                if keyword == "oneOf" and len(branches) > 1:
                    self.lose(
                        node.pointer, "oneOf", "became anyOf: MFJS cannot forbid that two branches match"
                    )
            if _is_not_anything(keywords):
                self.contradict(node.pointer, "`not` of everything accepts nothing")
                result = Alts([], True, frozenset())
            result = self.unevaluated(node, result)
        if keywords.get("nullable") is True and not any(alt.kind == "null" for alt in result.alts):
            result = result._replace(alts=[*result.settled(), Alt("null", node.pointer)], typed=True)
        return result

    def unevaluated(self, node: Node, result: Alts) -> Alts:
        value = node.keywords.get("unevaluatedProperties")
        if value is None or value is True or value == {}:
            return result
        branching = {"anyOf", "oneOf", "if", "dependentSchemas", "$dynamicRef", "$recursiveRef"}
        inner = {"unevaluatedProperties"}
        plain = all(
            not (branching if pointer == node.pointer else branching | inner)
            & self.nodes[pointer].keywords.keys()
            for pointer in self.heads(node)
        )
        if not plain or not isinstance(value, (dict, bool)):
            self.lose(
                node.pointer, "unevaluatedProperties", "MFJS cannot tell which branch has read a property"
            )
            return result
        rest = (self.child(node, "unevaluatedProperties"),)
        alts = [
            replace(alt, extra=rest) if alt.kind == "object" and not alt.extra and not alt.patterned else alt
            for alt in result.alts
        ]
        return result._replace(alts=alts)

    def meet_all(self, conj: Conj) -> Alts:
        result = Alts(everything(conj[0].pointer if conj else ""), False, frozenset())
        for node in conj:
            result = self.meet(node, "allOf", result, self.alts(node))
        return result

    def meet(self, node: Node, keyword: str, a: Alts, b: Alts) -> Alts:
        if len(a.alts) * len(b.alts) > 4096:
            self.lose(node.pointer, keyword, "too many combinations of alternatives")
            return a
        met = [m for x in a.alts for y in b.alts if (m := meet(x, y)) is not None]
        if not met and a.alts and b.alts:
            self.contradict(
                f"{node.pointer}/{escape(keyword)}", "nothing satisfies all the schemas that meet here"
            )
        return Alts(met, a.typed or b.typed, a.hints | b.hints)

    def join(self, node: Node, branches: Sequence[tuple[Conj, Alts]]) -> Alts:
        untyped = all(not found.typed for _, found in branches)
        alts: list[Alt] = []
        hints: frozenset[str] = frozenset()
        for conj, found in branches:
            notes = self.notes_of(conj)
            for alt in found.alts if untyped else found.settled():
                alts.append(replace(alt, notes={**notes, **alt.notes}) if notes else alt)
            hints |= found.hints
        if untyped and not all(found.hints for _, found in branches):
            hints = frozenset()
        return Alts(alts, not untyped, hints)

    def notes_of(self, conj: Conj) -> Json:
        """Annotations of a conjunction; those of an earlier place win, and those of a reference's target come last."""
        found: Json = {}
        later: list[Node] = []
        for node in conj:
            found = {**self.notes(node), **found}
            if any(keyword in node.keywords for keyword in REF_KEYS):
                later += [self.resolve(node, k) for k in REF_KEYS if k in node.keywords]
            later += self.list_of(node, "allOf") if not self.legacy or "$ref" not in node.keywords else []
        for node in later:
            notes = self.notes(node)
            if "description" in notes:
                found.setdefault("description", notes["description"])
        return found

    def step(self) -> None:
        self.steps += 1
        if self.steps > 200_000:
            raise SchemaError("", "the references and combinations of this schema are too many to work out")

    # -- building the result --

    def effective(self, node: Node) -> set[str]:
        keywords = node.keywords
        if self.legacy and "$ref" in keywords:
            return {"$ref"}
        found = {k for k in EFFECTIVE if k in keywords and (keywords[k] is not None or k == "const")}
        if _is_not_anything(keywords):
            found.add("not")
        if keywords.get("nullable") is not True:
            found.discard("nullable")
        if isinstance(keywords.get("required"), bool):
            found.discard("required")
            self.lose(
                node.pointer,
                "required",
                "a boolean: it belongs, as a list of names, into the schema of the object",
            )
        meaningless: tuple[tuple[str, Any], ...] = (
            ("allOf", []),
            ("required", []),
            ("additionalProperties", True),
            ("unevaluatedProperties", True),
        )
        for key, empty in meaningless:
            if key in found and keywords[key] == empty and self.only_hints(found, key):
                found.discard(key)
        return found

    @staticmethod
    def only_hints(found: set[str], key: str) -> bool:
        """Whether the keyword can be ignored: it must stay when the type is guessed from it."""
        return key == "allOf" or "type" in found or any(k in found for k in REF_KEYS)

    def build(self, conj: Conj) -> Json:
        """The MFJS of a conjunction of places: a new dict, or `NEVER`. References are names still, not pointers."""
        self.step()
        self.depth += 1
        try:
            if self.depth > 150:
                raise SchemaError(conj[0].pointer.partition("\0")[0], "the schema is nested too deeply")
            for node in conj:
                if node.schema is False:
                    self.contradict(node.pointer, "the schema `false` accepts nothing")
                    return NEVER
            solid = [n for n in conj if n.branches is not None or self.effective(n)]
            notes: Json = {}
            for node in conj:
                notes = {**self.notes(node), **notes}
                if node not in solid:
                    for keyword, reason in DROPPED.items():
                        if node.keywords.get(keyword) not in (None, False, {}):
                            self.lose(node.pointer, keyword, reason)
            if len(solid) == 1:
                return self.one(solid[0], notes)
            if not solid:
                hints = {
                    HINTS[k] for n in conj for k, v in n.keywords.items() if k in HINTS and v is not None
                }
                shown = [kind for kind in ALL_TYPES if kind in hints] or list(ALL_TYPES)
                return self.annotate(
                    {"type": shown[0] if len(shown) == 1 else shown}, notes, conj[0].pointer if conj else ""
                )
            return self.full(tuple(solid), notes)
        finally:
            self.depth -= 1

    def one(self, node: Node, notes: Json) -> Json:
        """A single place: a reference or a union keeps its form, anything else is taken apart and put together."""
        if node.branches is not None:
            return self.union(node, list(node.branches), notes)
        keys = self.effective(node)
        if "nullable" in keys:
            rest = {
                k: v
                for k, v in node.keywords.items()
                if k not in ("nullable", "title", "description", "default")
            }
            inner = self.artificial(rest, f"{node.pointer}\0nonnull", node)
            null = self.artificial({"type": "null"}, f"{node.pointer}\0null", node)
            if not any(alt.kind == "null" for alt in self.alts(inner).settled()):
                if keys - {"nullable", "type", "enum"}:
                    return self.union(node, [(inner,), (null,)], notes)
                return self.full((node,), notes)
            return self.one(inner, notes)
        applicators = keys & {*REF_KEYS, "allOf", "anyOf", "oneOf"}
        if len(applicators) == 1 and keys - applicators <= {"type"}:
            (keyword,) = applicators
            targets = [self.resolve(node, keyword)] if keyword in REF_KEYS else self.list_of(node, keyword)
            if (keyword != "allOf" or len(targets) == 1) and self.covered(node, targets):
                for dropped, reason in DROPPED.items():
                    if node.keywords.get(dropped) not in (None, False, {}):
                        self.lose(node.pointer, dropped, reason)
                if keyword in REF_KEYS:
                    return self.reference(targets[0], notes, node)
                if len(targets) == 1:
                    inner_notes = self.notes(targets[0])
                    return self.build_with(targets[0], {**inner_notes, **notes})
                if keyword == "oneOf":
                    self.lose(
                        node.pointer, "oneOf", "became anyOf: MFJS cannot forbid that two branches match"
                    )
                return self.union(node, [(t,) for t in targets], notes)
        return self.full((node,), notes)

    def build_with(self, node: Node, notes: Json) -> Json:
        if node.schema is False:
            return NEVER
        if node.branches is None and not self.effective(node):
            return self.annotate(self.build((node,)), notes, node.pointer)
        return self.one(node, notes)

    def covered(self, node: Node, targets: Sequence[Node]) -> bool:
        """Whether a `type` beside a reference or union says nothing that the targets do not say themselves."""
        types = self.types(node)
        if types is None:
            return True
        kinds = {"number" if t == "integer" else t for t in types}
        for target in targets:
            found = self.alts(target)
            if not found.typed or any(alt.kind not in kinds for alt in found.alts):
                return False
            if "number" not in types and any(alt.kind == "number" and not alt.integer for alt in found.alts):
                return False
        return True

    def heads(self, node: Node) -> Iterator[str]:
        """Places that hold the same value as this one: through references and branches, without a step down."""
        seen: set[str] = set()
        todo = [node]
        while todo:
            here = todo.pop()
            if here.pointer in seen:
                continue
            seen.add(here.pointer)
            yield here.pointer
            todo += [n for conj in here.branches or () for n in conj]
            todo += [self.resolve(here, k) for k in REF_KEYS if k in here.keywords]
            for keyword in ("allOf", "anyOf", "oneOf"):
                todo += self.list_of(here, keyword)

    def union(self, node: Node, branches: list[Conj], notes: Json) -> Json:
        key = frozenset((node.pointer,))
        if key in self.built:
            return self.annotate(self.built[key], notes, node.pointer)
        if any(node.pointer == p for conj in branches for n in conj for p in self.heads(n)):
            return self.full((node,), notes)
        shown: list[Json] = []
        for conj in branches:
            built: Json = self.build(conj) if conj else {"type": list(ALL_TYPES)}
            if built is NEVER:
                continue
            inner: list[Json] = built["anyOf"] if set(built) == {"anyOf"} else [built]
            shown += [branch for branch in inner if branch not in shown]
        self.built[key] = self.together(shown, node.pointer) if shown else NEVER
        return self.annotate(self.built[key], notes, node.pointer)

    def together(self, branches: list[Json], at: str) -> Json:
        branches = _enums_joined(branches)
        if len(branches) == 1:
            return branches[0]
        if len(branches) > MAX_BRANCHES:
            self.lose(at, "anyOf", f"more than {MAX_BRANCHES} alternatives")
            kinds = list(dict.fromkeys(k for b in branches for k in _listed(b.get("type", list(ALL_TYPES)))))
            return {"type": kinds[0] if len(kinds) == 1 else kinds}
        return {"anyOf": branches}

    def reference(self, target: Node, notes: Json, site: Node) -> Json:
        """A reference by name. Names of names are followed, so that no definition is only another one's name."""
        seen: set[str] = set()
        while target.branches is None and target.pointer not in seen:
            seen.add(target.pointer)
            if target.schema is False:
                return NEVER
            keys = self.effective(target)
            refs = [k for k in REF_KEYS if k in keys]
            if len(keys) != 1 or not refs:
                break
            notes = {**self.notes(target), **notes}
            target = self.resolve(target, refs[0])
        else:
            self.contradict(site.pointer, "the reference leads back to itself")
            return NEVER
        key = frozenset((target.pointer,))
        name = self.name(key, target)
        if name not in self.defs:
            self.defs[name] = {}
            self.defs[name] = self.build((target,))
        return self.annotate({"$ref": name}, notes, site.pointer)

    def name(self, key: frozenset[str], node: Node) -> str:
        """A new name for a definition: the last word of its pointer, cleaned, made unique."""
        if key in self.names:
            return self.names[key]
        last = unquote(node.pointer.partition("\0")[0].rpartition("/")[2]) or str(
            node.keywords.get("title") or "Root"
        )
        clean = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in last) or "Schema"
        taken = set(self.names.values())
        name, number = clean, 2
        while name in taken:
            name, number = f"{clean}_{number}", number + 1
        self.names[key] = name
        return name

    def full(self, conj: Conj, notes: Json) -> Json:
        """Take a conjunction apart into alternatives and write them. Met again below itself it becomes a definition."""
        key = frozenset(node.pointer for node in conj)
        if key in self.building:
            self.building[key] = True
            return self.annotate({"$ref": self.name(key, conj[0])}, notes, conj[0].pointer)
        if not notes.get("description") and (inner := self.notes_of(conj).get("description")):
            notes = {**notes, "description": inner}
        if key in self.built:
            return self.annotate(self.built[key], notes, conj[0].pointer)
        self.building[key] = False
        try:
            found = self.meet_all(conj)
            branches: list[Json] = []
            for alt in found.settled():
                built = self.write(alt)
                if built not in branches:
                    branches.append(built)
            again = self.building[key]
        finally:
            del self.building[key]
        at = conj[0].pointer
        if not branches:
            return NEVER
        kinds = [b["type"] for b in branches if set(b) == {"type"}]
        built = {"type": kinds} if len(kinds) == len(branches) > 1 else self.together(branches, at)
        if again:
            name = self.name(key, conj[0])
            self.defs[name] = built
            built = {"$ref": name}
        self.built[key] = built
        return self.annotate(built, notes, at)

    # -- writing --

    def write(self, alt: Alt) -> Json:
        built: Json = {"type": alt.kind}
        if alt.kind == "string":
            self.write_values(alt, built)
            self.write_counts(alt, built, "minLength", "maxLength")
        elif alt.kind == "number":
            if alt.integer:
                built["type"] = "integer"
            self.write_values(alt, built)
            self.write_bounds(alt, built)
        elif alt.kind == "boolean":
            if alt.values is not None and len(alt.values) == 1:
                self.lose(alt.at, "enum", "MFJS lists strings and numbers only: either boolean is allowed")
        elif alt.kind == "array":
            if alt.items:
                items = self.build(alt.items)
                if items is NEVER and alt.low:
                    return NEVER
                if items is NEVER:
                    alt = replace(alt, high=0)
                elif items.get("type") != list(ALL_TYPES):
                    built["items"] = items
            self.write_counts(alt, built, "minItems", "maxItems")
        elif alt.kind == "object":
            return self.annotate(self.write_object(alt), alt.notes, alt.at)
        return self.annotate(built, alt.notes, alt.at)

    def write_counts(self, alt: Alt, built: Json, low: str, high: str) -> None:
        if alt.low is not None and alt.low > 0:
            built[low] = int(alt.low)
        if alt.high is not None:
            built[high] = int(alt.high)

    def write_bounds(self, alt: Alt, built: Json) -> None:
        for keyword, value, outward in (("minimum", alt.low, math.floor), ("maximum", alt.high, math.ceil)):
            if value is None:
                continue
            if not expressible(value):
                # The nearest number outside that can be written: 1e-07 as a minimum becomes 0.
                wider = outward(value * 1000) / 1000 if abs(value) < 1 else outward(value)
                self.lose(
                    alt.at,
                    keyword,
                    f"{value} cannot be written without an exponent or as an integer below 2^53",
                )
                if not expressible(wider):
                    continue
                value = wider
            if alt.integer:
                value = (math.ceil if keyword == "minimum" else math.floor)(value)
            built[keyword] = int(value) if value == int(value) else value

    def write_values(self, alt: Alt, built: Json) -> None:
        values = alt.values
        if values is None:
            return
        if len(values) > MAX_ENUM:
            self.lose(alt.at, "enum", f"has {len(values)} values; MFJS allows {MAX_ENUM}")
            return
        if alt.kind == "number":
            if not all(expressible(v) for v in values):
                self.lose(
                    alt.at, "enum", "has a number that MFJS cannot write (an exponent, or 2^53 and above)"
                )
                return
            whole = all(v == int(v) for v in values)
            values = tuple(dict.fromkeys(int(v) if whole else float(v) for v in values))
            if not whole and not all(expressible(v) for v in values):
                self.lose(
                    alt.at, "enum", "has a number that MFJS cannot write (an exponent, or 2^53 and above)"
                )
                return
        built["enum"] = list(values)

    def write_object(self, alt: Alt) -> Json:
        built: Json = {"type": "object"}
        props = dict(alt.props or {})
        for name in alt.required:
            props.setdefault(name, alt.extra)
        for name in props:
            if name in FORBIDDEN_KEYS:
                raise SchemaError(
                    f"{alt.at.partition(chr(0))[0]}/properties/{escape(name)}",
                    f"MFJS reserves the property name {name!r}; rename the property",
                )
        if alt.props is not None or props:
            shown: Json = {}
            for name, conj in props.items():
                value = self.build(conj)
                if value is not NEVER or name in alt.required:
                    shown[name] = value
                else:
                    at = f"{alt.at}/properties/{escape(name)}"
                    self.lose(at, "properties", "no value of this property is possible, so it is left out")
            built["properties"] = shown
        if alt.required:
            built["required"] = list(alt.required)
        if alt.extra:
            extra = self.build(alt.extra)
            if extra is NEVER:
                built["additionalProperties"] = False
            elif extra.get("type") != list(ALL_TYPES):
                built["additionalProperties"] = extra
        return built

    def annotate(self, built: Json, notes: Json, at: str) -> Json:
        """Add title, description and default where MFJS allows them. Never changes `built`."""
        if built is NEVER or not notes:
            return built
        result = {**built}
        for keyword in ("title", "description"):
            if keyword in notes:
                result[keyword] = notes[keyword]
        if "default" in notes:
            result = self.with_default(result, notes["default"], at)
        return result

    def with_default(self, built: Json, default: Any, at: str) -> Json:
        """A default may stand with one scalar type that it belongs to, so it moves into such a branch or goes."""
        kinds = _listed(built.get("type", []))
        if len(kinds) == 1 and _accepts(built, default):
            value = int(default) if built["type"] == "integer" else default
            return {**built, "default": value}
        if len(kinds) > 1 and len(kinds) < len(ALL_TYPES) and default is not None:
            branches: list[Json] = [{"type": kind} for kind in kinds]
            rest = {k: v for k, v in built.items() if k != "type"}
            return self.with_default({"anyOf": branches, **rest}, default, at)
        for index, branch in enumerate(built.get("anyOf", [])):
            if default is not None and isinstance(branch.get("type"), str) and _accepts(branch, default):
                branches = list(built["anyOf"])
                branches[index] = self.with_default(branch, default, at)
                return {**built, "anyOf": branches}
        if default is not None:
            self.lose(at, "default", "MFJS takes a default only beside a scalar type that it belongs to")
        return built

    # -- finishing --

    def finish(self) -> Json:
        root_node = self.node(self.document, "", "")
        seen: set[str] = set()
        notes = self.notes(root_node)
        target = root_node
        while len(keys := self.effective(target)) == 1 and (refs := keys & {*REF_KEYS}):
            if target.pointer in seen:
                raise SchemaError(target.pointer, "the reference leads back to itself")
            seen.add(target.pointer)
            target = self.resolve(target, refs.pop())
            notes = {**self.notes(target), **notes}
        name = self.name(frozenset((target.pointer,)), target)
        self.defs[name] = {}
        self.defs[name] = self.build((target,))
        self.prune()
        root = self.annotate(
            self.as_object(self.defs.get(name, NEVER)),
            {k: v for k, v in notes.items() if k != "default"},
            "",
        )
        if {k: v for k, v in root.items() if k not in ("title", "description")} == {
            k: v for k, v in self.defs[name].items() if k not in ("title", "description")
        }:
            own: str | None = name
        else:
            own = None
        return self.assemble(root, own)

    def prune(self) -> None:
        """Remove what nothing can satisfy: required recursion without an end, `false`, contradictions."""
        alive: set[str] = set()
        while True:
            more = {n for n, built in self.defs.items() if n not in alive and _finite(built, alive)}
            if not more:
                break
            alive |= more
        dead = set(self.defs) - alive
        for name in sorted(name for name in dead if self.defs[name] is not NEVER):
            self.contradict("", f"{name} requires itself and so never ends")
        self.defs = {
            name: self.without(built, dead, name) for name, built in self.defs.items() if name in alive
        }

    def without(self, built: Json, dead: set[str], where: str) -> Json:
        if built is NEVER or built.get("$ref") in dead:
            return NEVER
        result = dict(built)
        if "anyOf" in built:
            branches = [b for b in (self.without(b, dead, where) for b in built["anyOf"]) if b is not NEVER]
            if not branches:
                return NEVER
            if len(branches) == 1:
                return {**branches[0], **{k: v for k, v in built.items() if k != "anyOf"}}
            result["anyOf"] = branches
        if "properties" in built:
            props: Json = {}
            for name, prop in built["properties"].items():
                kept = self.without(prop, dead, f"{where}.{name}")
                if kept is not NEVER:
                    props[name] = kept
                elif name in built.get("required", ()):
                    return NEVER
                else:
                    self.lose(
                        f"/{where}/{escape(name)}", "properties", "no value of this property is possible"
                    )
            result["properties"] = props
        if is_object(built.get("additionalProperties")):
            extra = self.without(built["additionalProperties"], dead, where)
            result["additionalProperties"] = False if extra is NEVER else extra
        if "items" in built:
            items = self.without(built["items"], dead, where)
            if items is NEVER:
                if built.get("minItems", 0) > 0:
                    return NEVER
                del result["items"]
                result["maxItems"] = 0
            else:
                result["items"] = items
        return result

    def as_object(self, root: Json) -> Json:
        """The root as one object schema. Null goes; alternatives of objects become one that accepts them all."""
        if root is NEVER:
            at, why = self.contradictions[0] if self.contradictions else ("", "it contradicts itself")
            raise SchemaError(at, f"the schema accepts no value: {why}")
        if "$ref" in root:
            return self.as_object(
                {**self.defs[root["$ref"]], **{k: v for k, v in root.items() if k != "$ref"}}
            )
        advice = "MFJS wants an object at the root: put it into a property of one"
        if "anyOf" not in root:
            kinds = set(_listed(root["type"]))
            if kinds == {"object"}:
                return root
            loose = kinds == {"object", "null"} or kinds >= set(ALL_TYPES)
            if "object" in kinds and loose and not self.exact_root:
                if kinds == {"object", "null"}:
                    self.lose("", "type", "null is not possible: MFJS wants an object at the root")
                return {**root, "type": "object"}
            raise RootError("", f"the root is {'/'.join(sorted(kinds))}; {advice}")
        if self.exact_root:
            raise RootError("", f"the root has alternatives; {advice}")
        branches: list[Json] = []
        for branch in root["anyOf"]:
            if branch.get("type") == "null":
                self.lose("", "type", "null is not possible: MFJS wants an object at the root")
                continue
            branches.append(self.as_object(branch))
        if not branches:
            raise RootError("", f"the root is null; {advice}")
        notes = {k: v for k, v in root.items() if k != "anyOf"}
        if len(branches) == 1:
            return {**branches[0], **notes}
        self.lose("", "anyOf", "alternatives at the root became one object that allows each of them")
        return {**_one_object(branches), **notes}

    def assemble(self, root: Json, own: str | None) -> Json:
        """Put the root and the definitions it reaches into one document."""
        defs = dict(self.defs)
        # A slash in any key below $defs is refused (walle, keyword_validators.go): such a definition moves to where it is
        # used, unless it is recursive; and so does, then, the one that it moved into.
        while True:
            names = (n for n in defs if n != own and _has_slash(defs[n]) and n not in _reached(defs[n], defs))
            if (name := next(names, None)) is None:
                break
            body = defs.pop(name)
            defs = {n: _inline(built, name, body) for n, built in defs.items()}
            root = _inline(root, name, body)
        used = _reached(root, defs)
        pointers = {name: "#" if name == own else f"#/$defs/{name}" for name in defs}
        bodies = {**defs, own: root} if own else defs
        result = _linked(root, pointers, bodies)
        kept = {name: _linked(defs[name], pointers, bodies) for name in defs if name in used and name != own}
        if kept:
            result["$defs"] = kept
        return result


def _is_not_anything(keywords: Json) -> bool:
    return keywords.get("not") is True or keywords.get("not") == {}


def _listed(value: Any) -> list[Any]:
    return list(value) if is_list(value) else [value]


def _enums_joined(branches: list[Json]) -> list[Json]:
    """Branches with nothing but an `enum` of strings become one: that is what a union of constants means."""
    plain = [b for b in branches if b.keys() == {"type", "enum"} and b["type"] == "string"]
    values = list(dict.fromkeys(v for b in plain for v in b["enum"]))
    if len(plain) < 2 or len(values) > MAX_ENUM:
        return branches
    first = branches.index(plain[0])
    kept = [b for b in branches if b not in plain]
    return [*kept[:first], {"type": "string", "enum": values}, *kept[first:]]


def _accepts(built: Json, value: Any) -> bool:
    """Whether a scalar belongs to a schema with a single `type`."""
    kind = built.get("type")
    if "enum" in built and not any(same(value, v) for v in built["enum"]):
        return False
    if kind == "string":
        return isinstance(value, str) and built.get("minLength", 0) <= len(value) <= built.get(
            "maxLength", math.inf
        )
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    if kind not in ("integer", "number") or not is_number(value) or not expressible(value):
        return False
    if kind == "integer" and value != int(value):
        return False
    return bool(built.get("minimum", -math.inf) <= value <= built.get("maximum", math.inf))


def _finite(built: Json, alive: set[str]) -> bool:
    """Whether some finite value satisfies a built schema, given definitions already known to have one."""
    if built is NEVER:
        return False
    if "$ref" in built:
        return built["$ref"] in alive
    if "anyOf" in built:
        return any(_finite(branch, alive) for branch in built["anyOf"])
    if built.get("minItems", 0) > 0 and "items" in built:
        return _finite(built["items"], alive)
    required = built.get("required", ())
    return all(_finite(built["properties"][name], alive) for name in required)


def _subschemas(built: Json) -> Iterator[Json]:
    yield from built.get("anyOf", ())
    yield from built.get("properties", {}).values()
    for keyword in ("items", "additionalProperties"):
        if is_object(built.get(keyword)):
            yield built[keyword]


def _changed(built: Json, change: Callable[[Json], Json]) -> Json:
    """A copy with every direct subschema replaced."""
    result = dict(built)
    if "anyOf" in built:
        result["anyOf"] = [change(branch) for branch in built["anyOf"]]
    if "properties" in built:
        result["properties"] = {name: change(prop) for name, prop in built["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if is_object(built.get(keyword)):
            result[keyword] = change(built[keyword])
    return result


def _reached(built: Json, defs: Mapping[str, Json]) -> set[str]:
    """Names of the definitions a schema refers to, directly or through others."""
    found: set[str] = set()
    todo = [built]
    while todo:
        here = todo.pop()
        name = here.get("$ref", "")
        if name in defs and name not in found:
            found.add(name)
            todo.append(defs[name])
        todo.extend(_subschemas(here))
    return found


def _has_slash(built: Json) -> bool:
    return any("/" in name for name in built.get("properties", ())) or any(
        _has_slash(s) for s in _subschemas(built)
    )


def _inline(built: Json, name: str, body: Json) -> Json:
    if built.get("$ref") == name:
        return {**body, **{k: v for k, v in built.items() if k != "$ref"}}
    return _changed(built, lambda inner: _inline(inner, name, body))


def _linked(built: Json, pointers: Mapping[str, str], bodies: Mapping[str, Json]) -> Json:
    """
    A copy whose references are pointers.

    A title or description beside a reference must not be repeated in the target (walle: "conflicting keywords found
    after $ref expansion"). The title gives way; the description stays, beside an `anyOf` with the reference alone.
    """
    if "$ref" in built:
        target = bodies.get(built["$ref"], {})
        link: Json = {"$ref": pointers[built["$ref"]]}
        notes = {k: v for k, v in built.items() if k != "$ref" and not (k == "title" and k in target)}
        if notes.get("description") == target.get("description"):
            notes.pop("description", None)
        if "description" in notes and "description" in target:
            return {**notes, "anyOf": [link]}
        return {**link, **notes}
    return _changed(built, lambda inner: _linked(inner, pointers, bodies))


def _without_titles(built: Json) -> Json:
    result = _changed({k: v for k, v in built.items() if k != "title"}, _without_titles)
    if "$defs" in built:
        result["$defs"] = {name: _without_titles(body) for name, body in built["$defs"].items()}
    return result


def _one_object(branches: list[Json]) -> Json:
    """One object schema that accepts whatever one of several accepts."""
    anything: Json = {"type": list(ALL_TYPES)}
    result: Json = {"type": "object"}
    props: Json = {}
    for name in dict.fromkeys(name for branch in branches for name in branch.get("properties", ())):
        shown: list[Json] = []
        for branch in branches:
            extra = branch.get("additionalProperties", True)
            if name in branch.get("properties", {}):
                prop = branch["properties"][name]
            elif extra is False:
                continue
            else:
                prop = anything if extra is True else extra
            for variant in prop["anyOf"] if set(prop) == {"anyOf"} else [prop]:
                if variant not in shown:
                    shown.append(variant)
        props[name] = shown[0] if len(shown) == 1 else {"anyOf": shown}
    if props:
        result["properties"] = props
    required = [
        n for n in branches[0].get("required", ()) if all(n in b.get("required", ()) for b in branches)
    ]
    if required:
        result["required"] = required
    extras = [branch.get("additionalProperties", True) for branch in branches]
    if all(extra is False for extra in extras):
        result["additionalProperties"] = False
    elif all(extra is not True for extra in extras):
        open_ones = [
            extra for i, extra in enumerate(extras) if extra is not False and extra not in extras[:i]
        ]
        result["additionalProperties"] = open_ones[0] if len(open_ones) == 1 else {"anyOf": open_ones}
    return result


def _copied(value: Any, pointer: str = "", depth: int = 0) -> Any:
    """A plain copy of JSON data: dicts with string keys, lists, scalars. What JSON cannot hold is refused."""
    if depth > 400:
        raise SchemaError(pointer[:200], "the schema is nested too deeply")
    if isinstance(value, Mapping):
        result: Json = {}
        for key, child in cast("Mapping[Any, object]", value).items():
            if not isinstance(key, str):
                raise SchemaError(pointer, f"a key of a JSON object is a string, not {key!r}")
            result[key] = _copied(child, f"{pointer}/{escape(key)}", depth + 1)
        return result
    if isinstance(value, (list, tuple)):
        members = cast("Sequence[Any]", value)
        return [_copied(child, f"{pointer}/{i}", depth + 1) for i, child in enumerate(members)]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise SchemaError(pointer, f"not JSON: {type(value).__name__}")


def to_mfjs(
    schema: Mapping[str, Any], *, report: list[Loss] | None = None, describe: bool = False
) -> dict[str, Any]:
    """
    A JSON schema as MFJS: a new dict for `parameters` or `json_schema.schema`; the input is left alone.

    The result accepts every object that `schema` accepts, and perhaps more: constraints that MFJS lacks are dropped or
    weakened (`oneOf` → `anyOf`, tuples → any of their items in any place, exclusive → inclusive bounds of floats), and
    each of them is appended to `report`. With `describe` the dropped `format` and `pattern` are told to the model in
    the description instead. `allOf` is worked out, `$ref` may point anywhere inside the document (also by `$id` or
    anchor), contradictory branches disappear.

    Raises:
        SchemaError: It cannot be said at all: the root is not an object, a property has a name MFJS reserves, a
            reference leaves the document, nothing satisfies the schema (required recursion without an end included),
            it is too large for the server, or it is no JSON schema to begin with.

    """
    return translate(schema, report, describe=describe, exact_root=False)


def mfjs_tool(definition: Mapping[str, Any], *, report: list[Loss] | None = None) -> dict[str, Any]:
    """
    A tool definition of another API as Kimi takes it: a new dict whose schema is MFJS.

    Understands `{"type": "function", "function": {…}}`, the inner object alone, and the forms of MCP (`inputSchema`) and
    of Anthropic (`input_schema`). What is no function, `$web_search` for instance, is only copied.

    Raises:
        SchemaError: See `to_mfjs`; the pointer is one into the schema of the parameters.

    """
    kind = definition.get("type", "function")
    if kind != "function":
        return cast("Json", _copied(definition))
    inner = cast("Mapping[str, Any]", definition.get("function", definition))
    keys = ("parameters", "inputSchema", "input_schema")
    schema = next((inner[key] for key in keys if inner.get(key)), None)
    function: Json = {"name": str(inner.get("name", ""))}
    if isinstance(text := inner.get("description"), str) and text:
        function["description"] = text
    function["parameters"] = to_mfjs(schema if schema is not None else {"type": "object"}, report=report)
    if isinstance(inner.get("strict"), bool):
        function["strict"] = inner["strict"]
    return {"type": "function", "function": function}


def translate(
    schema: Mapping[str, Any], report: list[Loss] | None, *, describe: bool, exact_root: bool
) -> dict[str, Any]:
    try:
        document = _copied(schema)
        if not is_object(document):
            raise SchemaError("", f"a schema for MFJS is an object, not {kind_of(document)}")
        translation = _Translation(document, describe=describe, exact_root=exact_root)
        result = translation.finish()
    except RecursionError:
        raise SchemaError("", "the schema is nested too deeply") from None
    problems = check_mfjs(result)
    if len(problems) == 1 and problems[0].endswith("bytes"):
        # Titles say what names say already; without them many a generated schema fits.
        slim = _without_titles(result)
        if not check_mfjs(slim):
            translation.lose("", "title", f"left out everywhere, to stay below {MAX_SIZE} bytes")
            result, problems = slim, []
    if problems:
        pointer, _, reason = problems[0].partition(": ")
        raise SchemaError("" if pointer == "/" else pointer, f"{reason} (in the translated schema)")
    if report is not None:
        report.extend(translation.losses.values())
    return result
