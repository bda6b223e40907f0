"""
Where a call goes: a path below the base URL, and nowhere else.
"""

import re
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from ..redact import redact_url

__all__ = ["url_below"]

WITH_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NOT_IN_A_URL = re.compile(r"[^!-\[\]-~]")


def url_below(base: str, path: str) -> str:
    """
    A path, or a whole URL of the same origin, as the URL to call. `base` ends with a slash.

    :raises ConfigurationError: it would leave `base`, where the key must not go.
    """
    if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"path must be a string, not {type(path).__name__}")
    if odd := NOT_IN_A_URL.search(path):
        # A line break in it would end the request line, and what follows would be headers.
        raise ConfigurationError(
            f"{odd[0]!r} cannot stand in a path ({redact_url(path)[:100]!r}); encode it with urllib.parse.quote()"
        )
    if WITH_SCHEME.match(path):
        if urlsplit(path)[:2] != urlsplit(base)[:2]:
            raise ConfigurationError(
                f"{redact_url(path)!r} is not at {base}; the key is sent to base_url only (make another client for another host)"
            )
        return path
    if "." in path or "%" in path:
        segments = [unquote(each) for each in re.split("[?#]", path, maxsplit=1)[0].split("/")]
        if ".." in segments or "." in segments:
            raise ConfigurationError(f"the path {redact_url(path)!r} climbs out of {base}")
    return base + path.lstrip("/")
