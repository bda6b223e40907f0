"""
Unions whose members msgspec cannot tell apart by their looks (two classes without a tag, a model beside a string): each member is
tried, and the one that knows most of the object's fields has it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Optional, Union, cast, get_args, get_origin

import msgspec

__all__ = ["Choice", "opened"]


class _Anything(type):
    """msgspec asks whether what was made is of the type it was made for; a choice makes values of its members."""

    def __instancecheck__(cls, value: object) -> bool:
        return True


class Choice(metaclass=_Anything):
    """Stands for a union where msgspec is asked about it. Made by `opened`, one class a union."""

    members: ClassVar[tuple[object, ...]] = ()

    @classmethod
    def schema(cls, of: Callable[[object], Mapping[str, object]]) -> dict[str, object]:
        """`anyOf` the members' schemas, each with an `$id` that keeps its definitions its own."""
        return {
            "anyOf": [
                {**of(member), "$id": f"python:{cls.__name__}:{number}"}
                for number, member in enumerate(cls.members)
            ]
        }

    @classmethod
    def choose(
        cls,
        value: object,
        convert: Callable[[Any, Any], Any],
        schema_of: Callable[[object], dict[str, object]],
    ) -> object:
        """
        The value of the member that fits best.

        :raises ValueError: with each member's reason, if none fits.
        """
        best: tuple[int, object] | None = None
        reasons: list[str] = []
        for member in cls.members:
            try:
                made = convert(value, member)
            except (ValueError, TypeError) as error:
                reasons.append(f"{getattr(member, '__name__', member)}: {error}")
                continue
            known = 0
            if isinstance(value, dict):
                fields = _properties(schema_of(member))
                known = sum(name in fields for name in cast("dict[str, object]", value))
            if best is None or known > best[0]:
                best = (known, made)
        if best is None:
            raise ValueError(f"none of {cls.__name__} fits ({'; '.join(reasons)})")
        return best[1]


def _properties(schema: Mapping[str, object]) -> dict[str, object]:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        definitions = cast("dict[str, dict[str, object]]", schema.get("$defs") or {})
        schema = definitions.get(reference.rpartition("/")[2]) or {}
    return cast("dict[str, object]", schema.get("properties") or {})


def opened(tp: object) -> object:
    """The type with each union that msgspec refuses replaced by a `Choice`; inside containers too, not inside classes."""
    origin: Any = get_origin(tp)
    arguments: tuple[object, ...] = get_args(tp)
    if origin is Annotated:
        kept, *notes = arguments
        annotated: Any = Annotated
        return annotated[(opened(kept), *notes)]
    if origin in (Union, types.UnionType):
        try:
            msgspec.json.Decoder(tp)
        except TypeError:
            pass
        else:
            return tp
        members = tuple(opened(each) for each in arguments if each is not type(None))
        name = " | ".join(str(getattr(each, "__name__", each)) for each in members)
        choice: Any = type(name, (Choice,), {"members": members}) if len(members) > 1 else next(iter(members))
        return Optional[choice] if type(None) in arguments else choice  # noqa: UP045
    if origin is None or not arguments:
        return tp
    inner = tuple(each if each is Ellipsis or isinstance(each, str) else opened(each) for each in arguments)
    return tp if inner == arguments else origin[inner]
