"""
What must not be printed, and how it looks when it is printed all the same.

Keys (`sk-…`), and the account ids that Kimi writes into error messages (`org-…<ak-…>`) and reply headers (`Msh-Uid`,
`Msh-Gid`, `Msh-Org-Id`, `Msh-Project-Id`), are replaced in every text that this package makes: reprs, logs and errors.
"""

import html
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

__all__ = [
    "PlainHeaders",
    "Secret",
    "SecretURL",
    "Unshown",
    "bare",
    "is_secret",
    "mask",
    "redact",
    "redact_url",
    "redacted",
    "secrets_in",
    "secrets_of",
    "shown",
]

# `Msh-Gid` is not among them: on the official host it names the tier (`enterprise-tier-5`), which a log needs.
_ACCOUNT = frozenset({"msh-uid", "msh-org", "msh-org-id", "msh-project-id"})

# Words of a header's name that mean a secret wherever they stand, and such as do at its end (X-Auth-Token, X-Goog-Api-Key,
# Ocp-Apim-Subscription-Key, X-Amz-Security-Token, CF-Access-Client-Secret); `X-RateLimit-Remaining-Tokens` is none.
_WORDS = frozenset(
    {"auth", "authentication", "authorization", "cookie", "credential", "credentials", "jwt", "password"}
)
_ENDS = ("cookie", "key", "password", "passwd", "secret", "signature", "token")
_NO_SECRET = frozenset({"cache-key", "idempotency-key", "surrogate-key", "x-cache-key", "x-idempotency-key"})


@lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a header of this name, in any case, is one whose value is never shown."""
    low = name.lower().replace("_", "-")
    if low in _NO_SECRET:
        return False
    return low in _ACCOUNT or low.endswith(_ENDS) or not _WORDS.isdisjoint(low.split("-"))


_SECRETS = re.compile(
    r"""
    (?P<bearer>(?i:bearer)\s+)[^\s"'<>,]+           # an Authorization value
  | (?P<user>://)[^/\s"'<>@]+@                       # user and password of a URL
  | \b(?P<kind>sk|ak|org|proj|cak)-[A-Za-z0-9_-]{8,}  # keys and account ids: org-<32 hex>, ak-<20 alnum>
    """,
    re.VERBOSE,
)


def mask(secret: str) -> str:
    """Enough of a key to tell two keys apart: `sk-…9f2c`. Keys too short to keep four characters show none."""
    if len(secret) < 16:
        return "…"
    head, dash, _ = secret.partition("-")
    prefix = head + dash if dash and len(head) <= 4 else ""
    return f"{prefix}…{secret[-4:]}"


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """
    The text with keys and account ids taken out: `org-…<ak-…>`.

    :param secrets: what was sent as one, however it looks (see `secrets_in`): a server may repeat it.
    """
    if secrets:
        text = _without(text, secrets)

    def hide(match: re.Match[str]) -> str:
        if match["user"]:
            return "://…@"
        bearer = match["bearer"]
        return f"{bearer}…" if bearer else f"{match['kind']}-…"

    return _SECRETS.sub(hide, text)


# How a text may spell a secret that it repeats: as part of a URL, of a page, or of JSON (PHP writes `\\/`). Only what no reader of
# JSON would stumble over is spelt out there, backslashes and quotes are left.
_ESCAPED = re.compile(r"\\+(?:(/)|u00(2[013-9a-fA-F]|[346][0-9a-fA-F]|5[0-9abd-fABD-F]|7[0-9a-eA-E]))")
_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("%", unquote),
    ("&", html.unescape),
    ("\\", lambda text: _ESCAPED.sub(lambda found: found[1] or chr(int(found[2], 16)), text)),
)


def _without(text: str, secrets: tuple[str, ...]) -> str:
    """The text without these, however they are spelt; what hides none is left as it is."""
    for sign, spelt_out in _SPELLINGS:
        if sign in text:
            plain = spelt_out(text)
            if any(plain.count(secret) > text.count(secret) for secret in secrets):
                text = plain
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def redacted(value: object, secrets: tuple[str, ...] = (), depth: int = 32) -> Any:
    """
    Decoded JSON with every string in it redacted: a server that refuses a key may repeat it. What is nested deeper than any
    error is left out.
    """
    if isinstance(value, str):
        return redact(value, secrets)
    if depth == 0 and isinstance(value, (list, dict)):
        return "…"
    if isinstance(value, list):
        return [redacted(item, secrets, depth - 1) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {
            redact(name, secrets) if isinstance(name, str) else name: redacted(item, secrets, depth - 1)
            for name, item in cast("dict[object, object]", value).items()
        }
    return value


def secrets_in(headers: Mapping[str, str], url: str = "") -> tuple[str, ...]:
    """
    The secret values among a request's headers, without their scheme (`Bearer …`), and in the query of its address; such as are
    too short to be told from ordinary words are left out.
    """
    found: set[str] = set()
    for name, value in headers.items():
        if is_secret(name):
            found.update((str(value), *str(value).split()))
    if "?" in url:
        found.update(value for name, value in parse_qsl(url.partition("?")[2]) if is_secret(name))
    return tuple(sorted((each for each in found if len(each) >= 8), key=len, reverse=True))


def secrets_of(request: object) -> tuple[str, ...]:
    """What a reply may repeat of this request's headers and address."""
    headers = getattr(request, "headers", None)
    if not isinstance(headers, Mapping) or isinstance(headers, PlainHeaders):
        return ()
    return secrets_in(cast("Mapping[str, str]", headers), str(getattr(request, "url", "")))


def bare(error: BaseException) -> None:
    """
    Takes from an error, before it is raised again, the frames that it came through and what it was raised in place of: they hold
    addresses with their queries, proxies with their passwords, and the reply as it came, which may repeat a key; whoever shows a
    traceback with its locals would show them.
    """
    if error.__suppress_context__:
        error.__context__ = None
    error.__traceback__ = None


class PlainHeaders(dict[str, str]):
    """Headers without secrets, fit to be kept, printed and pickled: lower-case names, found in any case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name.lower() if isinstance(name, str) else name)

    def get(self, name: str, default: Any = None, /) -> Any:
        return super().get(name.lower(), default)


def shown(headers: Mapping[str, str], secrets: tuple[str, ...] = ()) -> PlainHeaders:
    """What may be kept of headers: secret ones left out, the others redacted."""
    return PlainHeaders(
        {
            str(name).lower(): redact(str(value), secrets)
            for name, value in headers.items()
            if not is_secret(name)
        }
    )


def _has_place(parts: SplitResult) -> bool:
    """Whether what stands for host and port is one: a password with a slash in it ends in the path."""
    try:
        return bool(parts.netloc) and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


def redact_url(url: str) -> str:
    """
    The URL without user, password, query and fragment, which may all hold secrets; also where it is none, for want of a scheme or
    since its password has a slash in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        if "@" not in url:
            return "<unreadable URL>"
        parts = None
    if "@" in url and (parts is None or not _has_place(parts)):
        head, colon, rest = url.rpartition("://")
        return redact(head + colon + re.split("[?#]", rest.rpartition("@")[2])[0])
    scheme, netloc, path, _, _ = cast("SplitResult", parts)
    return redact(urlunsplit((scheme, netloc.rpartition("@")[2], path, "", "")))


class Secret(str):
    """A string that a traceback or debugger shows masked. `str(secret)` gives the plain value, for the wire alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(mask(str(self)))

    def __getitem__(self, key: Any) -> "Secret":
        # Printers of long strings (rich among them) cut before they ask for a repr.
        return Secret(super().__getitem__(key))

    def __reduce__(self) -> Any:
        # A key that travels inside a pickle ends on somebody's disk.
        return (str, (mask(str(self)),))


class Unshown:
    """Stands for what was given in place of a secret and is none: what it is may be told, and nothing of what it holds."""

    def __init__(self, value: object) -> None:
        self.kind: str = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self.kind}, not shown>"


class SecretURL(Secret):
    """A URL whose user, password, query and fragment are masked where a `Secret` would be."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(redact_url(str(self)))

    def __getitem__(self, key: Any) -> Secret:
        return Secret(redact_url(str(self))[key])

    def __reduce__(self) -> Any:
        return (str, (redact_url(str(self)),))
