"""
`AsyncKimi`, the client: options in, resources out, and one `call` through the whole chain that every resource uses.
"""

import asyncio
import difflib
import inspect
import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, Unpack, cast

from . import codec
from ._version import __version__
from .config import (
    SHARED_VARIABLE,
    ApiKey,
    Config,
    check_account,
    check_headers,
    check_max_retries,
    check_query,
    check_size,
    hidden,
    hide,
    masked,
    masked_url,
    resolve_base_url,
    resolve_key,
    stream_headers,
    user_agent,
)
from .errors import APIStatusError, ClientClosedError, ConfigurationError
from .middleware.chain import Middleware
from .middleware.stack import Shared, Stack
from .providers.hosts import Provider, by_base_url
from .providers.hosts import provider as find_provider
from .redact import SecretURL, mask
from .resources.building import RequestBuilder
from .resources.caller import CallOptions, TimeoutLike
from .resources.threads import to_the_end
from .resources.tree import ResourceTree
from .transport.exchange import (
    NOTHING,
    Body,
    Request,
    Response,
    Timeout,
    Transport,
    TransportSettings,
)
from .transport.framing import check_framing
from .transport.proxies import check_proxy
from .types._base import NOT_GIVEN, NotGiven, is_given

if TYPE_CHECKING:
    import aiohttp

    from .bulk.batches import AsyncBatches
    from .bulk.map import Map, MapParams, Requests
    from .middleware.events import Hook
    from .middleware.failover import Failover, FailoverTarget
    from .middleware.rate_limit.limiter import Limiter
    from .middleware.rate_limit.limits import RateLimits
    from .middleware.rate_limit.shared import Ledger
    from .middleware.retry.policy import RetryPolicy
    from .tools.run import AroundTool

__all__ = ["AsyncKimi"]

T = TypeVar("T")


class AsyncKimi(RequestBuilder, ResourceTree):
    """
    The client. One for a whole service: it holds the connections, the limits and the retry budget that calls share.

        async with AsyncKimi() as client:
            completion = await client.chat.completions.create(model="kimi-k3", messages=[...])

    Without arguments the key comes from `MOONSHOT_API_KEY`, then `KIMI_API_KEY`, and the address from `MOONSHOT_BASE_URL`,
    `KIMI_BASE_URL` or `MOONSHOT_API_BASE`, else `https://api.moonshot.ai/v1`. Keys of the international and the Chinese host
    (`https://api.moonshot.cn/v1`) are not interchangeable.

    It may be used from several event loops, one after another or at once in several threads: each loop gets connections of its
    own. asyncio only, since aiohttp is; uvloop is fine.

    :param provider: a gateway by name, such as `"openrouter"` or `"vllm"`: its address, key variable and peculiarities (see
        `kimi_async.providers`). `base_url` beside it moves the address and keeps the rest.
    :param api_key: the key, or a function, async or not, that is asked for it before every attempt of a call.
    :param timeout: a `Timeout`; or a number of seconds for each phase; or None for no limit.
    :param max_retries: attempts after the first, for failures that a repetition can mend. See `RetryPolicy` for the rest.
    :param http_client: your own `aiohttp.ClientSession`; it stays yours to close. (An httpx client cannot be used.)
    :param transport: anything with `async def send(request) -> Response`, in place of aiohttp; closed with the client where it
        has `aclose()`.
    :param proxy: an HTTP proxy's URL (`127.0.0.1:3128` will do); without it, HTTPS_PROXY and its kin are obeyed unless `trust_env`
        is False. SOCKS is refused.
    :param ssl: an `ssl.SSLContext`; or False to accept any certificate, which hands the key to whoever is in between.
    :param middleware: see `kimi_async.middleware`; outermost first.
    :param limits: `RateLimits(...)`, or `"tier0"` … `"tier5"`; without it, limits are learnt from the server's refusals.
    :param limiter: an `AdmissionController` to share with other clients.
    :param shared: where the limits are kept that several processes share: `"host"` (this machine's), `"redis://…"`, `"ray"` or a
        ledger; see `kimi_async.middleware.rate_limit.shared`. Without it, `KIMI_SHARED_LIMITS`; False for none in any case.
    :param quota: names the organisation in a shared ledger. Without it, a digest of the key does.
    :param on_lost: while a shared ledger is away: `"share"` goes on with what this process had, `"block"` waits, `"raise"` raises
        `SharedLimitsError`.
    :param retry: a `RetryPolicy`.
    :param hooks: callables that are told what happens; see `kimi_async.middleware.events`.
    :param fallback: clients of other hosts or keys, to go on to where this one cannot answer: a list, or a `Failover` that says more.
        They are closed with this client.
    :param advice: warn (`KimiWarning`) of what the official host is certain to refuse; see `kimi_async.providers.advice`.
    :param max_event_size: bytes of one streamed event.
    :param max_response_size: bytes of one reply that is neither a stream nor a file's content, decompressed.
    :param max_error_size: bytes of an error's body that are read; the rest is cut.
    :param max_header_size: bytes of one header line of a reply.
    :param webhook_secret, websocket_base_url, _strict_response_validation: names that `AsyncOpenAI` has; Kimi has no use for
        them, and they are refused where they ask for something.

    :raises ConfigurationError: what is wrong with which argument; a key is never shown.
    """

    def __init__(
        self,
        *,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
        max_retries: int = 2,
        default_headers: Mapping[str, object] | None = None,
        default_query: Mapping[str, object] | None = None,
        http_client: "aiohttp.ClientSession | TransportSettings | None" = None,
        transport: Transport | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trust_env: bool = True,
        middleware: Sequence[Middleware] = (),
        limits: "RateLimits | str | None" = None,
        limiter: "Limiter | None" = None,
        shared: "str | Ledger | Literal[False] | None" = None,
        quota: str | None = None,
        on_lost: Literal["share", "block", "raise"] = "share",
        retry: "RetryPolicy | None" = None,
        hooks: "Sequence[Hook]" = (),
        fallback: "Failover | Sequence[AsyncKimi | FailoverTarget] | None" = None,
        provider: str | Provider | None = None,
        organization: str | None = None,
        project: str | None = None,
        advice: bool = True,
        max_event_size: int = 16 << 20,
        max_response_size: int = 64 << 20,
        max_error_size: int = 1 << 20,
        max_header_size: int = 16 << 10,
        webhook_secret: None = None,
        websocket_base_url: None = None,
        _strict_response_validation: Literal[False] = False,
        **unknown: Never,
    ) -> None:
        # First of all: from here on a traceback shows them masked.
        api_key, default_headers, default_query = (
            masked(api_key),
            hidden(default_headers),
            hidden(default_query),
        )
        base_url, proxy = masked_url(base_url), masked_url(proxy)
        shared = masked_url(shared) if isinstance(shared, str) else shared
        webhook_secret = cast("None", masked(webhook_secret))
        misspelt = list(unknown)
        unknown.clear()
        if proxy is not None:
            proxy = check_proxy(proxy)
        _refuse(misspelt, webhook_secret, websocket_base_url, _strict_response_validation)
        row = find_provider(provider) if isinstance(provider, str) else provider
        if row is not None and not isinstance(row, Provider):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"provider must be a name such as 'openrouter', not {type(row).__name__}")
        _check_policies(retry, limits, limiter)
        sharing = _sharing(shared, quota, on_lost, limits, limiter)
        hooks = _callables("hooks", hooks, "an event", plain=True)
        middleware = _callables("middleware", middleware, "(request, send)")
        self._provider = row
        self._config = Config(
            api_key=resolve_key(api_key)
            if row is None
            else resolve_key(api_key, row.key_variables, required=row.key_required),
            base_url=resolve_base_url(base_url)
            if row is None
            else resolve_base_url(base_url, row.base_url_variables, row.base_url),
            timeout=Timeout() if not is_given(timeout) else Timeout.of(timeout),
            max_retries=check_max_retries(
                max_retries if retry is None or retry.max_retries is None else retry.max_retries
            ),
            default_headers={
                **(check_headers(dict(row.headers)) if row is not None else {}),
                **check_headers(default_headers),
            },
            default_query=check_query(default_query),
            organization=check_account("organization", organization),
            project=check_account("project", project),
        )
        if isinstance(http_client, TransportSettings):
            if proxy is None and http_client.proxy is not None:
                proxy = check_proxy(http_client.proxy, "http_client's proxy")
            ssl = http_client.ssl if ssl is None else ssl
            http_client = None
        _check_carrier(http_client, transport)
        _check_connections(ssl, trust_env, advice)
        if fallback is not None:
            from .middleware.failover import Failover, asking_again_soon

            fallback = fallback if isinstance(fallback, Failover) else Failover(fallback)
            middleware = [*middleware, fallback]
            retry = asking_again_soon(retry)
        self._fallback = fallback
        self._max_event_size = check_size("max_event_size", max_event_size)
        self._advice = advice
        self._stack = Stack(
            transport=transport,
            pool_options={
                "session": http_client,
                "proxy": proxy,
                "ssl": ssl,
                "trust_env": trust_env,
                "max_response_size": check_size("max_response_size", max_response_size),
                "max_error_size": check_size("max_error_size", max_error_size),
                "max_header_size": check_size("max_header_size", max_header_size),
            },
            middleware=middleware,
            limits=limits,
            limiter=limiter,
            shared=sharing,
            retry=retry,
            hooks=hooks,
            own=row is not None and row.own,
        )
        # Whoever makes a client will ask something, so that the first question need not pay for the import.
        import_module(".resources.chat", __package__)
        self._settle()
        if fallback is not None:
            fallback.stands_by_for(self)

    def _settle(self) -> None:
        """Works out, once, what every call of this configuration shares."""
        self._headers = self._config.headers(user_agent(__version__))
        self._stream_headers = stream_headers(self._headers)
        self._organisation = self._config.account
        self._row = self._provider or by_base_url(self._config.base_url)
        self._targets: dict[str, str] = {}

    # --- what is made of many calls ---

    @cached_property
    def batches(self) -> "AsyncBatches":
        from .bulk.batches import AsyncBatches

        return AsyncBatches(self)

    def map(self, requests: "Requests", **options: "Unpack[MapParams]") -> "Map":
        """
        One `Result` for each request of an iterable, many at a time, as they are finished. Memory does not grow with the input.

            async with client.map("in.jsonl", journal="out.jsonl", concurrency=50) as results:
                async for result in results:
                    print(result.custom_id, result.text or result.error)

        What comes back is a `Map`: iterate it once, under `async with` or to its end. `results.progress` says how far it is,
        `results.stop()` sends nothing more. A result has `custom_id`, `index`, `completion`, `text`, `parsed`, `usage`, `attempts`,
        `elapsed`, and `error` where its request failed, which stops nobody else.

        :param requests: a path to a JSONL file in the Batch API's format, or an iterable or async iterable of strings (one user
            message each), lists of messages, mappings with what `create` takes, lines of the Batch API, or tuples
            (custom_id, any of these). With a journal each needs a `custom_id`.

        :param model: for requests that name none. None by default.
        :param defaults: a mapping of more fields for requests that do not have them: `max_completion_tokens`, `thinking`, …
        :param response_format: as for `create`, or a type: then `Result.parsed` is an object of it.
        :param stream: stream every answer; it is put together before it is handed out. False by default.
        :param on_chunk: called with the custom_id and each chunk of a streamed answer, and with an `AnswerBegunAnew` where one that
            had broken off comes once more.
        :param resume: go on by partial mode where a streamed answer breaks off (True or a `ResumePolicy`); by default it is asked
            for again.
        :param leaked_tools: `"mend"`, `"warn"` or `"off"`, as for `create`; what is mended is mended in the journal as well.

        :param concurrency: requests under way at once. None, the default, follows the client's limits, or is 64 where none is known.
        :param ordered: results in the order of the input. False by default.
        :param window: results that may be under way or not yet taken; None: chosen by the concurrency.

        :param journal: a JSONL file that gets a line for each result before you see it, and from which the next start goes on:
            requests already answered in it are not sent again.
        :param replay: hand out what the journal holds already, too. False by default.
        :param redo: which failures in the journal are sent again: `"transient"` (the default), `"failed"` (all) or `"none"`.
        :param on_changed: what to do where the journal answers another request of the same custom_id: `"error"` (the default),
            `"resend"` or `"keep"`.
        :param durability: what a result is safe from when it is handed out: `"disk"` (the default, a power cut) or `"process"`
            (`kill -9`).

        :param token_budget: tokens, in and out, after which nothing more is sent.
        :param cost_budget: the same in money; needs `price`.
        :param price: what tokens cost: a `TokenPrice`, prices by model, or a function of the completion.
        :param max_error_rate: stop when more than this share (0 to 1) of the last results failed; None, the default: never.
        :param error_window: how many results `max_error_rate` looks back on; 100 by default.
        :param deadline: seconds after which the run ends; what is under way is given up.
        :param stop_on: errors that stop the run at once; by default those after which all others would fail alike: a wrong key, no
            permission, no money, the day's tokens, a closed client.
        :param on_stop: `"raise"` (the default) a `MapStoppedError`, or `"return"` and let `results.stopped` tell why.

        :param on_progress: called with a `MapProgress` every `progress_interval` seconds and at the end; what it raises is logged.
        :param progress_interval: 0.5 s by default.
        :param total: how many requests there are, where the input cannot tell.
        :param repair: for a path: read past a byte order mark, CR LF and blank lines. False by default.
        :param max_line_size: for a path: bytes of one line, 8 MiB by default.

        :raises ConfigurationError, TypeError: an option that cannot be meant or does not exist, at once.
        :raises InvalidLinesError: lines of the file that cannot be sent, each by its number; nothing was sent.
        :raises MapStoppedError: a condition above stopped the run before its end.
        :raises JournalLockedError: another run writes to this journal.
        :raises JournalMismatchError: the input was changed since the journal was written; see `on_changed`.
        :raises JournalWriteError: a result could not be written, as on a full disk.
        """
        from .bulk.map import Map, options_of

        return Map(self, requests, options_of(options))

    # --- what it was told ---

    @property
    def account(self) -> str:
        """Which account calls go to: the address and a digest of the key."""
        return " ".join(self._organisation)

    @property
    def gives_advice(self) -> bool:
        """Whether requests are looked through for what the official host refuses."""
        return self._advice and self._row is not None and self._row.fixed_sampling

    @property
    def max_event_size(self) -> int:
        """Bytes that one streamed event may have."""
        return self._max_event_size

    @property
    def limiter(self) -> "Limiter":
        """Who admits requests: `client.limiter.stats()` says what is waiting, and for what."""
        return self._stack.limiter_for(self._organisation)

    @property
    def around_tool(self) -> "AroundTool | None":
        return cast("AroundTool | None", self._stack.around_tool)

    # --- life ---

    async def close(self) -> None:
        """
        Closes the connections, also those of streams still open. Views made by `with_options` are closed with it.

        Cancelled, it closes them all the same, and then the cancellation goes on.
        """
        closing = asyncio.ensure_future(self._close())
        await to_the_end(closing)
        closing.result()

    async def _close(self) -> None:
        try:
            await self._stack.aclose()
        finally:
            if self._fallback is not None:
                await self._fallback.aclose()

    async def aclose(self) -> None:
        await self.close()

    def is_closed(self) -> bool:
        return self._stack.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        if "_stack" not in self.__dict__:
            return f"<{type(self).__name__}, not made to its end>"
        key = self._config.api_key
        shown = mask(str(key)) if isinstance(key, str) else "from a function"
        closed = ", closed" if self._stack.closed else ""
        return f"<{type(self).__name__} {self._config.base_url} key {shown}{closed}>"

    def with_options(
        self,
        *,
        api_key: ApiKey | None = None,
        organization: str | None = None,
        project: str | None = None,
        base_url: str | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        default_headers: Mapping[str, object] | None = None,
        set_default_headers: Mapping[str, object] | None = None,
        default_query: Mapping[str, object] | None = None,
        set_default_query: Mapping[str, object] | None = None,
        priority: int | NotGiven = NOT_GIVEN,
        deadline: float | NotGiven | None = NOT_GIVEN,
        cost: int | NotGiven | None = NOT_GIVEN,
        mode: Literal["wait", "fail_fast"] | NotGiven = NOT_GIVEN,
        _extra_kwargs: Mapping[str, object] = {},
    ) -> Self:
        """
        The same client with other options: `client.with_options(max_retries=5).chat.completions.create(...)`.

        Connections, limits and budgets are shared, so it costs next to nothing. `default_headers` and `default_query` are
        added to those there are; their `set_` forms replace them.

        :param priority: where requests queue for a limit, higher goes first; 0 by default.
        :param deadline: seconds that a call may take from its start, waits and retries included; a stream, until its first event.
        :param cost: tokens that a request will be charged, where you know better than our estimate.
        :param mode: `"fail_fast"` raises `RateLimitWaitError`, with the expected wait, instead of queueing.
        """
        # Before a traceback can show them.
        api_key, base_url = masked(api_key), masked_url(base_url)
        default_headers, set_default_headers = hidden(default_headers), hidden(set_default_headers)
        default_query, set_default_query = hidden(default_query), hidden(set_default_query)
        if _extra_kwargs:
            raise TypeError(f"unknown options: {', '.join(sorted(_extra_kwargs))}")
        config = self._config.changed(
            {
                "api_key": api_key,
                "base_url": base_url,
                "organization": organization,
                "project": project,
                "timeout": timeout,
                "max_retries": max_retries,
                "default_headers": default_headers,
                "default_query": default_query,
                "priority": priority,
                "deadline": deadline,
                "cost": cost,
                "mode": mode,
            },
            set_default_headers=set_default_headers,
            set_default_query=set_default_query,
        )
        view = object.__new__(type(self))
        view._max_event_size = self._max_event_size
        view._stack = self._stack
        view._advice = self._advice
        view._provider = self._provider
        view._fallback = self._fallback
        view._config = config
        view._settle()
        return view

    copy = with_options

    # --- calls ---

    async def send(self, request: Request) -> Response:
        """
        Sends a request through the whole chain: hooks, retries, limits, your middleware, the pool.

        For whatever is not a method here. The reply may have any status, after as many attempts as `max_retries`
        allows; its body is still to be read, or to be closed (`async with response:`), unless `request.accept` has taken it.
        A slot of the limiter is held until then.

        :raises APIConnectionError: no reply, or it broke off while `request.accept` read it.
        :raises RateLimitWaitError, CircuitOpenError, ConfigurationError: it was not sent.
        """
        check_framing(request.headers, but="content-length")
        if self._stack.closed:
            raise ClientClosedError("this client was closed; make a new one")
        return await self._stack.handler(self._organisation)(request)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        *,
        accept: Callable[[Response], Awaitable[T]],
        stream: bool = False,
        unlisted: bool = False,
        follow_redirects: bool = True,
        **options: Unpack[CallOptions],
    ) -> T:
        hide(options)
        if self._stack.closed:
            raise ClientClosedError("this client was closed; make a new one")
        request = self._request(method, path, body, stream, unlisted, follow_redirects, options)
        request.accept = accept
        response = await self._stack.handler(self._organisation)(request)
        if response.status >= 300:
            raise await _error(response, request)
        value = response.take_value()
        # A middleware may have answered by itself, with a reply that nobody has looked at.
        return cast("T", await accept(response) if value is NOTHING else value)


async def _error(response: Response, request: Request) -> APIStatusError:
    body = await response.read()
    error = response.error or codec.error_from(response.status, response.headers, body, response.request)
    error.attempts = tuple(request.history)
    error.given_up = response.given_up
    return error


def _check_carrier(session: Any, transport: object) -> None:
    for name, given in (("transport", transport), ("http_client", session)):
        if isinstance(given, type):
            raise TypeError(f"{name} is the class {given.__name__}: pass one of its objects")
    if transport is not None and not callable(getattr(transport, "send", None)):
        raise TypeError(f"transport must have `async def send(request)`; {type(transport).__name__} has none")
    if session is None:
        return
    if transport is not None:
        raise ConfigurationError("pass http_client or transport, not both")
    module = type(session).__module__.partition(".")[0]
    if module in ("httpx", "httpx2", "openai"):
        raise TypeError(
            f"http_client is an {module} client; this SDK runs on aiohttp: pass an aiohttp.ClientSession, or use proxy=, "
            "ssl=, timeout= and default_headers= instead"
        )
    if not (hasattr(session, "request") and hasattr(session, "connector")):
        raise TypeError(
            f"http_client must be an aiohttp.ClientSession, not {type(session).__name__}; for another transport pass "
            "transport=, an object with `async def send(request)`"
        )


def _check_connections(ssl: object, trust_env: object, advice: object) -> None:
    # aiohttp's Fingerprint has a way of its own, and would say of anything else only at the first connection what it is not.
    if (
        ssl is not None
        and not isinstance(ssl, (bool, ssl_module.SSLContext))
        and not hasattr(ssl, "fingerprint")
    ):
        how = (
            f"; for a file of certificates, ssl.create_default_context(cafile={ssl!r})"
            if isinstance(ssl, str)
            else ""
        )
        raise TypeError(f"ssl must be an ssl.SSLContext, True, False or None, not {type(ssl).__name__}{how}")
    for name, given in (("trust_env", trust_env), ("advice", advice)):
        if not isinstance(given, bool):
            raise TypeError(f"{name} must be True or False, not {type(given).__name__} ({given!r:.40})")


_OF_OPENAI = {
    "webhook_secret": "Kimi sends no webhooks",
    "websocket_base_url": "Kimi has no realtime interface",
    "_strict_response_validation": "replies are read leniently on purpose; decode a raw reply with parse(to=...) to be strict",
}


def _refuse(unknown: list[str], *of_openai: object) -> None:
    for name, value in zip(_OF_OPENAI, of_openai, strict=True):
        if value:
            raise ConfigurationError(f"{name} has no effect here: {_OF_OPENAI[name]}; leave it out")
    known = [
        name for name in inspect.signature(AsyncKimi.__init__).parameters if name not in ("self", "unknown")
    ]
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        raise TypeError(
            f"AsyncKimi() got an unexpected keyword argument {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(known)}")
        )


def _callables(name: str, given: Any, takes: str, *, plain: bool = False) -> list[Any]:
    """The callables of an option that takes several; one alone is understood too."""
    if callable(given):
        _check_callable(name, given, takes, plain)
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        kind = type(cast("object", given)).__name__
        raise TypeError(f"{name} must be a list of callables with {takes}, not {kind}")
    several = list[Any](given)  # pyright: ignore[reportUnknownArgumentType]
    for each in several:
        _check_callable(name, each, takes, plain)
    return several


def _check_callable(name: str, given: object, takes: str, plain: bool) -> None:
    if not callable(given):
        raise TypeError(f"{name} must be callable with {takes}; {type(given).__name__} is not")
    if isinstance(given, type):
        raise TypeError(
            f"{name} must be callable with {takes}; {given.__name__} is a class: pass one of its objects"
        )
    try:
        inspect.signature(given).bind(*takes.split(","))
    except TypeError as exc:
        raise TypeError(f"{name} must be callable with {takes}; {_name_of(given)} is not: {exc}") from None
    except ValueError:
        pass  # a builtin that does not tell what it takes
    if plain and (inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(type(given).__call__)):
        raise TypeError(
            f"{name} are plain functions, called in place: {_name_of(given)} is async and would never run; let it take events "
            "from a queue (hooks=[queue.put_nowait])"
        )


def _name_of(given: object) -> str:
    return getattr(given, "__qualname__", type(given).__qualname__)


def _sharing(where: Any, quota: str | None, on_lost: Any, limits: Any, limiter: object) -> Shared:
    """What `shared` and its companions mean, checked."""
    if where is None and limiter is None:
        where = SecretURL(os.environ.get(SHARED_VARIABLE, "").strip())
    elif where is not None and where is not False and limiter is not None:
        raise ConfigurationError("pass shared or limiter, not both: a limiter brings its own quota")
    if where is True:
        raise TypeError("shared must say where: 'host', 'redis://…', 'ray' or a ledger")
    sharing = Shared(where or None, quota, on_lost)
    sharing.check(limits)
    return sharing


def _check_policies(retry: object, limits: Any, limiter: object) -> None:
    """What would otherwise fail at the first failure, or at the first call."""
    from .middleware.rate_limit.limits import RateLimits
    from .middleware.retry.policy import RetryPolicy

    if retry is not None and not isinstance(retry, RetryPolicy):
        number = f"; for a number of attempts pass max_retries={int(retry)}" if isinstance(retry, int) else ""
        raise TypeError(f"retry must be a RetryPolicy, not {type(retry).__name__}{number}")
    if limiter is not None and (
        isinstance(limiter, type) or not callable(getattr(limiter, "try_acquire", None))
    ):
        raise TypeError(
            f"limiter must be an AdmissionController, not {type(limiter).__name__}; for numbers pass limits=RateLimits(...)"
        )
    if isinstance(limits, int):
        raise TypeError(
            f"limits must say of what: RateLimits(concurrency={limits}), or a tier such as 'tier1'"
        )
    RateLimits.of(limits)
