"""
What kinds of value an option may have, as its type hint says: for jobs that run for hours, so that none ends by a slip.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from ..errors import ConfigurationError

__all__ = ["check_kinds", "check_positive"]


def check_kinds(method: str, given: Mapping[str, object], options: type) -> None:
    """
    :raises TypeError: an option is of another kind than `options`, a class with annotations, has under its name.
    """
    hints = _hints(options)
    for name, value in given.items():
        hint = hints.get(name, object)
        if not _fits(value, hint):
            raise TypeError(
                f"{method}(): {name} must be {' or '.join(dict.fromkeys(_words(hint)))}; got {value!r:.60}"
            )


def check_positive(given: Mapping[str, object], *names: str) -> None:
    """
    :raises ConfigurationError: one of these is given and not above zero.
    """
    for name in names or given:
        value = given.get(name)
        if isinstance(value, (int, float)) and not value > 0:
            raise ConfigurationError(f"{name} must be above 0, not {value}")


@lru_cache(maxsize=16)
def _hints(options: type) -> dict[str, object]:
    return get_type_hints(options)


def _fits(value: object, hint: object) -> bool:
    if hint is Any or hint is object:
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(
            _fits(each, parts[0]) for each in cast("tuple[object, ...]", value)
        )
    if origin is type:
        return isinstance(value, type) and issubclass(value, parts[0])
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if hint is int or hint is float:
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, cast("type", origin or hint))


def _words(hint: object) -> list[str]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return [word for part in parts for word in _words(part)]
    if origin is Literal:
        return [repr(part) for part in parts]
    if origin is tuple:
        return [f"a tuple of {_words(parts[0])[0]}"]
    if origin is type:
        return [f"subclasses of {parts[0].__name__}"]
    if origin is Callable:
        return ["a function"]
    kind = cast("type", origin or hint)
    known = {int: "an int", float: "a number", bool: "True or False", str: "a string", NoneType: "None"}
    return [known.get(kind, f"a {kind.__name__}")]
