"""
Arguments, then environment, then defaults: resolved once, checked, and frozen.
"""

import os
import platform
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast
from urllib.parse import quote, urlsplit

from .errors import ConfigurationError
from .redact import Secret, SecretURL, Unshown, is_secret, redact_url
from .transport.exchange import Headers, Timeout, TimeoutLike
from .transport.framing import check_framing
from .types._base import NotGiven, Omit, is_given, omit

__all__ = ["BASE_URL", "BASE_URL_VARIABLES", "KEY_VARIABLES", "Config", "Configured", "resolve_key"]

T = TypeVar("T")

BASE_URL = "https://api.moonshot.ai/v1"
KEY_VARIABLES = ("MOONSHOT_API_KEY", "KIMI_API_KEY")
SHARED_VARIABLE = "KIMI_SHARED_LIMITS"
BASE_URL_VARIABLES = ("MOONSHOT_BASE_URL", "KIMI_BASE_URL", "MOONSHOT_API_BASE")

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

KeyFunction = Callable[[], Awaitable[str] | str]
ApiKey = str | KeyFunction


def first_set(variables: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    """The first of these variables that is set and not blank."""
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
) -> Secret | KeyFunction:
    """
    The key, checked. A callable is asked anew for every attempt of a call, and its answer checked then.

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


def masked(key: T) -> T | Secret:
    """The key as a `Secret`, before anything is said about it: what a traceback shows of the frame is masked from here on."""
    if isinstance(key, str):
        return Secret(key)
    return (
        key
        if key is None or callable(key) or isinstance(key, (NotGiven, Omit, Unshown))
        else cast("T", Unshown(key))
    )


def masked_url(url: T) -> T | SecretURL:
    """The same for an address, which may hold a password."""
    if isinstance(url, str):
        return SecretURL(url)
    return cast("T", Unshown(url)) if isinstance(url, bytes) or hasattr(url, "password") else url


def check_key(key: object, source: str = "api_key") -> Secret:
    key = masked(key)
    if not isinstance(key, Secret):
        kind = key.kind if isinstance(key, Unshown) else type(key).__name__
        raise ConfigurationError(f"{source} must be a string, not {kind}")
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
    """The address, checked, with a slash at its end."""
    # Masked, since what is wrong with it may be that it holds a password.
    url = SecretURL(
        first_set(variables, os.environ if environ is None else environ) or default
        if given is None
        else given
    )
    url = SecretURL(url.strip())
    given = None
    if wrong := _wrong_with(url):
        raise ConfigurationError(wrong)
    return str(url).rstrip("/") + "/"


def _wrong_with(url: SecretURL) -> str | None:
    """What is wrong with an address; None if nothing is."""
    shown = redact_url(str(url))[:200]
    try:
        parts = urlsplit(str(url))
        port_is_fine = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        return f"base_url is not a URL: {shown!r}"
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not port_is_fine
        or _CONTROL.search(str(url))
        or " " in url
    ):
        return f"base_url must be an http(s) URL such as {BASE_URL}; got {shown!r}" + (
            " (is https:// missing?)" if "://" not in url else ""
        )
    if parts.username or parts.password:
        return "base_url holds a user name or password; pass the key as api_key"
    if parts.query or parts.fragment:
        return "base_url holds a query or fragment; pass default_query instead"
    if not url.isascii():
        return (
            f"base_url holds a character that is not ASCII ({shown!r}): write the host as xn--… (Python: name.encode('idna')) "
            "and the path with urllib.parse.quote()"
        )
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return (
            f"base_url ends in /chat/completions, which every call adds by itself: leave it out ({shown!r})"
        )
    return None


def hidden(headers: Any) -> Any:
    """The same headers, or query parameters; those that hold secrets masked where a traceback shows them."""
    if headers is None or isinstance(headers, (Unshown, NotGiven, Omit)):
        return headers
    if not isinstance(headers, Mapping):
        return Unshown(headers)  # `_mapping` says what is wrong with it
    return {
        name: (Secret(value) if isinstance(value, str) else Unshown(value))
        if isinstance(value, (str, bytes)) and isinstance(name, str) and is_secret(name)
        else value
        for name, value in cast("Mapping[object, object]", headers).items()
    }


def hide(given: Mapping[str, object]) -> None:
    """
    Masks the keys in a call's own headers and query, in place: a traceback shows the frames that they are handed through.
    """
    if not given:
        return
    fields = cast("dict[str, object]", given)
    for name in ("extra_headers", "extra_query"):
        if fields.get(name):
            fields[name] = hidden(fields[name])
    options = fields.get("options")
    if isinstance(options, Mapping):
        fields["options"] = {
            name: hidden(value) if name in ("headers", "params") else value
            for name, value in cast("Mapping[str, object]", options).items()
        }


def check_headers(headers: Mapping[str, object] | None) -> dict[str, str | Omit]:
    """
    Headers that can be sent. `omit`, or None, removes one that would be sent by default.

    :raises ConfigurationError: for what no header can carry, and for those that frame the message (`Content-Length`,
        `Transfer-Encoding`, `Host`, …), which a service might pass on from its own callers.
    """
    headers = hidden(headers)
    checked: dict[str, str | Omit] = {}
    for name, value in _mapping(headers, "headers").items():
        if isinstance(value, NotGiven):
            continue
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            told = re.sub(r"(?s)(?<=.):.*", ":…", str(name)[:80])  # a whole header, value included
            raise ConfigurationError(f"{told!r} is not a header name")
        if value is None or isinstance(value, Omit):
            checked[name] = omit
            continue
        check_framing([name])
        checked[name] = check_header_value(f"header {name}", value)
    return checked


def check_header_value(what: str, value: object) -> str:
    """
    The value as text that a header can carry; it stays a `Secret` if it was one.

    :raises ConfigurationError: for a line break, what is not ASCII, or what is no text, without showing it.
    """
    if not isinstance(value, (str, int, float)):
        kind = value.kind if isinstance(value, Unshown) else type(value).__name__
        raise ConfigurationError(f"the value of {what} must be a string, not {kind}")
    text = value if isinstance(value, str) else str(value)
    if _CONTROL.search(text) or not text.isascii():
        raise ConfigurationError(f"the value of {what} holds a line break or a character that is not ASCII")
    return text


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        kind = value.kind if isinstance(value, Unshown) else type(value).__name__
        raise TypeError(f"{what} must be a mapping of names to values, not {kind}")
    return cast("Mapping[str, Any]", value)


def check_query(query: Mapping[str, object] | None) -> dict[str, Any]:
    """A copy, masked as headers are; `query_string` writes it out."""
    query = hidden(query)
    checked = {str(name): value for name, value in _mapping(query, "query parameters").items()}
    for name, value in checked.items():
        if isinstance(value, (bytes, Mapping, Unshown)):
            kind = value.kind if isinstance(value, Unshown) else type(cast("object", value)).__name__
            raise ConfigurationError(
                f"the query parameter {name!r:.100} must be a string, a number, or a list of such, not {kind}"
            )
    return checked


def query_string(query: Mapping[str, object] | None) -> str:
    """`a=1&b=true&c=x&c=y`: as the OpenAI SDK writes it, lists as repeated names."""
    pairs: list[str] = []
    for name, value in (query or {}).items():
        if value is None or isinstance(value, (NotGiven, Omit)):
            continue
        values: list[Any] = list(cast("list[Any]", value)) if isinstance(value, (list, tuple)) else [value]
        for item in values:
            text = {True: "true", False: "false"}[item] if isinstance(item, bool) else str(item)
            try:
                pairs.append(f"{quote(name, safe='[]')}={quote(text, safe='')}")
            except UnicodeEncodeError:
                raise ConfigurationError(
                    f"the query parameter {name!r:.100} holds half a character (a lone surrogate)"
                ) from None
    return "&".join(pairs)


def check_max_retries(value: object) -> int:
    if value is None:
        raise TypeError("max_retries cannot be None; for no retries, pass 0, and for many, a large number")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise (TypeError if not isinstance(value, int) or isinstance(value, bool) else ValueError)(
            f"max_retries must be an int of 0 or more; got {value!r}"
        )
    return value


def check_account(name: str, value: object) -> str | None:
    """An organisation or project, which is sent as a header."""
    if value is None or isinstance(value, NotGiven):
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    return check_header_value(name, value)


def check_size(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ConfigurationError(f"{name} must be a number of bytes above 0; got {value!r}")
    return value


def check_seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{name} must be a number of seconds above 0; got {value!r}")
    return value


def check_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be an int; got {value!r}")
    return value


def user_agent(version: str) -> str:
    return f"kimi-async/{version} Python/{platform.python_version()}"


def stream_headers(headers: Headers) -> Headers:
    """The same for a streamed reply."""
    # Compressing one token at a time costs more than it saves, and a compressor may hold tokens back.
    changed = Headers(headers)
    changed["Accept"], changed["Accept-Encoding"] = "text/event-stream", "identity"
    return changed


@dataclass(frozen=True, slots=True)
class Config:
    """What one client, or one `with_options` view of it, sends with every call."""

    api_key: Secret | KeyFunction
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

    def changed(
        self,
        given: Mapping[str, Any],
        *,
        set_default_headers: Mapping[str, object] | None = None,
        set_default_query: Mapping[str, object] | None = None,
    ) -> "Config":
        """
        These options with others in their place, checked. What is not given stays as it is; headers and query parameters are
        added to those there are, or with `set_…` take their place.
        """
        for name, other in (
            ("default_headers", set_default_headers),
            ("default_query", set_default_query),
        ):
            if given.get(name) is not None and other is not None:
                raise ValueError(f"the `{name}` and `set_{name}` arguments are mutually exclusive")
        changes: dict[str, Any] = {}
        for name, value in given.items():
            if not is_given(value) or (value is None and name not in _MAY_BE_NONE):
                continue
            check = _CHECKS[name]
            changes[name] = check(value)
        if "default_headers" in changes:
            changes["default_headers"] = {**self.default_headers, **changes["default_headers"]}
        elif set_default_headers is not None:
            changes["default_headers"] = check_headers(set_default_headers)
        if "default_query" in changes:
            changes["default_query"] = {**self.default_query, **changes["default_query"]}
        elif set_default_query is not None:
            changes["default_query"] = check_query(set_default_query)
        return replace(self, **changes)

    @property
    def account(self) -> tuple[str, str]:
        """Which account calls go to: the address, and a digest of the key, which tells two apart without keeping one."""
        key = self.api_key
        if not isinstance(key, str):
            return self.base_url, f"function-{id(key)}"
        from hashlib import blake2b  # 5 ms, and the first client pays

        return self.base_url, blake2b(str(key).encode(), digest_size=12).hexdigest()

    def headers(self, agent: str) -> Headers:
        """The headers of every request of this client; the key among them unless it must be asked for."""
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


def _check_mode(value: object) -> str:
    if value not in ("wait", "fail_fast"):
        raise ConfigurationError(f"mode must be 'wait' or 'fail_fast'; got {value!r}")
    return value


def _check_cost(value: object) -> int | None:
    if value is None:
        return None
    cost = check_int("cost", value)
    if cost < 0:
        raise ConfigurationError(f"cost must be a number of tokens, 0 or more; got {cost}")
    return cost


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "api_key": resolve_key,
    "base_url": resolve_base_url,
    "timeout": Timeout.of,
    "max_retries": check_max_retries,
    "default_headers": check_headers,
    "default_query": check_query,
    "organization": partial(check_account, "organization"),
    "project": partial(check_account, "project"),
    "priority": partial(check_int, "priority"),
    "deadline": partial(check_seconds, "deadline"),
    "cost": _check_cost,
    "mode": _check_mode,
}
_MAY_BE_NONE = frozenset({"timeout", "max_retries", "deadline", "cost"})


def merge_headers(headers: Headers, more: Mapping[str, str | Omit]) -> None:
    for name, value in more.items():
        if isinstance(value, Omit):
            headers.popall(name, None)
        else:
            headers[name] = value


class Configured:
    """What a client was told, and may be told anew; views made before keep what they had."""

    _config: Config
    _headers: Headers
    """Of every request, the key among them unless it must be asked for."""
    _stream_headers: Headers
    """Of one whose reply is streamed."""

    def _settle(self) -> None:
        """Works out, once, what every call of this configuration shares."""
        raise NotImplementedError

    def _reconfigure(self, **changes: Any) -> None:
        taken_back = {
            name: None
            for name, value in changes.items()
            if value is None and name in ("organization", "project")
        }
        self._config = self._config.changed(changes).replace(**taken_back)
        self._settle()

    @property
    def api_key(self) -> str:
        """The key in plain. Empty where a function gives it."""
        key = self._config.api_key
        return str(key) if isinstance(key, str) else ""

    @api_key.setter
    def api_key(self, value: ApiKey) -> None:
        value = masked(value)
        self._reconfigure(api_key=value)

    @property
    def base_url(self) -> str:
        """With a slash at its end. May be set."""
        return self._config.base_url

    @base_url.setter
    def base_url(self, value: str) -> None:
        value = masked_url(value)
        self._reconfigure(base_url=value)

    @property
    def timeout(self) -> Timeout:
        return self._config.timeout

    @timeout.setter
    def timeout(self, value: TimeoutLike) -> None:
        self._reconfigure(timeout=value)

    @property
    def max_retries(self) -> int:
        return self._config.max_retries

    @max_retries.setter
    def max_retries(self, value: int) -> None:
        self._reconfigure(max_retries=value)

    @property
    def organization(self) -> str | None:
        return self._config.organization

    @organization.setter
    def organization(self, value: str | None) -> None:
        self._reconfigure(organization=value)

    @property
    def project(self) -> str | None:
        return self._config.project

    @project.setter
    def project(self, value: str | None) -> None:
        self._reconfigure(project=value)

    @property
    def default_headers(self) -> dict[str, str]:
        return dict(self._headers)

    @property
    def default_query(self) -> dict[str, Any]:
        return dict(self._config.default_query)

    @property
    def user_agent(self) -> str:
        return self._headers.get("User-Agent", "")
