"""
Values that satisfy a JSON schema: what the simulator's model fills structured answers and tool arguments with.

Covers MFJS, and what pydantic and other frameworks write beyond it: formats, patterns, exclusive bounds, constants, `oneOf` and
`allOf`. The same dice give the same value. A schema that asks for more still gets some value of its type.
"""

import importlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .words import as_list, as_object, prose

__all__ = ["instance"]

_DEEP: Final = 4  # below this what may end, ends
_TOO_DEEP: Final = 24

_FORMATS: Final[Mapping[str, Callable[[random.Random], str]]] = {
    "date": lambda dice: f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}",
    "time": lambda dice: f"{dice.randint(0, 23):02}:{dice.randint(0, 59):02}:{dice.randint(0, 59):02}Z",
    "date-time": lambda dice: f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}T{dice.randint(0, 23):02}:30:00Z",
    "duration": lambda dice: f"PT{dice.randint(1, 59)}M",
    "email": lambda dice: f"moon{dice.randint(1, 999)}@example.com",
    "idn-email": lambda dice: f"moon{dice.randint(1, 999)}@example.com",
    "hostname": lambda dice: f"host{dice.randint(1, 999)}.example.com",
    "ipv4": lambda dice: f"192.0.2.{dice.randint(1, 254)}",
    "ipv6": lambda dice: f"2001:db8::{dice.randint(1, 9999):x}",
    "uri": lambda dice: f"https://example.com/{dice.randint(1, 999)}",
    "uuid": lambda dice: "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}".format(*map(dice.getrandbits, (32, 16, 12, 12, 48))),
    "binary": lambda dice: f"{dice.getrandbits(24):08x}",
    "byte": lambda dice: f"{dice.getrandbits(24):08x}",
    "json-pointer": lambda dice: f"/{dice.randint(0, 9)}",
    "regex": lambda dice: f"^a{{{dice.randint(1, 9)}}}$",
}  # fmt: skip


def instance(dice: random.Random, schema: object, root: object, *, text: str | None = None) -> object:
    """
    A value that satisfies `schema`, whose references point into `root`; `{}` at the top gives an empty object.

    `text`, where given, is what its plain strings say.
    """
    return _Maker(dice, root, text).value(schema, 0)


class _Maker:
    def __init__(self, dice: random.Random, root: object, text: str | None) -> None:
        self.dice = dice
        self.root = root
        self.text = text

    def value(self, schema: object, depth: int) -> object:
        if depth > _TOO_DEEP:
            return None
        fields = self.resolved(as_object(schema) or {}, depth)
        if not fields:
            return {} if depth == 0 else prose(self.dice, 2)
        if "const" in fields:
            return fields["const"]
        if choices := as_list(fields.get("enum")):
            return self.dice.choice(choices)
        kind = self.kind(fields, depth)
        if kind == "object":
            return self.json_object(fields, depth)
        if kind == "array":
            return self.array(fields, depth)
        if kind in ("integer", "number"):
            return self.number(fields, whole=kind == "integer")
        if kind == "boolean":
            return self.dice.random() < 0.5
        return None if kind == "null" else self.string(fields)

    def resolved(self, fields: dict[str, object], depth: int) -> dict[str, object]:
        """The schema with its references followed, one branch of each union taken, and `allOf` laid together."""
        for _ in range(100):
            reference = fields.get("$ref")
            if isinstance(reference, str):
                rest = {key: value for key, value in fields.items() if key != "$ref"}
                fields = _together(as_object(self.target(reference)) or {}, rest)
                continue
            unions = [key for key in ("anyOf", "oneOf") if as_list(fields.get(key))]
            if unions:
                branch = as_object(self.branch(as_list(fields[unions[0]]), depth)) or {}
                rest = {key: value for key, value in fields.items() if key != unions[0]}
                fields = _together(rest, branch)
                continue
            parts = as_list(fields.get("allOf"))
            if not parts:
                break
            fields = {key: value for key, value in fields.items() if key != "allOf"}
            for part in parts:
                fields = _together(fields, as_object(part) or {})
        return fields

    def target(self, reference: str) -> object:
        found: object = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = (as_object(found) or {}).get(step.replace("~1", "/").replace("~0", "~"))
        return found

    def branch(self, branches: Sequence[object], depth: int) -> object:
        # Deep inside a recursive schema take the branch that ends it.
        plain = [b for b in branches if (as_object(b) or {}).get("type") not in ("object", "array", None)]
        return self.dice.choice(plain if depth > _DEEP and plain else branches)

    def kind(self, fields: Mapping[str, object], depth: int) -> object:
        kind = fields.get("type")
        if kinds := as_list(kind):
            plain = [name for name in kinds if name not in ("object", "array")]
            deep = ["null"] if "null" in kinds else plain or kinds
            return self.dice.choice(deep if depth > _DEEP else kinds)
        if kind is None:
            for key, guess in (("properties", "object"), ("items", "array"), ("minimum", "number")):
                if key in fields:
                    return guess
        return kind

    def json_object(self, fields: Mapping[str, object], depth: int) -> dict[str, object]:
        required = as_list(fields.get("required"))
        value: dict[str, object] = {}
        for key, child in (as_object(fields.get("properties")) or {}).items():
            if key in required or (depth < _DEEP and self.dice.random() < 0.5):
                value[key] = self.value(child, depth + 1)
        extra = fields.get("additionalProperties", {})
        for key in required:
            if isinstance(key, str) and key not in value:
                value[key] = self.value(extra, depth + 1)
        least = int(_bound(fields, "minProperties", 0, most=100))
        while len(value) < least:
            value[f"{prose(self.dice, 1)[:8]}{len(value)}"] = self.value(extra, depth + 1)
        return value

    def array(self, fields: dict[str, object], depth: int) -> list[object]:
        least = int(_bound(fields, "minItems", 0 if depth > _DEEP else 1, most=1_000))
        most = int(_bound(fields, "maxItems", least + 2, most=1_000))
        size = least if depth > _DEEP else self.dice.randint(least, max(least, min(most, least + 2)))
        size = min(size, max(most, 0))
        first = as_list(fields.get("prefixItems"))
        if fields.get("items") is False:
            size = min(size, len(first)) if first else 0
        made: list[object] = []
        for position in range(size):
            inner = first[position] if position < len(first) else fields.get("items")
            item = self.value(inner, depth + 1)
            if fields.get("uniqueItems") is True:
                for _ in range(50):
                    if item not in made:
                        break
                    item = self.value(inner, depth + 1)
                if item in made:
                    break
            made.append(item)
        return made

    def number(self, fields: dict[str, object], *, whole: bool) -> int | float:
        step = _bound(fields, "multipleOf", 0.0)
        # Exclusive bounds are kept by staying a little, or one whole step, away from them.
        gap = 1.0 if whole else (step or 0.001)
        low = _bound(fields, "minimum", _bound(fields, "exclusiveMinimum", math.nan) + gap)
        high = _bound(fields, "maximum", _bound(fields, "exclusiveMaximum", math.nan) - gap)
        if math.isnan(low):
            low = min(0.0, high) if not math.isnan(high) else 0.0
        if math.isnan(high):
            high = max(low, 0.0) + 100
        high = max(low, high)
        if step > 0:
            first = math.ceil(low / step)
            made = step * self.dice.randint(first, max(first, math.floor(high / step)))
            return int(made) if whole or made == int(made) else round(made, 9)
        if whole:
            first = math.ceil(low)
            return self.dice.randint(first, max(first, math.floor(high)))
        return min(high, max(low, round(self.dice.uniform(low, high), 2)))

    def string(self, fields: dict[str, object]) -> str:
        pattern = fields.get("pattern")
        shortest = int(_bound(fields, "minLength", 0, most=100_000))
        longest = int(_bound(fields, "maxLength", 2.0**53))
        if isinstance(pattern, str):
            for _ in range(20):
                made = _matching(self.dice, pattern, shortest)
                if made is not None and shortest <= len(made) <= longest:
                    return made
        make = _FORMATS.get(str(fields.get("format")))
        if make is not None:
            return make(self.dice)
        result = self.text if self.text is not None else prose(self.dice, self.dice.randint(1, 4))
        while len(result) < shortest:
            result += "." + result
        return result[:longest]


def _together(a: dict[str, Any], b: dict[str, Any]) -> dict[str, object]:
    """Two schemas of one value as one: properties and requirements are joined, bounds tightened, else the second wins."""
    result = {**a, **b}
    for key in ("properties", "$defs"):
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            result[key] = {**a[key], **b[key]}
    if as_list(a.get("required")) and as_list(b.get("required")):
        result["required"] = list(dict.fromkeys([*a["required"], *b["required"]]))
    for key, pick in (("min", max), ("max", min)):
        for name in (f"{key}imum", f"{key}Length", f"{key}Items"):
            pair = [s[name] for s in (a, b) if isinstance(s.get(name), (int, float))]
            if len(pair) == 2:
                result[name] = pick(pair)
    kinds = [as_list(s["type"]) or [s["type"]] for s in (a, b) if s.get("type")]
    if len(kinds) == 2:
        both = [kind for kind in kinds[1] if kind in kinds[0] or (kind == "integer" and "number" in kinds[0])]
        both = both or [kind for kind in kinds[0] if kind == "integer" and "number" in kinds[1]]
        result["type"] = both[0] if len(both) == 1 else both or kinds[1]
    return result


def _bound(fields: Mapping[str, object], key: str, default: float, *, most: float = 2.0**53) -> float:
    """A limit of a schema as a number of sane size; `default` if it is not one."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    least = 0 if key.startswith(("min", "max")) and not key.endswith("imum") else -most
    return float(min(most, max(least, value)))


# --- patterns -------------------------------------------------------------------------------------------

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def _matching(dice: random.Random, pattern: str, shortest: int) -> str | None:
    """A string in which the pattern is found, or None where it is none of Python's or asks for too much."""
    try:
        # The standard library's own parser; it has no public name, and nothing is lost where it should be gone.
        tree: object = importlib.import_module("re._parser").parse(pattern)
        made = _text_of(dice, tree, shortest)
        if len(made) < shortest:  # where the pattern does not say how the text ends, it may go on
            made += "a" * (shortest - len(made))
        return made if re.search(pattern, made) else None
    except (ImportError, AttributeError, re.error, RecursionError, OverflowError, ValueError, TypeError):
        return None


def _text_of(dice: random.Random, tree: Any, shortest: int) -> str:
    pieces: list[str] = []
    for operation, argument in tree:
        name = str(operation)
        if name == "LITERAL":
            pieces.append(chr(argument))
        elif name == "NOT_LITERAL":
            pieces.append("a" if argument != ord("a") else "b")
        elif name == "ANY":
            pieces.append(dice.choice(_LETTERS))
        elif name == "IN":
            pieces.append(_one_of(dice, argument))
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, inner = argument
            count = max(least, min(int(most), max(least, shortest, 1) + dice.randint(0, 2)))
            pieces.extend(_text_of(dice, inner, 0) for _ in range(min(count, 10_000)))
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            pieces.append(_text_of(dice, argument[-1] if name == "SUBPATTERN" else argument, shortest))
        elif name == "BRANCH":
            pieces.append(_text_of(dice, dice.choice(argument[1]), shortest))
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):
            raise ValueError(name)  # back references and conditions
    return "".join(pieces)


def _one_of(dice: random.Random, items: Any) -> str:
    """A character of a class. Of a negated one whatever printable character it does not name."""
    names = [str(operation) for operation, _ in items]
    found: list[str] = []
    for operation, argument in items:
        name = str(operation)
        if name == "LITERAL":
            found.append(chr(argument))
        elif name == "RANGE":
            found.extend(chr(code) for code in range(argument[0], min(argument[1], argument[0] + 200) + 1))
        elif name == "CATEGORY":
            kind = str(argument)
            found.extend(
                "0123456789"
                if "DIGIT" in kind and "NOT" not in kind
                else " "
                if "SPACE" in kind and "NOT" not in kind
                else "- "
                if kind.endswith("NOT_WORD")
                else _LETTERS
            )
    if names and names[0] == "NEGATE":
        found = [chr(code) for code in range(33, 127) if chr(code) not in found]
    return dice.choice(found)
