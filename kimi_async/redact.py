"""
What must not be printed, and how it looks when it is printed all the same.

Keys (`sk-…`), and the account ids that Kimi writes into error messages (`org-…<ak-…>`) and reply headers (`Msh-Uid`,
`Msh-Gid`, `Msh-Org-Id`, `Msh-Project-Id`), are replaced in every text that this package makes: reprs, logs and errors.
"""

import re
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

__all__ = ["SECRET_HEADERS", "Secret", "mask", "redact", "redact_url", "redacted"]

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "cookie",
        "set-cookie",
        "msh-uid",
        "msh-org-id",
        "msh-project-id",
    }
)
"""
Names, in lower case, of headers whose values are never shown.

`Msh-Gid` is not among them: on the official host it names the tier (`enterprise-tier-5`), which a log needs.
"""

_SECRETS = re.compile(
    r"""
    (?P<bearer>(?i:bearer)\s+)[^\s"'<>,]+           # an Authorization value
  | \b(?P<kind>sk|ak|org|proj|cak)-[A-Za-z0-9_-]{8,}  # keys and account ids: org-<32 hex>, ak-<20 alnum>
    """,
    re.VERBOSE,
)


def mask(secret: str) -> str:
    """
    Enough of a key to tell two keys apart: `sk-…9f2c`. Keys too short to keep four characters show none.
    """
    if len(secret) < 16:
        return "…"
    head, dash, _ = secret.partition("-")
    prefix = head + dash if dash and len(head) <= 4 else ""
    return f"{prefix}…{secret[-4:]}"


def redact(text: str) -> str:
    """
    The text with keys and account ids taken out: `org-…<ak-…>`.
    """

    def hide(match: re.Match[str]) -> str:
        bearer = match["bearer"]
        return f"{bearer}…" if bearer else f"{match['kind']}-…"

    return _SECRETS.sub(hide, text)


def redacted(value: Any, depth: int = 32) -> Any:
    """
    Decoded JSON with every string in it redacted: a server that refuses a key may repeat it. What is nested deeper than any
    error is left out.
    """
    if isinstance(value, str):
        return redact(value)
    if depth == 0 and isinstance(value, (list, dict)):
        return "…"
    if isinstance(value, list):
        return [redacted(item, depth - 1) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: redacted(item, depth - 1) for name, item in cast("dict[Any, object]", value).items()}
    return value


def redact_url(url: str) -> str:
    """
    The URL without user, password, query and fragment, which may all hold secrets.
    """
    try:
        scheme, netloc, path, _, _ = urlsplit(url)
    except ValueError:
        return "<unreadable URL>"
    return redact(urlunsplit((scheme, netloc.rpartition("@")[2], path, "", "")))


class Secret(str):
    """
    A string that a traceback or debugger shows masked. `str(secret)` gives the plain value, for the wire alone.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask(str(self)))

    def __getitem__(self, key: Any) -> "Secret":
        # Printers of long strings (rich among them) cut before they ask for a repr.
        return Secret(super().__getitem__(key))

    def __reduce__(self) -> Any:
        # A key that travels inside a pickle ends on somebody's disk.
        return (str, (mask(str(self)),))
