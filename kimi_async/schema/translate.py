"""
Any JSON schema as MFJS, from the copy of the input to the finished document.

The way: `document` finds what references point to, `reader` reads places as alternatives, `builder` writes them as MFJS,
and here what nothing satisfies is removed, the root becomes an object, and names become pointers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from .alternatives import NEVER
from .builder import Builder, listed
from .check import check_mfjs
from .document import Document
from .keywords import REF_KEYS
from .reader import Reader
from .rules import (
    ALL_TYPES,
    MAX_SIZE,
    Json,
    Loss,
    RootError,
    SchemaError,
    escape,
    is_object,
    kind_of,
)

__all__ = ["mfjs_tool", "to_mfjs", "translate"]


class _Translation:
    """One call of `to_mfjs`."""

    def __init__(self, schema: Json, *, describe: bool, exact_root: bool) -> None:
        self.document: Document = Document(schema, describe=describe)
        self.builder: Builder = Builder(Reader(self.document))
        self.exact_root = exact_root

    def finish(self) -> Json:
        root_node = self.document.node(self.document.root, "", "")
        seen: set[str] = set()
        notes = self.document.notes(root_node)
        target = root_node
        while len(keys := self.builder.effective(target)) == 1 and (refs := keys & {*REF_KEYS}):
            if target.pointer in seen:
                raise SchemaError(target.pointer, "the reference leads back to itself")
            seen.add(target.pointer)
            target = self.document.resolve(target, refs.pop())
            notes = {**self.document.notes(target), **notes}
        name = self.builder.name(frozenset((target.pointer,)), target)
        self.builder.defs[name] = {}
        self.builder.defs[name] = self.builder.build((target,))
        self.prune()
        self.end_arrays()
        root = self.builder.annotate(
            self.as_object(self.builder.defs.get(name, NEVER)),
            {k: v for k, v in notes.items() if k != "default"},
            "",
        )
        if {k: v for k, v in root.items() if k not in ("title", "description")} == {
            k: v for k, v in self.builder.defs[name].items() if k not in ("title", "description")
        }:
            own: str | None = name
        else:
            own = None
        return self.assemble(root, own)

    def prune(self) -> None:
        """Remove what nothing can satisfy: required recursion without an end, `false`, contradictions."""
        alive: set[str] = set()
        while True:
            more = {n for n, built in self.builder.defs.items() if n not in alive and _finite(built, alive)}
            if not more:
                break
            alive |= more
        dead = set(self.builder.defs) - alive
        for name in sorted(name for name in dead if self.builder.defs[name] is not NEVER):
            self.document.contradict("", f"{name} requires itself and so never ends")
        self.builder.defs = {
            name: self.without(built, dead, name)
            for name, built in self.builder.defs.items()
            if name in alive
        }

    def end_arrays(self) -> None:
        """
        Let arrays of what never ends hold null instead, where nothing else on the required way ends.

        `{"children": []}` ends a tree, but the servers' validator does not count the empty array, and refuses.
        """
        ended: set[str] = set()
        while more := {
            n for n, built in self.builder.defs.items() if n not in ended and _stops(built, ended)
        }:
            ended |= more
        for name in self.builder.defs.keys() - ended:
            self.builder.defs[name] = self.nullable_items(self.builder.defs[name], ended, name)

    def nullable_items(self, built: Json, ended: set[str], where: str) -> Json:
        if "anyOf" in built:
            branches = [self.nullable_items(branch, ended, where) for branch in built["anyOf"]]
            return {**built, "anyOf": branches}
        if "items" in built and not _stops(built["items"], ended):
            self.document.lose(
                f"/{where}",
                "items",
                "may be null: the servers refuse a recursion that only an empty array ends",
            )
            return {**built, "items": {"anyOf": [built["items"], {"type": "null"}]}}
        if required := built.get("required"):
            props = {
                name: self.nullable_items(prop, ended, f"{where}/{escape(name)}")
                if name in required
                else prop
                for name, prop in built["properties"].items()
            }
            return {**built, "properties": props}
        return built

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
                    self.document.lose(
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
            at, why = (
                self.document.contradictions[0]
                if self.document.contradictions
                else ("", "it contradicts itself")
            )
            raise SchemaError(at, f"the schema accepts no value: {why}")
        if "$ref" in root:
            return self.as_object(
                {**self.builder.defs[root["$ref"]], **{k: v for k, v in root.items() if k != "$ref"}}
            )
        advice = "MFJS wants an object at the root: put it into a property of one"
        if "anyOf" not in root:
            kinds = set(listed(root["type"]))
            if kinds == {"object"}:
                return root
            loose = kinds == {"object", "null"} or kinds >= set(ALL_TYPES)
            if "object" in kinds and loose and not self.exact_root:
                if kinds == {"object", "null"}:
                    self.document.lose("", "type", "null is not possible: MFJS wants an object at the root")
                return {**root, "type": "object"}
            raise RootError("", f"the root is {'/'.join(sorted(kinds))}; {advice}")
        if self.exact_root:
            raise RootError("", f"the root has alternatives; {advice}")
        branches: list[Json] = []
        for branch in root["anyOf"]:
            if branch.get("type") == "null":
                self.document.lose("", "type", "null is not possible: MFJS wants an object at the root")
                continue
            branches.append(self.as_object(branch))
        if not branches:
            raise RootError("", f"the root is null; {advice}")
        notes = {k: v for k, v in root.items() if k != "anyOf"}
        if len(branches) == 1:
            return {**branches[0], **notes}
        self.document.lose("", "anyOf", "alternatives at the root became one object that allows each of them")
        return {**_one_object(branches), **notes}

    def assemble(self, root: Json, own: str | None) -> Json:
        """Put the root and the definitions it reaches into one document."""
        defs = dict(self.builder.defs)
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


def _stops(built: Json, ended: set[str]) -> bool:
    """The same as the servers' validator sees it: an array ends where its items do, an object where one property does."""
    if "$ref" in built:
        return built["$ref"] in ended
    if "anyOf" in built:
        return any(_stops(branch, ended) for branch in built["anyOf"])
    if "items" in built:
        return _stops(built["items"], ended)
    required = built.get("required", ())
    return not required or any(_stops(built["properties"][name], ended) for name in required)


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


def _copied(value: object, pointer: str = "", depth: int = 0) -> object:
    """A plain copy of JSON data: dicts with string keys, lists, scalars. What JSON cannot hold is refused."""
    if depth > 400:
        raise SchemaError(pointer[:200], "the schema is nested too deeply")
    if isinstance(value, Mapping):
        result: Json = {}
        for key, child in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise SchemaError(pointer, f"a key of a JSON object is a string, not {key!r}")
            result[key] = _copied(child, f"{pointer}/{escape(key)}", depth + 1)
        return result
    if isinstance(value, (list, tuple)):
        members = cast("Sequence[object]", value)
        return [_copied(child, f"{pointer}/{i}", depth + 1) for i, child in enumerate(members)]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise SchemaError(pointer, f"not JSON: {type(value).__name__}")


def to_mfjs(
    schema: Mapping[str, object], *, report: list[Loss] | None = None, describe: bool = False
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


def mfjs_tool(definition: Mapping[str, object], *, report: list[Loss] | None = None) -> dict[str, Any]:
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
    schema: Mapping[str, object], report: list[Loss] | None, *, describe: bool, exact_root: bool
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
            translation.document.lose("", "title", f"left out everywhere, to stay below {MAX_SIZE} bytes")
            result, problems = slim, []
    if problems:
        pointer, _, reason = problems[0].partition(": ")
        raise SchemaError("" if pointer == "/" else pointer, f"{reason} (in the translated schema)")
    if report is not None:
        report.extend(translation.document.losses.values())
    return result
