"""
The rules of MFJS, and what says that a schema keeps or breaks them.

Everything here was learned from https://github.com/MoonshotAI/walle: `docs/walle.md` (the rules), `docs/mfjs-spec.md`,
`docs/validation-principles.md` (the limits), `keyword_validators.go` (what the documents leave open). `check_mfjs` was
written apart from the translation, so that one tests the other.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple, TypeGuard

from ..errors import KimiError

__all__ = [
    "ALL_TYPES",
    "FORBIDDEN_KEYS",
    "MAX_BRANCHES",
    "MAX_DEPTH",
    "MAX_ENUM",
    "MAX_INT",
    "MAX_PROPERTIES",
    "MAX_SIZE",
    "TYPES",
    "Json",
    "Loss",
    "RootError",
    "SchemaError",
    "check_mfjs",
    "escape",
    "is_list",
    "is_object",
    "kind_of",
    "same",
]

Json = dict[str, Any]

MAX_INT: Final = 2**53 - 1
"""Largest integer, and with a minus the smallest, that MFJS takes (walle.md: what a double holds exactly)."""

# The validator's own limits (walle conf.go, as described in docs/validation-principles.md). The prose of walle.md
# names far smaller ones (100 properties, 5 levels, 10 branches); which the servers use is not published, so only what
# every version refuses is refused here.
MAX_PROPERTIES: Final = 3000
MAX_DEPTH: Final = 30
MAX_BRANCHES: Final = 500
MAX_ENUM: Final = 1000
MAX_SIZE: Final = 120_000

ALL_TYPES: Final = ("string", "number", "boolean", "object", "array", "null")
TYPES: Final = frozenset((*ALL_TYPES, "integer"))
FORBIDDEN_KEYS: Final = frozenset(("$defs", "$ref", "anyOf", "required", "additionalProperties"))


class SchemaError(KimiError, ValueError):
    """
    A schema or a type that Moonshot's JSON schema flavour cannot express.

    `pointer` is the JSON pointer (RFC 6901) of the place, "" for the root; `reason` says what is wrong there and what
    to do about it.
    """

    retryable = False

    def __init__(self, pointer: str, reason: str) -> None:
        self.pointer: str = pointer
        self.reason: str = reason
        super().__init__(f"at {pointer or 'the root'}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.pointer, self.reason))


class RootError(SchemaError):
    """The only thing wrong is that the root is no object, so that wrapping helps."""


class Loss(NamedTuple):
    """A constraint that the MFJS form of a schema does not carry: where it stood, its keyword, and why it went."""

    pointer: str
    keyword: str
    reason: str


def kind_of(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


# isinstance() makes of Any a list of something unknown; these make it a list of anything.
def is_object(value: Any) -> TypeGuard[Json]:
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def escape(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


def same(a: Any, b: Any) -> bool:
    """JSON equality: 1 is 1.0, and neither is true."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


# --- The other side: what MFJS is ------------------------------------------------------------------------------------

_ANNOTATIONS: Final[frozenset[str]] = frozenset(("title", "description"))
_ROOT_ONLY: Final[frozenset[str]] = frozenset(("$defs", "$id"))
_KEYWORDS: Final = {
    "object": frozenset(("type", "properties", "required", "additionalProperties")),
    "array": frozenset(("type", "items", "minItems", "maxItems")),
    "string": frozenset(("type", "minLength", "maxLength", "enum", "default")),
    "number": frozenset(("type", "minimum", "maximum", "enum", "default")),
    "integer": frozenset(("type", "minimum", "maximum", "enum", "default")),
    "boolean": frozenset(("type", "enum", "default")),
    "null": frozenset(("type", "enum", "default")),
}


def check_mfjs(schema: Any) -> list[str]:
    """
    What MFJS forbids in a schema, one sentence each, `"<JSON pointer>: <problem>"`, in the order met; empty if nothing.

    The root's pointer is written `/`, as walle does. The rules are those of walle.md with the limits of the shipped
    validator. Where the documents of MFJS differ, the narrower reading is checked.
    """
    problems: list[str] = []

    def no(pointer: str, text: str) -> None:
        problems.append(f"{pointer or '/'}: {text}")

    if not is_object(schema):
        return ["/: the root must be an object schema"]
    root = schema
    if not root:
        return ["/: the root must have type object"]
    defs_value = root.get("$defs", {})
    defs = defs_value if is_object(defs_value) else {}
    if not is_object(defs_value):
        no("/$defs", "$defs must be an object")
    if root.get("type") != "object":
        no("", "the root must have type object")
    counted = 0

    def target(ref: str) -> Any:
        if ref == "#":
            return root
        return defs.get(ref.removeprefix("#/$defs/")) if ref.startswith("#/$defs/") else None

    def integer(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INT

    def number(value: Any) -> bool:
        if isinstance(value, float):
            return math.isfinite(value) and "e" not in json.dumps(value).lower()
        return integer(value)

    def fits(value: Any, kind: str) -> bool:
        match kind:
            case "string":
                return isinstance(value, str)
            case "integer":
                return integer(value)
            case "number":
                return number(value)
            case "boolean":
                return isinstance(value, bool)
            case "null":
                return value is None
            case _:
                return False

    def visit(value: Any, at: str, depth: int) -> None:
        nonlocal counted
        if not is_object(value):
            no(at, "a subschema must be an object")
            return
        s = value
        if depth > MAX_DEPTH:
            no(at, f"more than {MAX_DEPTH} levels of properties")
            return
        is_root = at == ""
        for key in _ANNOTATIONS | {"$id"}:
            if key in s and not isinstance(s[key], str):
                no(f"{at}/{key}", f"{key} must be a string")
        for key in _ROOT_ONLY:
            if key in s and not is_root:
                no(f"{at}/{key}", f"{key} is allowed at the root only")
        allowed = _ANNOTATIONS | (_ROOT_ONLY if is_root else frozenset[str]())
        if "$ref" in s or "anyOf" in s:
            head = "$ref" if "$ref" in s else "anyOf"
            for key in sorted(set(s) - allowed - {head}):
                no(f"{at}/{escape(key)}", f"{key} must not stand beside {head}")
            if head == "$ref":
                ref = s["$ref"]
                if not isinstance(ref, str) or not is_object(target(ref)):
                    no(f"{at}/$ref", f"{ref!r} is neither # nor the name of a definition")
                elif shared := sorted(_ANNOTATIONS & set(s) & set(target(ref))):
                    no(f"{at}/$ref", f"{shared[0]} stands here and in the definition")
                return
            branches = s["anyOf"]
            if not is_list(branches) or not 1 <= len(branches) <= MAX_BRANCHES:
                no(f"{at}/anyOf", f"anyOf must be a list of 1 to {MAX_BRANCHES} schemas")
                return
            for index, branch in enumerate(branches):
                visit(branch, f"{at}/anyOf/{index}", depth)
            return
        if "type" not in s:
            no(at, "type is missing")
            return
        kinds = s["type"] if is_list(s["type"]) else [s["type"]]
        if (
            not kinds
            or any(k not in TYPES for k in kinds if isinstance(k, str))
            or not all(isinstance(k, str) for k in kinds)
        ):
            no(f"{at}/type", "type must name JSON types")
            return
        if len(set(kinds)) != len(kinds):
            no(f"{at}/type", "a type is named twice")
        if len(kinds) > 1:
            beside = sorted(set(s) - allowed - {"type"})
            if beside == ["enum"] and len(kinds) == 2 and "null" in kinds:
                if {"object", "array"} & set(kinds):
                    no(f"{at}/type", "enum goes with a scalar and null only")
            elif beside:
                no(f"{at}/{escape(beside[0])}", f"{beside[0]} must not stand beside several types")
                return
        else:
            for key in sorted(set(s) - allowed - _KEYWORDS[kinds[0]]):
                no(f"{at}/{escape(key)}", f"{key} is not allowed with type {kinds[0]}")
        if "enum" in s:
            enum(s["enum"], kinds, f"{at}/enum")
        if "default" in s and (
            not fits(s["default"], kinds[0])
            or (is_list(s.get("enum")) and not any(same(s["default"], v) for v in s["enum"]))
        ):
            no(f"{at}/default", f"the default is not a value of type {kinds[0]}")
        for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
            bounds(s, low, high, kinds[0], at)
        if "items" in s:
            if s["items"] == {}:
                no(f"{at}/items", "items must not be empty")
            else:
                visit(s["items"], f"{at}/items", depth)
        if (
            "additionalProperties" in s
            and not isinstance(s["additionalProperties"], bool)
            and s["additionalProperties"] != {}
        ):
            visit(s["additionalProperties"], f"{at}/additionalProperties", depth)
        props = s.get("properties", {})
        if not is_object(props):
            no(f"{at}/properties", "properties must be an object")
            props = {}
        named = props
        counted += len(named)
        for name, prop in named.items():
            if name in FORBIDDEN_KEYS:
                no(f"{at}/properties/{escape(name)}", f"a property must not be called {name}")
            visit(prop, f"{at}/properties/{escape(name)}", depth + 1)
        required = s.get("required", [])
        if not is_list(required) or not all(isinstance(n, str) for n in required):
            no(f"{at}/required", "required must be a list of strings")
        else:
            listed = required
            for name in listed:
                if name not in named:
                    no(f"{at}/required", f"{name!r} is not in properties")
            if len(set(listed)) != len(listed):
                no(f"{at}/required", "a name stands twice")

    def enum(values: Any, kinds: list[Any], at: str) -> None:
        if not is_list(values) or not values:
            no(at, "enum must be a list that is not empty")
            return
        members = values
        if len(members) > MAX_ENUM:
            no(at, f"enum has more than {MAX_ENUM} values")
        if any(isinstance(v, bool) or not isinstance(v, (str, int, float, type(None))) for v in members):
            no(at, "enum lists strings, integers or floats")
        if len({type(v).__name__ for v in members if v is not None}) > 1:
            no(at, "enum mixes types")
        for value in members:
            if not any(fits(value, kind) for kind in kinds):
                no(at, f"{value!r} is not a value of type {'/'.join(kinds)} that MFJS can write")

    def bounds(s: Json, low: str, high: str, kind: str, at: str) -> None:
        for key in (low, high):
            if key in s:
                fine = (
                    integer(s[key])
                    if key not in ("minimum", "maximum") or kind == "integer"
                    else number(s[key])
                )
                if not fine or (key not in ("minimum", "maximum") and s[key] < 0):
                    no(f"{at}/{key}", f"{s[key]!r} is not a bound that MFJS can write")
                    return
        if low in s and high in s and s[low] > s[high]:
            no(f"{at}/{low}", f"{low} is above {high}")

    visit(root, "", 0)
    for name, body in defs.items():
        if not name or "/" in name:
            no("/$defs", f"{name!r} cannot be the name of a definition")
        visit(body, f"/$defs/{escape(name)}", 0)
    if counted > MAX_PROPERTIES:
        no("", f"more than {MAX_PROPERTIES} properties")
    if (
        len(json.dumps(root, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
        > MAX_SIZE
    ):
        no("", f"more than {MAX_SIZE} bytes")
    if not problems:
        problems.extend(f"{at}: recursion without an end" for at in _endless(root, defs))
        if (depth := _depth(root, defs)) > MAX_DEPTH:
            no("", f"{depth} levels of properties, references followed; {MAX_DEPTH} are allowed")
    return problems


def _depth(root: Json, defs: Json) -> int:
    """
    Levels of properties with references followed, as walle counts them (`CalculateDefDepths`).

    A reference back to a definition that is being followed adds nothing. Where recursion can be entered at several
    places walle looks for the longest way through, which takes exponential time; here each definition is measured once.
    """
    known: dict[str, int] = {}
    active: set[str] = set()

    def measure(s: Json) -> int:
        deepest = 0
        ref = s.get("$ref")
        if isinstance(ref, str) and ref not in active:
            if ref not in known:
                active.add(ref)
                known[ref] = measure(root if ref == "#" else defs[ref.removeprefix("#/$defs/")])
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

    active.add("#")
    return measure(root)


def _endless(root: Json, defs: Json) -> list[str]:
    """Pointers of the root and definitions that no finite value satisfies."""
    bodies = {"#": root, **{f"#/$defs/{name}": body for name, body in defs.items()}}
    ends: set[str] = set()

    def finite(s: Json) -> bool:
        if "$ref" in s:
            return s["$ref"] in ends
        if "anyOf" in s:
            return any(finite(branch) for branch in s["anyOf"])
        if s["type"] == "array":
            return not s.get("minItems") or "items" not in s or finite(s["items"])
        return all(finite(s["properties"][name]) for name in s.get("required", ()))

    while more := {ref for ref, body in bodies.items() if ref not in ends and finite(body)}:
        ends |= more
    return [ref[1:] or "/" for ref in bodies if ref not in ends]
