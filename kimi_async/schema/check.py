"""
What MFJS forbids in a schema, at the two levels of Moonshot's own validator that matter.

Learned from https://github.com/MoonshotAI/walle: its documents, its code and its cases. The documents are narrower than
the validator in some places (a default of any type passes, so do `pattern`, `{}` for anything and enums of booleans);
what passes there at its severest level passes here. Written apart from the translation, so that one tests the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from .rules import (
    FORBIDDEN_KEYS,
    MAX_BRANCHES,
    MAX_DEPTH,
    MAX_ENUM,
    MAX_INT,
    MAX_PROPERTIES,
    MAX_SIZE,
    TYPES,
    Json,
    escape,
    is_list,
    is_object,
)

__all__ = ["Level", "check_mfjs"]

Level = Literal["ultra", "strict"]
"""`ultra` is all of MFJS; `strict` is what the servers refuse, where keywords that MFJS lacks are merely ignored."""

_ANNOTATIONS: Final = frozenset(("title", "description"))
_ROOT_ONLY: Final = frozenset(("$defs", "$id"))
_SCALARS: Final = frozenset(("string", "number", "integer", "boolean", "null"))
_KEYWORDS: Final = {
    "object": frozenset(("type", "properties", "required", "additionalProperties", "default")),
    "array": frozenset(("type", "items", "minItems", "maxItems", "default")),
    "string": frozenset(("type", "minLength", "maxLength", "pattern", "enum", "default")),
    "number": frozenset(("type", "minimum", "maximum", "enum", "default")),
    "integer": frozenset(("type", "minimum", "maximum", "enum", "default")),
    "boolean": frozenset(("type", "enum", "default")),
    "null": frozenset(("type", "enum", "default")),
}
# Beside these a type may be missing at the strict level: they say by themselves what is meant.
_COMBINATIONS: Final = frozenset(("allOf", "oneOf", "const", "not", "if"))
_RANGES: Final = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))


def check_mfjs(schema: Any, *, level: Level = "ultra") -> list[str]:
    """
    What MFJS forbids in a schema, one sentence each, `"<JSON pointer>: <problem>"`, in the order met; empty if nothing.

    The root's pointer is written `/`, as walle does. The root must be an object (or `{}`, for anything): walle takes any,
    the servers do not. The limits are those of the shipped validator; its prose names smaller ones.
    """
    if not is_object(schema):
        return ["/: the root must be an object schema"]
    check = _Check(schema, ultra=level == "ultra")
    if schema and schema.get("type") not in ("object", ["object"]):
        check.no("", "the root must have type object")
    check.document()
    return check.problems


class _Check:
    def __init__(self, root: Json, *, ultra: bool) -> None:
        self.root = root
        self.ultra = ultra
        self.problems: list[str] = []
        self.defs: Json = {}
        self.counted = 0

    def no(self, pointer: str, text: str) -> None:
        self.problems.append(f"{pointer or '/'}: {text}")

    def document(self) -> None:
        defs = self.root.get("$defs", {})
        if is_object(defs):
            self.defs = defs
        else:
            self.no("/$defs", "$defs must be an object")
        self.visit(self.root, "", 0)
        for name, body in self.defs.items():
            if not name or "/" in name or any("/" in key for key in _keys(body)):
                self.no("/$defs", f"{name!r}: no name in a definition may be empty or hold a slash")
            self.visit(body, f"/$defs/{escape(name)}", 0)
        if self.counted > MAX_PROPERTIES:
            self.no("", f"more than {MAX_PROPERTIES} properties")
        text = json.dumps(self.root, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode("utf-8", "surrogatepass")) > MAX_SIZE:
            self.no("", f"more than {MAX_SIZE} bytes")
        if self.problems:
            return
        if not all(self.ends(walk) for walk in ((any, True), (all, False))[: 1 + self.ultra]):
            self.no("", "recursion without an end")
        elif (depth := self.depth_of()) > MAX_DEPTH:
            self.no("", f"{depth} levels of properties, references followed; {MAX_DEPTH} are allowed")

    def target(self, ref: object) -> Any:
        """What a reference points to: the root, a definition, or a place below one; None if nothing."""
        if ref == "#":
            return self.root
        if not isinstance(ref, str) or not ref.startswith("#/$defs/"):
            return None
        found: object = self.defs
        for token in ref.removeprefix("#/$defs/").split("/"):
            found = found.get(token) if is_object(found) else None
        return found

    # --- places ---

    def visit(self, value: object, at: str, depth: int) -> None:
        if not is_object(value):
            self.no(at, "a subschema must be an object")
            return
        if depth > MAX_DEPTH:
            self.no(at, f"more than {MAX_DEPTH} levels of properties")
            return
        if not value:
            return  # anything
        for key in ("title", "description", "$id", "pattern"):
            if key in value and not isinstance(value[key], str):
                self.no(f"{at}/{key}", f"{key} must be a string")
        for key in sorted(_ROOT_ONLY & value.keys()) if at and self.ultra else ():
            self.no(f"{at}/{key}", f"{key} is allowed at the root only")
        if "$ref" in value:
            self.reference(value, at)
        elif "anyOf" in value:
            self.union(value, at, depth)
        elif "type" in value:
            self.typed(value, at, depth)
        elif value.keys() - _ROOT_ONLY and (self.ultra or not _COMBINATIONS & value.keys()):
            self.no(at, "type is missing")

    def beside(self, value: Json, head: str, at: str) -> None:
        """What may stand beside a reference or a union: annotations; at the strict level anything but a type."""
        allowed = _ANNOTATIONS | (_ROOT_ONLY if not at else frozenset[str]()) | {head}
        for key in sorted(value.keys() - allowed):
            if self.ultra or key in ("type", "anyOf"):
                self.no(f"{at}/{escape(key)}", f"{key} must not stand beside {head}")

    def reference(self, value: Json, at: str) -> None:
        self.beside(value, "$ref", at)
        target = self.target(value["$ref"])
        if not is_object(target):
            self.no(f"{at}/$ref", f"{value['$ref']!r} is neither # nor the name of a definition")
        elif shared := sorted((value.keys() - {"$ref"}) & target.keys()):
            self.no(f"{at}/$ref", f"{shared[0]} stands here and in the definition")

    def union(self, value: Json, at: str, depth: int) -> None:
        self.beside(value, "anyOf", at)
        branches = value["anyOf"]
        if not is_list(branches) or not 1 <= len(branches) <= MAX_BRANCHES:
            self.no(f"{at}/anyOf", f"anyOf must be a list of 1 to {MAX_BRANCHES} schemas")
            return
        outer = value.keys() - _ANNOTATIONS - {"anyOf"}
        for index, branch in enumerate(branches):
            if is_object(branch) and (shared := sorted(outer & branch.keys())):
                self.no(f"{at}/anyOf/{index}", f"{shared[0]} stands here and beside anyOf")
            self.visit(branch, f"{at}/anyOf/{index}", depth)

    def typed(self, value: Json, at: str, depth: int) -> None:
        kinds = value["type"] if is_list(value["type"]) else [value["type"]]
        if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
            self.no(f"{at}/type", "type must name JSON types")
            return
        if self.ultra and len(set(kinds)) != len(kinds):
            self.no(f"{at}/type", "a type is named twice")
        if len(kinds) > 1 and not self.several(value, kinds, at):
            return
        if self.ultra and len(kinds) == 1:
            allowed = _KEYWORDS[kinds[0]] | _ANNOTATIONS | _ROOT_ONLY
            for key in sorted(value.keys() - allowed):
                self.no(f"{at}/{escape(key)}", f"{key} is not allowed with type {kinds[0]}")
        if "enum" in value:
            self.enum(value["enum"], kinds, f"{at}/enum")
        if "default" in value and self.ultra and not any(_is(value["default"], kind) for kind in kinds):
            self.no(f"{at}/default", f"the default is not a value of type {'/'.join(kinds)}")
        for low, high in _RANGES:
            self.bounds(value, low, high, kinds[0], at)
        if "items" in value:
            self.visit(value["items"], f"{at}/items", depth)
        extra = value.get("additionalProperties", True)
        if not isinstance(extra, bool):
            self.visit(extra, f"{at}/additionalProperties", depth)
        self.properties(value, at, depth)

    def several(self, value: Json, kinds: list[str], at: str) -> bool:
        """Several types: nothing stands beside them but annotations, or an enum where null is the second of two."""
        beside = sorted(value.keys() - _ANNOTATIONS - _ROOT_ONLY - {"type"})
        if "enum" in beside and len(kinds) == 2 and "null" in kinds and set(kinds) <= _SCALARS:
            if self.ultra and beside != ["enum"]:
                self.no(f"{at}/{escape(beside[0])}", f"{beside[0]} must not stand beside several types")
                return False
            return True
        if "enum" in beside:
            self.no(f"{at}/type", "enum goes with a scalar and null only")
            return False
        if beside:
            self.no(f"{at}/{escape(beside[0])}", f"{beside[0]} must not stand beside several types")
        return not beside

    def properties(self, value: Json, at: str, depth: int) -> None:
        named = value.get("properties", {})
        if not is_object(named):
            self.no(f"{at}/properties", "properties must be an object")
            named = {}
        self.counted += len(named)
        for name, child in named.items():
            if name in FORBIDDEN_KEYS:
                self.no(f"{at}/properties/{escape(name)}", f"a property must not be called {name}")
            self.visit(child, f"{at}/properties/{escape(name)}", depth + 1)
        required = value.get("required", [])
        if not is_list(required) or not all(isinstance(name, str) for name in required):
            self.no(f"{at}/required", "required must be a list of strings")
            return
        for name in required:
            if name not in named:
                self.no(f"{at}/required", f"{name!r} is not in properties")
        if self.ultra and len(set(required)) != len(required):
            self.no(f"{at}/required", "a name stands twice")

    # --- values ---

    def enum(self, values: object, kinds: list[str], at: str) -> None:
        if not is_list(values) or not values:
            self.no(at, "enum must be a list that is not empty")
            return
        if len(values) > MAX_ENUM:
            self.no(at, f"enum has more than {MAX_ENUM} values")
        for value in values:
            if not any(_fits(value, kind) for kind in kinds):
                self.no(at, f"{value!r} is not a value of type {'/'.join(kinds)} that MFJS can write")

    def bounds(self, value: Json, low: str, high: str, kind: str, at: str) -> None:
        for key in (low, high):
            if key not in value:
                continue
            counts = key not in ("minimum", "maximum")
            fine = _integer(value[key]) if counts or kind == "integer" else _number(value[key])
            if not fine or (counts and value[key] < 0):
                self.no(f"{at}/{key}", f"{value[key]!r} is not a bound that MFJS can write")
                return
        if low in value and high in value and value[low] > value[high]:
            self.no(f"{at}/{low}", f"{low} is above {high}")

    # --- recursion ---

    def ends(self, reading: tuple[Callable[[Iterator[bool]], bool], bool]) -> bool:
        """
        Whether the root has a finite value, in one of two readings.

        The validator's: an object ends where one required property does, an array where its items do. And the true one,
        in which all required properties must end, and an array may be empty unless `minItems` says otherwise.
        """
        enough, filled = reading
        ended: set[str] = set()

        def finite(s: Json) -> bool:
            if "$ref" in s:
                return s["$ref"] in ended
            if "anyOf" in s:
                return any(finite(branch) for branch in s["anyOf"])
            kinds = s.get("type", "null")
            kinds = kinds if is_list(kinds) else [kinds]
            if _SCALARS & set(kinds):
                return True
            if "array" in kinds and (
                not s.get("items") or not (filled or s.get("minItems")) or finite(s["items"])
            ):
                return True
            required = s.get("required", ())
            return "object" in kinds and (
                not required or enough(finite(s["properties"][name]) for name in required)
            )

        refs = {s["$ref"] for s in _places([self.root, *self.defs.values()]) if "$ref" in s}
        while more := {ref for ref in refs - ended if finite(self.target(ref))}:
            ended |= more
        return finite(self.root)

    def depth_of(self) -> int:
        """
        Levels of properties with references followed, as walle counts them.

        A reference back to a definition that is being followed adds nothing. Where recursion can be entered at several
        places walle looks for the longest way through, in exponential time; here each definition is measured once.
        """
        known: dict[str, int] = {}
        active = {"#"}

        def measure(s: Json) -> int:
            deepest = 0
            ref = s.get("$ref")
            if isinstance(ref, str) and ref not in active:
                if ref not in known:
                    active.add(ref)
                    known[ref] = measure(self.target(ref))
                    active.discard(ref)
                deepest = known[ref]
            for inner in s.get("properties", {}).values():
                deepest = max(deepest, 1 + measure(inner))
            for inner in s.get("anyOf", ()):
                deepest = max(deepest, measure(inner))
            for key in ("items", "additionalProperties"):
                if is_object(s.get(key)):
                    deepest = max(deepest, measure(s[key]))
            return deepest

        return measure(self.root)


def _places(schemas: list[Json]) -> Iterator[Json]:
    """Every subschema that the validator looks into."""
    todo = list(schemas)
    while todo:
        here = todo.pop()
        yield here
        todo += here.get("properties", {}).values()
        todo += here.get("anyOf", ())
        todo += [here[key] for key in ("items", "additionalProperties") if is_object(here.get(key))]


def _keys(value: object) -> Iterator[str]:
    if is_object(value):
        for key, child in value.items():
            yield key
            yield from _keys(child)
    elif is_list(value):
        for child in value:
            yield from _keys(child)


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INT


def _number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value) and "e" not in json.dumps(value).lower()
    return _integer(value)


def _is(value: object, kind: str) -> bool:
    """Whether a default is of a type. The validator does not look; its documents ask for it."""
    if kind in ("object", "array"):
        return is_object(value) if kind == "object" else is_list(value)
    return _fits(value, kind)


def _fits(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return _integer(value)
        case "number":
            return _number(value)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case _:
            return False
