"""
What can be read of JSON that is not there to its end yet: with jiter (extra `[partial]`), or with the reader inside pydantic.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

__all__ = ["read_so_far"]


@cache
def _reader() -> Callable[[bytes], object] | None:
    try:
        from jiter import from_json

        return lambda data: from_json(data, partial_mode="trailing-strings")
    except ImportError:
        pass
    try:
        from pydantic_core import from_json as from_json_of_pydantic

        return lambda data: from_json_of_pydantic(data, allow_partial="trailing-strings")
    except ImportError:
        return None


def read_so_far(text: str, *, under: str | None = None) -> Any:
    """
    The beginning of a JSON text as plain values, the last string as far as it goes; None while nothing can be read, or where
    neither jiter nor pydantic is installed.

    :param under: the property that holds the value, where it is put into an object for the wire.
    """
    read = _reader()
    if read is None or not text.strip():
        return None
    try:
        value = read(text.encode())
    except (ValueError, UnicodeError, RecursionError):
        return None
    if under is None:
        return value
    return cast("dict[str, object]", value).get(under) if isinstance(value, dict) else None
