"""
Arguments, then environment, then defaults: resolved once, checked, and frozen.
"""

import os
import platform
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit

from .errors import ConfigurationError
from .redact import Secret, is_secret
from .transport.exchange import Headers, Timeout
from .types._base import NotGiven, Omit

__all__ = ["BASE_URL", "BASE_URL_VARIABLES", "KEY_VARIABLES", "Config", "resolve_key"]

BASE_URL = "https://api.moonshot.ai/v1"
KEY_VARIABLES = ("MOONSHOT_API_KEY", "KIMI_API_KEY")
BASE_URL_VARIABLES = ("MOONSHOT_BASE_URL", "KIMI_BASE_URL", "MOONSHOT_API_BASE")

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

ApiKey = str | Callable[[], Awaitable[str]]


def first_set(variables: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    """
    The first of these variables that is set and not blank.
    """
    for name in variables:
        value = environ.get(name, "").strip()
        if value:
            return value
    return None


def resolve_key(
    given: ApiKey | None,
    variables: tuple[str, ...] = KEY_VARIABLES,
    *,
    required: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Secret | Callable[[], Awaitable[str]]:
    """
    The key, checked. A callable is asked anew for every call, and its answer checked then.

    :raises ConfigurationError: if there is none, naming the variables that were looked at; or if it cannot be sent, without
        showing it.
    """
    if callable(given):
        return given
    source = "api_key"
    if given is None:
        source = "the environment"
        given = first_set(variables, os.environ if environ is None else environ)
    given = masked(given)
    if given is None:
        if not required:
            return Secret("")
        raise ConfigurationError(
            f"no API key: pass api_key=, or set {' or '.join(variables)} (looked at in that order). "
            "Keys come from platform.kimi.ai (international) or platform.kimi.com (China)"
        )
    return check_key(given, source)


def masked(key: Any) -> Any:
    """
    The key as a `Secret`, before anything is said about it: what a traceback shows of the frame is masked from here on.
    """
    return Secret(key) if isinstance(key, str) else key


def check_key(key: object, source: str = "api_key") -> Secret:
    key = masked(key)
    if not isinstance(key, Secret):
        raise ConfigurationError(f"{source} must be a string, not {type(key).__name__}")
    if not key.strip() and source != "the environment":
        raise ConfigurationError(f"the key given as {source} is blank")
    if not key.isascii() or not key.isprintable() or " " in key:
        # Other clients print such a key in the traceback of the HTTP library that refuses it.
        raise ConfigurationError(
            f"the key from {source} holds a line break, blank or other character that no header can carry; "
            "was it copied with the end of its line? (the key is not shown here)"
        )
    return key


def resolve_base_url(
    given: str | None,
    variables: tuple[str, ...] = BASE_URL_VARIABLES,
    default: str = BASE_URL,
    *,
    environ: Mapping[str, str] | None = None,
) -> str:
    """
    The address, checked, with a slash at its end.
    """
    url = (
        str(given)
        if given is not None
        else first_set(variables, os.environ if environ is None else environ) or default
    )
    url = url.strip()
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or 0 < parts.port < 65536
    except ValueError as exc:
        raise ConfigurationError(f"base_url is not a URL: {exc}") from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_is_fine
        or _CONTROL.search(url)
        or " " in url
    ):
        raise ConfigurationError(
            f"base_url must be an http(s) URL such as {BASE_URL}; got {url[:200]!r}"
            + (" (is https:// missing?)" if "://" not in url else "")
        )
    if parts.username or parts.password:
        raise ConfigurationError("base_url holds a user name or password; pass the key as api_key")
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url holds a query or fragment; pass default_query instead")
    return url.rstrip("/") + "/"


# They say how a message is framed and how far it goes, and that is the transport's to say: with one of them from outside, a
# proxy and the host can see two different requests in the same bytes (RFC 9112 §11.2). Some servers read `_` as `-`.
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


def hidden(headers: Any) -> Any:
    """The same headers; those that hold secrets masked where a traceback shows them."""
    if not isinstance(headers, Mapping):
        return headers  # `_mapping` says what is wrong with it
    return {
        name: Secret(value) if isinstance(value, str) and isinstance(name, str) and is_secret(name) else value
        for name, value in cast("Mapping[Any, object]", headers).items()
    }


def check_headers(headers: Mapping[str, Any] | None) -> dict[str, str | Omit]:
    """
    Headers that can be sent. `omit` removes one that would be sent by default.

    :raises ConfigurationError: for what no header can carry, and for those that frame the message (`Content-Length`,
        `Transfer-Encoding`, `Host`, …), which a service might pass on from its own callers.
    """
    headers = hidden(headers)
    checked: dict[str, str | Omit] = {}
    for name, value in _mapping(headers, "headers").items():
        if isinstance(value, NotGiven):
            continue
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{str(name)[:80]!r} is not a header name")
        if isinstance(value, Omit):
            checked[name] = value
            continue
        if name.lower().replace("_", "-") in FRAMING:
            raise ConfigurationError(
                f"the header {name} cannot be set: it says how the message is framed or where it goes, which the "
                "connection itself decides; leave it out (relaying a request, pass on only the headers that you know)"
            )
        checked[name] = check_header_value(f"header {name}", value)
    return checked


def check_header_value(what: str, value: object) -> str:
    """
    The value as text that a header can carry; it stays a `Secret` if it was one.

    :raises ConfigurationError: for a line break or what is not ASCII, without showing it.
    """
    text = value if isinstance(value, str) else str(value)
    if _CONTROL.search(text) or not text.isascii():
        raise ConfigurationError(f"the value of {what} holds a line break or a character that is not ASCII")
    return text


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping of names to values, not {type(value).__name__}")
    return cast("Mapping[str, Any]", value)


def check_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    A copy; `query_string` writes it out.
    """
    return dict(_mapping(query, "query parameters"))


def query_string(query: Mapping[str, Any] | None) -> str:
    """
    `a=1&b=true&c=x&c=y`: as the OpenAI SDK writes it, lists as repeated names.
    """
    pairs: list[str] = []
    for name, value in (query or {}).items():
        if value is None or isinstance(value, (NotGiven, Omit)):
            continue
        values: list[Any] = list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else [value]
        for item in values:
            text = {True: "true", False: "false"}[item] if isinstance(item, bool) else str(item)
            pairs.append(f"{quote(name, safe='[]')}={quote(text, safe='')}")
    return "&".join(pairs)


def check_max_retries(value: object) -> int:
    if value is None:
        raise TypeError("max_retries cannot be None; for no retries, pass 0, and for many, a large number")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise (TypeError if not isinstance(value, int) or isinstance(value, bool) else ValueError)(
            f"max_retries must be an int of 0 or more; got {value!r}"
        )
    return value


def user_agent(version: str) -> str:
    return f"kimi-async/{version} Python/{platform.python_version()}"


@dataclass(frozen=True, slots=True)
class Config:
    """
    What one client, or one `with_options` view of it, sends with every call.
    """

    api_key: Secret | Callable[[], Awaitable[str]]
    base_url: str
    timeout: Timeout
    max_retries: int
    default_headers: Mapping[str, str | Omit] = field(default_factory=dict[str, "str | Omit"])
    default_query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    organization: str | None = None
    project: str | None = None
    priority: int = 0
    deadline: float | None = None
    """Seconds from its start that a call may take, retries and waits for limits included."""
    cost: int | None = None
    mode: Literal["wait", "fail_fast"] = "wait"

    def replace(self, **changes: Any) -> "Config":
        return replace(self, **changes)

    def headers(self, agent: str) -> Headers:
        """
        The headers of every request of this client; the key among them unless it must be asked for.
        """
        headers = Headers(
            {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": agent}
        )
        if isinstance(self.api_key, str) and self.api_key:
            headers["Authorization"] = Secret(f"Bearer {self.api_key}")
        if self.organization:
            headers["OpenAI-Organization"] = self.organization
        if self.project:
            headers["OpenAI-Project"] = self.project
        merge_headers(headers, self.default_headers)
        return headers


def merge_headers(headers: Headers, more: Mapping[str, str | Omit]) -> None:
    for name, value in more.items():
        if isinstance(value, Omit):
            headers.popall(name, None)
        else:
            headers[name] = value
