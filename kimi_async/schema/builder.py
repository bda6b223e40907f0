"""
Places as MFJS: references and plain unions keep their form, and only what MFJS lacks is taken apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from .alternatives import NEVER, Alt, Conj, Node, expressible, is_number
from .document import Document
from .keywords import DROPPED, EFFECTIVE, HINTS, REF_KEYS, is_not_anything
from .reader import Reader
from .rules import (
    ALL_TYPES,
    FORBIDDEN_KEYS,
    MAX_BRANCHES,
    MAX_ENUM,
    Json,
    SchemaError,
    escape,
    is_list,
    is_object,
    same,
)

__all__ = ["Builder", "listed"]


class Builder:
    """Writes the places of a document. `defs` fills with definitions, by name; references are names, not pointers."""

    def __init__(self, reader: Reader) -> None:
        self.reader: Reader = reader
        self.document: Document = reader.document
        self.names: dict[frozenset[str], str] = {}
        self.defs: dict[str, Json] = {}
        self.building: dict[frozenset[str], bool] = {}
        self.built: dict[frozenset[str], Json] = {}
        self.depth: int = 0

    def effective(self, node: Node) -> set[str]:
        keywords = node.keywords
        if self.document.legacy and "$ref" in keywords:
            return {"$ref"}
        found = {k for k in EFFECTIVE if k in keywords and (keywords[k] is not None or k == "const")}
        if is_not_anything(keywords):
            found.add("not")
        if keywords.get("nullable") is not True:
            found.discard("nullable")
        if isinstance(keywords.get("required"), bool):
            found.discard("required")
            self.document.lose(
                node.pointer,
                "required",
                "a boolean: it belongs, as a list of names, into the schema of the object",
            )
        meaningless: tuple[tuple[str, object], ...] = (
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
        self.reader.step()
        self.depth += 1
        try:
            if self.depth > 150:
                raise SchemaError(conj[0].pointer.partition("\0")[0], "the schema is nested too deeply")
            for node in conj:
                if node.schema is False:
                    self.document.contradict(node.pointer, "the schema `false` accepts nothing")
                    return NEVER
            solid = [n for n in conj if n.branches is not None or self.effective(n)]
            notes: Json = {}
            for node in conj:
                notes = {**self.document.notes(node), **notes}
                if node not in solid:
                    for keyword, reason in DROPPED.items():
                        if node.keywords.get(keyword) not in (None, False, {}):
                            self.document.lose(node.pointer, keyword, reason)
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
            inner = self.document.artificial(rest, f"{node.pointer}\0nonnull", node)
            null = self.document.artificial({"type": "null"}, f"{node.pointer}\0null", node)
            if not any(alt.kind == "null" for alt in self.reader.alts(inner).settled()):
                if keys - {"nullable", "type", "enum"}:
                    return self.union(node, [(inner,), (null,)], notes)
                return self.full((node,), notes)
            return self.one(inner, notes)
        applicators = keys & {*REF_KEYS, "allOf", "anyOf", "oneOf"}
        if len(applicators) == 1 and keys - applicators <= {"type"}:
            (keyword,) = applicators
            targets = (
                [self.document.resolve(node, keyword)]
                if keyword in REF_KEYS
                else self.document.list_of(node, keyword)
            )
            if (keyword != "allOf" or len(targets) == 1) and self.covered(node, targets):
                for dropped, reason in DROPPED.items():
                    if node.keywords.get(dropped) not in (None, False, {}):
                        self.document.lose(node.pointer, dropped, reason)
                if keyword in REF_KEYS:
                    return self.reference(targets[0], notes, node)
                if len(targets) == 1:
                    inner_notes = self.document.notes(targets[0])
                    return self.build_with(targets[0], {**inner_notes, **notes})
                if keyword == "oneOf":
                    self.document.lose(
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
        types = self.document.types(node)
        if types is None:
            return True
        kinds = {"number" if t == "integer" else t for t in types}
        for target in targets:
            found = self.reader.alts(target)
            if not found.typed or any(alt.kind not in kinds for alt in found.alts):
                return False
            if "number" not in types and any(alt.kind == "number" and not alt.integer for alt in found.alts):
                return False
        return True

    def union(self, node: Node, branches: list[Conj], notes: Json) -> Json:
        key = frozenset((node.pointer,))
        if key in self.built:
            return self.annotate(self.built[key], notes, node.pointer)
        if any(node.pointer == p for conj in branches for n in conj for p in self.document.heads(n)):
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
            self.document.lose(at, "anyOf", f"more than {MAX_BRANCHES} alternatives")
            kinds = list(dict.fromkeys(k for b in branches for k in listed(b.get("type", list(ALL_TYPES)))))
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
            notes = {**self.document.notes(target), **notes}
            target = self.document.resolve(target, refs[0])
        else:
            self.document.contradict(site.pointer, "the reference leads back to itself")
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
        if not notes.get("description") and (inner := self.reader.notes_of(conj).get("description")):
            notes = {**notes, "description": inner}
        if key in self.built:
            return self.annotate(self.built[key], notes, conj[0].pointer)
        self.building[key] = False
        try:
            found = self.reader.meet_all(conj)
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
            if alt.pattern is not None:
                built["pattern"] = alt.pattern
        elif alt.kind == "number":
            if alt.integer:
                built["type"] = "integer"
            self.write_values(alt, built)
            self.write_bounds(alt, built)
        elif alt.kind == "boolean":
            if alt.values is not None and len(alt.values) == 1:
                built["enum"] = list(alt.values)
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
                self.document.lose(
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
            self.document.lose(alt.at, "enum", f"has {len(values)} values; MFJS allows {MAX_ENUM}")
            return
        if alt.kind == "number":
            if not all(expressible(v) for v in values):
                self.document.lose(
                    alt.at, "enum", "has a number that MFJS cannot write (an exponent, or 2^53 and above)"
                )
                return
            values = tuple(dict.fromkeys(int(v) if v == int(v) else v for v in values))
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
                    self.document.lose(
                        at, "properties", "no value of this property is possible, so it is left out"
                    )
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
        """A default may stand with one type that it belongs to, so it moves into such a branch or goes."""
        kinds = listed(built.get("type", []))
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
            self.document.lose(at, "default", "MFJS takes a default only beside a type that it belongs to")
        return built


def listed(value: object) -> list[Any]:
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
    """Whether a value belongs to a schema with a single `type`, as far as that schema says without its subschemas."""
    kind = built.get("type")
    if kind in ("object", "array"):
        return is_object(value) if kind == "object" else is_list(value)
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
