"""
Places as alternatives: what a schema accepts, type by type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .alternatives import (
    Alt,
    Alts,
    Conj,
    Node,
    everything,
    is_integral,
    is_number,
    meet,
    tighter_high,
    tighter_low,
)
from .document import Document
from .keywords import DROPPED, HINTS, REF_KEYS, is_not_anything
from .rules import ALL_TYPES, Json, SchemaError, escape, is_list, is_object, kind_of, same

__all__ = ["Reader"]


class Reader:
    """Reads the places of a document. A place is read once."""

    def __init__(self, document: Document) -> None:
        self.document: Document = document
        self.memo: dict[str, Alts] = {}
        self.expanding: set[str] = set()
        self.cut: int = 0
        self.steps: int = 0

    def base(self, node: Node) -> dict[str, Alt]:
        """One alternative for each type with the constraints this place puts on it."""
        at = node.pointer
        keywords = node.keywords
        alts = {kind: Alt(kind, at) for kind in ALL_TYPES}
        text = alts["string"]
        text.low, text.high = self.document.count(node, "minLength"), self.document.count(node, "maxLength")
        if isinstance(pattern := keywords.get("pattern"), str):
            text.pattern = pattern
        elif pattern is not None:
            self.document.lose(at, "pattern", f"it must be a string, not {kind_of(pattern)}")
        self.number(node, alts["number"])
        self.object(node, alts["object"])
        self.array(node, alts["array"])
        for keyword, reason in DROPPED.items():
            if keyword in keywords and keywords[keyword] not in (None, False) and keywords[keyword] != {}:
                self.document.lose(at, keyword, reason)
        return alts

    def number(self, node: Node, alt: Alt) -> None:
        low, high = self.document.bound(node, "minimum"), self.document.bound(node, "maximum")
        above, below = (
            self.document.bound(node, "exclusiveMinimum"),
            self.document.bound(node, "exclusiveMaximum"),
        )
        if node.keywords.get("exclusiveMinimum") is True:
            above, low = low, None
        if node.keywords.get("exclusiveMaximum") is True:
            below, high = high, None
        step: Any = node.keywords.get("multipleOf")
        types = self.document.types(node)
        whole = types is not None and "integer" in types and "number" not in types
        if is_integral(step) and step != 0:
            # A multiple of a whole number is whole, and being whole is as much of it as MFJS can say.
            whole = True
            if abs(step) != 1:
                self.document.lose(node.pointer, "multipleOf", "MFJS cannot ask for multiples")
        elif step is not None:
            self.document.lose(node.pointer, "multipleOf", "MFJS cannot ask for multiples")
        if above is not None:
            if whole:
                low = tighter_low(low, math.floor(above) + 1)
            else:
                low = tighter_low(low, above)
                self.document.lose(
                    node.pointer, "exclusiveMinimum", "became minimum: MFJS has inclusive bounds only"
                )
        if below is not None:
            if whole:
                high = tighter_high(high, math.ceil(below) - 1)
            else:
                high = tighter_high(high, below)
                self.document.lose(
                    node.pointer, "exclusiveMaximum", "became maximum: MFJS has inclusive bounds only"
                )
        if whole:
            low = None if low is None else math.ceil(low)
            high = None if high is None else math.floor(high)
        alt.low, alt.high, alt.integer = low, high, whole

    def object(self, node: Node, alt: Alt) -> None:
        properties: Json | None = self.document.get(node, "properties", dict, "an object of schemas")
        if "properties" in node.keywords and node.keywords["properties"] is not None:
            alt.props = {name: (self.document.child(node, "properties", name),) for name in properties or {}}
        extra: Conj = ()
        if isinstance(node.keywords.get("additionalProperties"), (dict, bool)):
            extra = (self.document.child(node, "additionalProperties"),)
        elif node.keywords.get("additionalProperties") is not None:
            self.document.lose(node.pointer, "additionalProperties", "it must be a schema or a boolean")
        patterns = self.document.get(node, "patternProperties", dict, "an object of schemas")
        if patterns:
            # Names cannot be matched, so whatever some pattern allows is allowed for every name. Only a pattern that
            # matches all names keeps its strength.
            matched = [self.document.child(node, "patternProperties", name) for name in patterns]
            if len(matched) == 1 and next(iter(patterns)) in ("", ".*", "^.*$", ".*$", "^.*", "^"):
                extra = (matched[0],)
            elif extra:
                extra = (
                    self.document.union_of(node, "patternProperties", [(m,) for m in matched] + [extra]),
                )
            alt.patterned = True
            self.document.lose(
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
            extra = (self.document.artificial(False, f"{node.pointer}\0closed", node),)
        alt.extra = extra
        required = node.keywords.get("required")
        if isinstance(required, bool):  # draft 3, and a common slip
            self.document.lose(
                node.pointer,
                "required",
                "a boolean: it belongs, as a list of names, into the schema of the object",
            )
        elif required is not None:
            if not is_list(required) or not all(isinstance(name, str) for name in required):
                self.document.lose(node.pointer, "required", "it must be a list of property names")
            named = [name for name in required if isinstance(name, str)] if is_list(required) else []
            wanted = list(dict.fromkeys(named))
            if alt.closed:
                # Taken at its word nothing satisfies this; it is nearly always a name that has changed since.
                for name in wanted:
                    if name not in (alt.props or {}):
                        self.document.lose(
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
        names = self.document.child(node, "propertyNames")
        for _ in range(8):
            if "$ref" not in names.keywords:
                break
            names = self.document.resolve(names, "$ref")
        listed = names.keywords.get("enum")
        if "const" in names.keywords:
            listed = [names.keywords["const"]]
        if is_list(listed) and all(isinstance(name, str) for name in listed):
            return listed
        if names.keywords:
            self.document.lose(node.pointer, "propertyNames", "MFJS cannot constrain names")
        return None

    def array(self, node: Node, alt: Alt) -> None:
        alt.low, alt.high = self.document.count(node, "minItems"), self.document.count(node, "maxItems")
        items = node.keywords.get("items")
        prefix = self.document.list_of(node, "prefixItems")
        rest: Conj = ()
        if is_list(items):
            prefix = self.document.list_of(node, "items")
            if isinstance(node.keywords.get("additionalItems"), (dict, bool)):
                rest = (self.document.child(node, "additionalItems"),)
        elif isinstance(items, (dict, bool)):
            rest = (self.document.child(node, "items"),)
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
            alt.items = (
                (self.document.union_of(node, "items", branches),) if len(branches) > 1 else branches[0]
            )
        if len(shown) > 1:
            self.document.lose(
                node.pointer, "prefixItems", "MFJS has one schema for all items: each may be any of them"
            )

    def own(self, node: Node) -> Alts:
        """What the keywords of this place, without references and combinations, accept."""
        keywords = node.keywords
        base = self.base(node)
        hints = frozenset(HINTS[k] for k, v in keywords.items() if k in HINTS and v is not None)
        types = self.document.types(node)
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
            self.document.lose(node.pointer, "enum", f"none of its values is of type {'/'.join(types)}")
            return Alts(alts, True, hints)
        if not listed:
            self.document.contradict(
                node.pointer, "none of the values of enum is allowed by the other keywords"
            )
        return Alts(listed, True, hints)

    def possible(self, alt: Alt) -> bool:
        if alt.low is not None and alt.high is not None and alt.low > alt.high:
            self.document.contradict(alt.at, f"the lower bound {alt.low} is above the upper bound {alt.high}")
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
                self.document.lose(
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
                    k: (self.document.artificial({"const": v}, f"{place}/{escape(k)}", node),)
                    for k, v in fixed.items()
                }
                closed = (self.document.artificial(False, f"{place}\0closed", node),)
                alts.append(Alt("object", at, props=props, required=tuple(props), extra=closed))
            elif is_list(value):
                members = value
                branches = [
                    (self.document.artificial({"const": v}, f"{place}/{i}", node),)
                    for i, v in enumerate(members)
                ]
                items: Conj = ()
                if branches:
                    union = self.document.artificial({}, f"{place}\0items", node)
                    union.branches = tuple(branches)
                    items = (union,) if len(branches) > 1 else branches[0]
                if len(branches) > 1:
                    self.document.lose(at, "enum", "MFJS cannot fix the order of items")
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
            self.document.contradict(node.pointer, "the schema `false` accepts nothing")
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
        if self.document.legacy and "$ref" in keywords:
            result = self.alts(self.document.resolve(node, "$ref"))
        else:
            result = self.own(node)
            for keyword in REF_KEYS:
                if keyword in keywords:
                    result = self.meet(node, keyword, result, self.alts(self.document.resolve(node, keyword)))
            for part in self.document.list_of(node, "allOf"):
                result = self.meet(node, "allOf", result, self.alts(part))
            for keyword in ("anyOf", "oneOf"):
                branches = self.document.list_of(node, keyword)
                if branches:
                    joined = self.join(node, [((b,), self.alts(b)) for b in branches])
                    result = self.meet(node, keyword, result, joined)
                if keyword == "oneOf" and len(branches) > 1:
                    self.document.lose(
                        node.pointer, "oneOf", "became anyOf: MFJS cannot forbid that two branches match"
                    )
            if is_not_anything(keywords):
                self.document.contradict(node.pointer, "`not` of everything accepts nothing")
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
            & self.document.nodes[pointer].keywords.keys()
            for pointer in self.document.heads(node)
        )
        if not plain or not isinstance(value, (dict, bool)):
            self.document.lose(
                node.pointer, "unevaluatedProperties", "MFJS cannot tell which branch has read a property"
            )
            return result
        rest = (self.document.child(node, "unevaluatedProperties"),)
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
            self.document.lose(node.pointer, keyword, "too many combinations of alternatives")
            return a
        met = [m for x in a.alts for y in b.alts if (m := meet(x, y)) is not None]
        if any(x.pattern and y.pattern and x.pattern != y.pattern for x in a.alts for y in b.alts):
            self.document.lose(node.pointer, "pattern", "MFJS takes one pattern for a string")
        if not met and a.alts and b.alts:
            self.document.contradict(
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
            found = {**self.document.notes(node), **found}
            if any(keyword in node.keywords for keyword in REF_KEYS):
                later += [self.document.resolve(node, k) for k in REF_KEYS if k in node.keywords]
            later += (
                self.document.list_of(node, "allOf")
                if not self.document.legacy or "$ref" not in node.keywords
                else []
            )
        for node in later:
            notes = self.document.notes(node)
            if "description" in notes:
                found.setdefault("description", notes["description"])
        return found

    def step(self) -> None:
        self.steps += 1
        if self.steps > 200_000:
            raise SchemaError("", "the references and combinations of this schema are too many to work out")
