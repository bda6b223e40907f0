"""
A schema document: its places, what references point to, and what its keywords hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast
from urllib.parse import unquote, urljoin

from .alternatives import Conj, Node, is_integral, is_number
from .keywords import REF_KEYS, TYPE_ALIASES
from .rules import MAX_INT, TYPES, Json, Loss, SchemaError, escape, is_list, is_object, kind_of

__all__ = ["Document"]


class Document:
    """One schema and what is found out about it. Works on a private copy, so nothing of the caller's is ever changed."""

    def __init__(self, schema: Json, *, describe: bool) -> None:
        self.root: Json = schema
        self.describe: bool = describe
        self.losses: dict[tuple[str, str], Loss] = {}
        self.contradictions: list[tuple[str, str]] = []
        self.nodes: dict[str, Node] = {}
        self.resources: dict[str, str] = {}  # URI without fragment → pointer
        self.bases: dict[str, str] = {"": ""}  # pointer of a resource → its URI
        self.anchors: dict[tuple[str, str], str] = {}
        draft = schema.get("$schema")
        self.legacy: bool = isinstance(draft, str) and any(f"draft-0{n}" in draft for n in "34567")
        self.dynamic: set[str] = set()  # reference keywords that depend on how they were reached
        self.identify(schema, "", "")

    # -- places --

    def identify(self, value: object, pointer: str, resource: str) -> None:
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

    def artificial(self, schema: object, pointer: str, parent: Node) -> Node:
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

    def at(self, pointer: str) -> tuple[object, str] | None:
        """The value at a document pointer, and the resource it belongs to."""
        value: object = self.root
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

    # -- reports --

    def lose(self, at: str, keyword: str, reason: str) -> None:
        at = at.partition("\0")[0]
        self.losses.setdefault((at, keyword), Loss(at, keyword, reason))

    def contradict(self, at: str, reason: str) -> None:
        self.contradictions.append((at.partition("\0")[0], reason))

    # -- keywords --

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
