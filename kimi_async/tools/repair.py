"""
Arguments that are almost JSON, repaired: `repair_arguments=True` in `run_tools`, by the json-repair package (extra `[repair]`).

Models write single quotes, trailing commas, raw line breaks, lost braces, fences and comments now and then. What comes out is an
object or the text as it was: whether it fits the tool is checked afterwards as always.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from ..errors import ConfigurationError

__all__ = ["load_repairer", "repaired_arguments"]


def load_repairer() -> Any:
    """
    The package's function that repairs, imported when it is asked for.

    :raises ConfigurationError: it is not installed; the extra is named.
    """
    try:
        return importlib.import_module("json_repair").loads
    except ImportError:
        raise ConfigurationError(
            "repair_arguments needs the json-repair package: pip install 'kimi-async[repair]'"
        ) from None


def repaired_arguments(text: str, repair: Any) -> str:
    """
    The arguments as a JSON object; the text itself where it is one already, is empty, or cannot be made into one.

    Only text that holds an object is tried: an object that has to be invented is nobody's arguments.
    """
    if not text.strip():
        return text
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    if "{" not in text:
        return text
    try:
        value = repair(text)
        # A model that writes the whole object as a string has written it twice.
        if isinstance(value, str) and value != text:
            value = repair(value)
        return msgspec.json.encode(value).decode() if isinstance(value, dict) else text
    except (ValueError, TypeError, RecursionError, IndexError):
        return text
