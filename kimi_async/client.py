"""
`AsyncKimi`: opens and closes the house.
"""

import asyncio
import difflib
import re
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, cast, overload
from urllib.parse import quote, unquote, urlsplit

from ._version import __version__
from .codec import json as codec
from .config import (
    ApiKey,
    Config,
    check_headers,
    check_key,
    check_max_retries,
    check_query,
    masked,
    merge_headers,
    query_string,
    resolve_base_url,
    resolve_key,
    user_agent,
)
from .errors import APIStatusError, APITimeoutError, ClientClosedError, ConfigurationError
from .middleware.chain import Handler, Middleware, chain
from .providers.hosts import Provider, by_base_url, missing_endpoint_message
from .providers.hosts import provider as find_provider
from .redact import Secret, mask
from .resources.raw_replies import WithRawResponse, WithStreamingResponse, catching
from .streaming.fold import Accumulator
from .streaming.stream import AsyncStream
from .transport.exchange import (
    Body,
    Deadline,
    Headers,
    Request,
    Response,
    Timeout,
    Transport,
    TransportSettings,
    send_within,
)
from .types._base import NOT_GIVEN, NotGiven, is_given

if TYPE_CHECKING:
    import aiohttp

    from .bulk.map import Map, MapParams, Requests
    from .middleware.events import Hook
    from .middleware.rate_limit.middleware import AdmissionController, RateLimits
    from .middleware.retry.attempts import RetryBudget, RetryPolicy
    from .resources.batches import AsyncBatches
    from .resources.chat import AsyncBeta, AsyncChat
    from .resources.files import AsyncFiles
    from .resources.formulas import AsyncFormulas
    from .resources.models import AsyncModels
    from .resources.signatures import AsyncSignatures
    from .resources.tokenizers import AsyncTokenizers
    from .resources.users import AsyncUsers

__all__ = ["AsyncKimi"]

T = TypeVar("T")

WITH_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NOT_IN_A_URL = re.compile(r"[^!-\[\]-~]")

TimeoutLike = Any
"""A number of seconds, a `Timeout`, an `httpx.Timeout`, an `aiohttp.ClientTimeout`, or None for no limit."""


class _Core:
    """
    What a client shares with its `with_options` views: the transport, and the chain that leads to it.
    """

    def __init__(
        self,
        *,
        transport: Transport | None,
        pool_options: dict[str, Any],
        middleware: Sequence[Middleware],
        limits: Any,
        limiter: Any,
        retry: Any,
        hooks: Sequence[Any],
    ) -> None:
        self.closed = False
        self._transport = transport
        self._pool_options = pool_options
        self._middleware = list(middleware)
        self._limits = limits
        self._shared_limiter: AdmissionController | None = limiter
        self._limiters: dict[tuple[str, str], AdmissionController] = {}
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._budget: RetryBudget | None = None
        self._retry = retry
        self._hooks = hooks
        # Whoever makes a client will use it: what its first call needs is imported now, so that the call does not pay.
        import_module(".middleware.rate_limit", __package__)
        import_module(".middleware.retry", __package__)
        import_module(".resources.chat", __package__)

        if transport is None:
            import_module(".transport.aiohttp_pool", __package__)

    def limiter_for(self, organisation: tuple[str, str]) -> "AdmissionController":
        """
        Who admits the requests of one organisation: the address and the key, as a digest. Views with another key have their own
        limits, since Kimi counts by organisation; a limiter that was passed in serves them all.
        """
        from .middleware.rate_limit.middleware import AdmissionController

        limiter = self._shared_limiter or self._limiters.get(organisation)
        if limiter is None:
            limiter = self._limiters[organisation] = AdmissionController(self._limits)
        return limiter

    def handler(self, organisation: tuple[str, str]) -> Handler:
        """
        The whole chain, made at an organisation's first call.
        """
        known = self._handlers.get(organisation)
        if known is not None:
            return known
        from .middleware.events import TelemetryMiddleware, observer, setup_logging
        from .middleware.rate_limit.middleware import RateLimitMiddleware
        from .middleware.retry.attempts import RetryBudget, RetryMiddleware

        setup_logging()
        send = self.transport.send

        def attempt(request: Request) -> Awaitable[Response]:
            return send_within(send, request)

        if self._budget is None:
            self._budget = RetryBudget(500 if self._retry is None else self._retry.budget)
        watcher = observer(self._hooks)
        limiter = self.limiter_for(organisation)
        layers: list[Middleware] = [
            *([TelemetryMiddleware(watcher)] if watcher is not None else []),
            *(layer for layer in self._middleware if getattr(layer, "per_call", False)),
            RetryMiddleware(self._retry, budget=self._budget, watcher=watcher, limiter=limiter),
            RateLimitMiddleware(limiter, watcher=watcher),
            *(layer for layer in self._middleware if not getattr(layer, "per_call", False)),
        ]
        handle = self._handlers[organisation] = chain(layers, attempt)
        return handle

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            from .transport.aiohttp_pool import SessionPool

            self._transport = SessionPool(**self._pool_options)
        return self._transport

    async def aclose(self) -> None:
        self.closed = True
        transport = self._transport
        close = getattr(transport, "aclose", None)
        if close is not None:
            await close()


class AsyncKimi:
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
    :param api_key: the key, or an async function that is asked for it before every call.
    :param timeout: a `Timeout`; or a number of seconds for each phase; or None for no limit.
    :param max_retries: attempts after the first, for failures that a repetition can mend. See `RetryPolicy` for the rest.
    :param http_client: your own `aiohttp.ClientSession`; it stays yours to close. (An httpx client cannot be used.)
    :param transport: anything with `async def send(request) -> Response`, in place of aiohttp; closed with the client where it
        has `aclose()`.
    :param proxy: a proxy's URL; without it, HTTPS_PROXY and its kin are obeyed unless `trust_env` is False.
    :param ssl: an `ssl.SSLContext`; or False to accept any certificate, which hands the key to whoever is in between.
    :param middleware: see `kimi_async.middleware`; outermost first.
    :param limits: `RateLimits(...)`, or `"tier0"` … `"tier5"`; without it, limits are learnt from the server's refusals.
    :param limiter: an `AdmissionController` to share with other clients.
    :param retry: a `RetryPolicy`.
    :param hooks: callables that are told what happens; see `kimi_async.middleware.telemetry`.
    :param advice: warn (`KimiWarning`) of what the official host is certain to refuse; see `kimi_async.advice`.
    :param max_event_size: bytes of one streamed event.
    :param max_response_size: bytes of one reply that is not a stream, decompressed.
    :param max_error_size: bytes of an error's body that are read; the rest is cut.
    :param max_header_size: bytes of one header line of a reply.

    :raises ConfigurationError: what is wrong with which argument; a key is never shown.
    """

    def __init__(
        self,
        *,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
        max_retries: int = 2,
        default_headers: Mapping[str, Any] | None = None,
        default_query: Mapping[str, Any] | None = None,
        http_client: "aiohttp.ClientSession | TransportSettings | None" = None,
        transport: Transport | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trust_env: bool = True,
        middleware: Sequence[Middleware] = (),
        limits: "RateLimits | str | None" = None,
        limiter: "AdmissionController | None" = None,
        retry: "RetryPolicy | None" = None,
        hooks: "Sequence[Hook]" = (),
        provider: str | Provider | None = None,
        organization: str | None = None,
        project: str | None = None,
        advice: bool = True,
        max_event_size: int = 16 << 20,
        max_response_size: int = 256 << 20,
        max_error_size: int = 1 << 20,
        max_header_size: int = 16 << 10,
        webhook_secret: str | None = None,
        websocket_base_url: str | None = None,
        _strict_response_validation: bool = False,
    ) -> None:
        api_key = masked(api_key)  # first of all: from here on a traceback shows it so
        row = find_provider(provider) if isinstance(provider, str) else provider
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
                **(dict(row.headers) if row is not None else {}),
                **check_headers(default_headers),
            },
            default_query=check_query(default_query),
            organization=organization,
            project=project,
        )
        if isinstance(http_client, TransportSettings):
            proxy = http_client.proxy if proxy is None else proxy
            ssl = http_client.ssl if ssl is None else ssl
            http_client = None
        if http_client is not None:
            if transport is not None:
                raise ConfigurationError("pass http_client or transport, not both")
            _check_session(http_client)
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise TypeError(
                f"transport must have `async def send(request)`; {type(transport).__name__} has none"
            )
        for name, size in (
            ("max_event_size", max_event_size),
            ("max_response_size", max_response_size),
            ("max_error_size", max_error_size),
            ("max_header_size", max_header_size),
        ):
            if isinstance(size, bool) or not isinstance(size, int) or size <= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"{name} must be a number of bytes above 0; got {size!r}")
        for layer in middleware:
            if not callable(layer):
                raise TypeError(
                    f"middleware must be callable with (request, send); {type(layer).__name__} is not"
                )
        self._max_event_size = max_event_size
        self._advice = advice
        self._core = _Core(
            transport=transport,
            pool_options={
                "session": http_client,
                "proxy": proxy,
                "ssl": ssl,
                "trust_env": trust_env,
                "max_response_size": max_response_size,
                "max_error_size": max_error_size,
                "max_header_size": max_header_size,
            },
            middleware=middleware,
            limits=limits,
            limiter=limiter,
            retry=retry,
            hooks=hooks,
        )
        self._settle()

    def _settle(self) -> None:
        """
        Works out, once, what every call of this configuration shares.
        """
        self._headers = self._config.headers(user_agent(__version__))
        self._organisation = (self._config.base_url, _digest(self._config.api_key))
        self._row = self._provider or by_base_url(self._config.base_url)
        self._missing: dict[str, bool] = {}

    # --- resources ---

    @cached_property
    def chat(self) -> "AsyncChat":
        from .resources.chat import AsyncChat

        return AsyncChat(self)

    @cached_property
    def beta(self) -> "AsyncBeta":
        from .resources.chat import AsyncBeta

        return AsyncBeta(self)

    @cached_property
    def files(self) -> "AsyncFiles":
        from .resources.files import AsyncFiles

        return AsyncFiles(self)

    @cached_property
    def batches(self) -> "AsyncBatches":
        from .resources.batches import AsyncBatches

        return AsyncBatches(self)

    def map(self, requests: "Requests", **options: "Unpack[MapParams]") -> "Map":
        """
        One result for each request of an iterable, many at a time; see `kimi_async.pipeline.Map` for the options.
        """
        from .bulk.map import Map, options_of

        return Map(self, requests, options_of(options))

    @cached_property
    def models(self) -> "AsyncModels":
        from .resources.models import AsyncModels

        return AsyncModels(self)

    @cached_property
    def tokenizers(self) -> "AsyncTokenizers":
        from .resources.tokenizers import AsyncTokenizers

        return AsyncTokenizers(self)

    @cached_property
    def users(self) -> "AsyncUsers":
        from .resources.users import AsyncUsers

        return AsyncUsers(self)

    @cached_property
    def formulas(self) -> "AsyncFormulas":
        from .resources.formulas import AsyncFormulas

        return AsyncFormulas(self)

    @cached_property
    def signatures(self) -> "AsyncSignatures":
        from .resources.signatures import AsyncSignatures

        return AsyncSignatures(self)

    @property
    def with_raw_response(self) -> WithRawResponse:
        """
        `await client.with_raw_response.models.list()`: the reply with what it means.
        """
        return WithRawResponse(self)

    @property
    def with_streaming_response(self) -> WithStreamingResponse:
        """
        `async with client.with_streaming_response.files.content(id) as reply`: the reply before its body.
        """
        return WithStreamingResponse(self)

    # --- what it was told ---

    @property
    def api_key(self) -> str:
        """
        The key in plain. Empty where an async function gives it.
        """
        key = self._config.api_key
        return str(key) if isinstance(key, str) else ""

    @api_key.setter
    def api_key(self, value: ApiKey) -> None:
        value = masked(value)
        self._reconfigure(api_key=resolve_key(value))

    @property
    def base_url(self) -> str:
        """
        With a slash at its end. May be set.
        """
        return self._config.base_url

    @base_url.setter
    def base_url(self, value: str) -> None:
        self._reconfigure(base_url=resolve_base_url(value))

    @property
    def gives_advice(self) -> bool:
        """
        Whether requests are looked through for what the official host refuses.
        """
        return self._advice and self._row is not None and self._row.fixed_sampling

    @property
    def provider(self) -> Provider | None:
        """
        The row of `kimi_async.providers` that this client goes by: the one it was given, or the one whose host it calls.
        """
        return self._row

    @property
    def timeout(self) -> Timeout:
        return self._config.timeout

    @property
    def max_retries(self) -> int:
        return self._config.max_retries

    @property
    def organization(self) -> str | None:
        return self._config.organization

    @property
    def project(self) -> str | None:
        return self._config.project

    @property
    def default_headers(self) -> dict[str, str]:
        return dict(self._headers)

    @property
    def default_query(self) -> dict[str, Any]:
        return dict(self._config.default_query)

    @property
    def user_agent(self) -> str:
        return self._headers.get("User-Agent", "")

    @property
    def limiter(self) -> "AdmissionController":
        """
        Who admits requests: `client.limiter.stats()` says what is waiting, and for what.
        """
        return self._core.limiter_for(self._organisation)

    def _reconfigure(self, **changes: Any) -> None:
        self._config = self._config.replace(**changes)
        self._settle()

    # --- life ---

    async def close(self) -> None:
        """
        Closes the connections, also those of streams still open. Views made by `with_options` are closed with it.
        """
        await self._core.aclose()

    async def aclose(self) -> None:
        await self.close()

    def is_closed(self) -> bool:
        return self._core.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        key = self._config.api_key
        shown = mask(str(key)) if isinstance(key, str) else "from a function"
        closed = ", closed" if self._core.closed else ""
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
        default_headers: Mapping[str, Any] | None = None,
        set_default_headers: Mapping[str, Any] | None = None,
        default_query: Mapping[str, Any] | None = None,
        set_default_query: Mapping[str, Any] | None = None,
        priority: int | NotGiven = NOT_GIVEN,
        deadline: float | NotGiven | None = NOT_GIVEN,
        cost: int | NotGiven | None = NOT_GIVEN,
        mode: Literal["wait", "fail_fast"] | NotGiven = NOT_GIVEN,
        _extra_kwargs: Mapping[str, Any] = {},
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
        if default_headers is not None and set_default_headers is not None:
            raise ValueError(
                "the `default_headers` and `set_default_headers` arguments are mutually exclusive"
            )
        if default_query is not None and set_default_query is not None:
            raise ValueError("the `default_query` and `set_default_query` arguments are mutually exclusive")
        if _extra_kwargs:
            raise TypeError(f"unknown options: {', '.join(sorted(_extra_kwargs))}")
        changes: dict[str, Any] = {}
        old = self._config
        api_key = masked(api_key)
        if api_key is not None:
            changes["api_key"] = resolve_key(api_key)
        if base_url is not None:
            changes["base_url"] = resolve_base_url(base_url)
        if organization is not None:
            changes["organization"] = organization
        if project is not None:
            changes["project"] = project
        if is_given(timeout):
            changes["timeout"] = Timeout.of(timeout)
        if not isinstance(max_retries, NotGiven):
            changes["max_retries"] = check_max_retries(max_retries)
        if default_headers is not None:
            changes["default_headers"] = {**old.default_headers, **check_headers(default_headers)}
        elif set_default_headers is not None:
            changes["default_headers"] = check_headers(set_default_headers)
        if default_query is not None:
            changes["default_query"] = {**old.default_query, **check_query(default_query)}
        elif set_default_query is not None:
            changes["default_query"] = dict(set_default_query)
        for name, value in (("priority", priority), ("deadline", deadline), ("cost", cost), ("mode", mode)):
            if not isinstance(value, NotGiven):
                changes[name] = value
        if changes.get("mode", "wait") not in ("wait", "fail_fast"):
            raise ConfigurationError(f"mode must be 'wait' or 'fail_fast'; got {mode!r}")
        view = object.__new__(type(self))
        view._max_event_size = self._max_event_size
        view._core = self._core
        view._advice = self._advice
        view._provider = self._provider
        view._config = old.replace(**changes)
        view._settle()
        return view

    copy = with_options

    # --- calls ---

    @overload
    async def get(
        self, path: str, *, cast_to: type[T], options: Mapping[str, Any] = ..., **more: Any
    ) -> T: ...

    @overload
    async def get(
        self, path: str, *, cast_to: Any = ..., options: Mapping[str, Any] = ..., **more: Any
    ) -> Any: ...

    async def get(
        self, path: str, *, cast_to: Any = object, options: Mapping[str, Any] = {}, **more: Any
    ) -> Any:
        """
        Calls an endpoint that has no method yet. See `post`.
        """
        return await self._raw("GET", path, cast_to, None, options, more)

    async def post(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        content: bytes | None = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        """
        Calls an endpoint that has no method yet.

        :param path: below `base_url`: `"/chat/completions"`. A whole URL is taken if it has the same origin.
        :param cast_to: what the reply is decoded to: a msgspec struct, dataclass or other type; `object` for plain dicts and
            lists; `str` or `bytes` for the body as it is; `kimi_async.transport.Response` for the reply itself.
        :param body: sent as JSON.
        :param stream: with True, an `AsyncStream` of `cast_to` is returned, or of what `stream_cls=AsyncStream[X]` names.
        :param extra_headers, extra_query, extra_body, timeout: as for every other call; `options={"headers": …, "params": …,
            "timeout": …}` is understood too.
        """
        return await self._raw("POST", path, cast_to, content if content is not None else body, options, more)

    async def put(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("PUT", path, cast_to, body, options, more)

    async def patch(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("PATCH", path, cast_to, body, options, more)

    async def delete(
        self,
        path: str,
        *,
        cast_to: Any = object,
        body: Any = None,
        options: Mapping[str, Any] = {},
        **more: Any,
    ) -> Any:
        return await self._raw("DELETE", path, cast_to, body, options, more)

    async def _raw(
        self,
        method: str,
        path: str,
        cast_to: Any,
        body: Any,
        options: Mapping[str, Any],
        more: dict[str, Any],
    ) -> Any:
        known = ("extra_headers", "extra_query", "extra_body", "timeout", "stream", "stream_cls")
        for name in more:
            if name not in known:
                raise unknown_argument(method.lower(), name, known)
        timeout = more.get("timeout", options.get("timeout", NOT_GIVEN))
        extra_headers: dict[str, Any] = {
            **(options.get("headers") or {}),
            **(more.get("extra_headers") or {}),
        }
        extra_query: dict[str, Any] = {**(options.get("params") or {}), **(more.get("extra_query") or {})}
        extra_body: dict[str, Any] = {**(options.get("extra_json") or {}), **(more.get("extra_body") or {})}
        if isinstance(body, Mapping):
            body = {**codec.given(cast("Mapping[str, Any]", body)), **extra_body}
        elif extra_body:
            body = extra_body
        stream_cls = more.get("stream_cls")
        if stream_cls is not None:
            arguments = getattr(stream_cls, "__args__", None)
            cast_to = arguments[0] if arguments else cast_to
        data = body if body is None or isinstance(body, bytes) else codec.encode(body)
        if more.get("stream"):
            return await self.open_stream(
                method,
                path,
                data,
                cast_to,
                extra_headers=extra_headers,
                extra_query=extra_query,
                timeout=timeout,
            )
        # `httpx.Response` is what code written for the OpenAI SDK says when it means the reply itself.
        raw = cast_to is Response or getattr(cast_to, "__module__", "").partition(".")[0] in (
            "httpx",
            "httpx2",
        )
        response = await self.send(
            method,
            path,
            data,
            extra_headers=extra_headers,
            extra_query=extra_query,
            timeout=timeout,
            unlisted=True,
        )
        return response if raw else codec.decode_reply(response.content, cast_to, response)

    async def request(
        self,
        method: str,
        path: str,
        cast_to: type[T],
        *,
        body: Any = None,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> T:
        """
        One call with a JSON body and a JSON reply, for the modules in `resources`.
        """
        if extra_body:
            body = cast("dict[str, Any]", {**(body or {}), **extra_body})
        response = await self.send(
            method,
            path,
            None if body is None else codec.encode(body),
            extra_headers=extra_headers,
            extra_query=extra_query,
            timeout=timeout,
        )
        value = codec.decode_reply(await response.read(), cast_to, response)
        held = getattr(value, "__dict__", None)
        if held is not None:
            held["_rid"] = response.request_id
        return value

    async def open_stream(
        self,
        method: str,
        path: str,
        body: bytes | Body | None,
        cast_to: Any = None,
        *,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
        unlisted: bool = False,
        refuse_empty: bool = False,
        usage_follows: bool = False,
    ) -> AsyncStream[Any]:
        """
        A streamed call, its first event received. `cast_to` None means chat chunks, folded and checked for completeness.
        """
        opened: list[AsyncStream[Any]] = []

        async def accept(response: Response) -> None:
            stream: AsyncStream[Any] = AsyncStream(
                response,
                decode=None
                if cast_to is None
                else codec.decoder_for(Any if cast_to is object else cast_to).decode,
                fold=Accumulator(usage_follows=usage_follows) if cast_to is None else None,
                max_event_size=self._max_event_size,
                refuse_empty=refuse_empty,
            )
            await stream.prime()
            opened[:] = [stream]

        await self.send(
            method,
            path,
            body,
            extra_headers=extra_headers,
            extra_query=extra_query,
            timeout=timeout,
            stream=True,
            accept=accept,
            unlisted=unlisted,
        )
        return (
            opened.pop()
        )  # not [0]: request, accept, list and stream would make a circle, and a dropped stream would stay

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        *,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        timeout: TimeoutLike = NOT_GIVEN,
        stream: bool = False,
        accept: Callable[[Response], Awaitable[None]] | None = NOT_GIVEN,  # type: ignore[assignment]
        unlisted: bool = False,
    ) -> Response:
        """
        Sends one request through the whole chain. What comes back has a good status.

        :raises APIStatusError: the server's error, with the attempts before it.
        :raises APIConnectionError: no reply.
        """
        core, config = self._core, self._config
        if core.closed:
            raise ClientClosedError("this client was closed; make a new one")
        headers = Headers(self._headers)
        if callable(config.api_key):
            headers["Authorization"] = Secret(
                f"Bearer {check_key(await config.api_key(), 'the api_key function')}"
            )
        if stream:
            headers["Accept"] = "text/event-stream"
            # Compressing one token at a time costs more than it saves, and a compressor may hold tokens back.
            headers["Accept-Encoding"] = "identity"
        if extra_headers:
            merge_headers(headers, check_headers(extra_headers))
        if body is None:
            headers.popall("Content-Type", None)
        elif not isinstance(body, bytes):
            headers["Content-Type"] = body.content_type
        if not unlisted and self._is_missing(path):
            raise ConfigurationError(missing_endpoint_message(cast("Provider", self.provider), path))
        url = self._url(path)
        if config.default_query or extra_query:
            query = query_string({**config.default_query, **check_query(extra_query)})
            if query:
                url = f"{url}{'&' if '?' in url else '?'}{query}"
        accept = read_whole if isinstance(accept, NotGiven) else accept
        if (catch := catching.get()) is not None:
            accept = catch.around(accept)
        request = Request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=config.timeout if timeout is NOT_GIVEN else Timeout.of(timeout),
            stream=stream,
            max_retries=config.max_retries,
            deadline=None if config.deadline is None else asyncio.get_running_loop().time() + config.deadline,
            priority=config.priority,
            cost=config.cost,
            mode=config.mode,
            accept=accept,
        )
        response = await core.handler(self._organisation)(request)
        if response.status >= 300:
            raise await self._error(response, request)
        return response

    def _is_missing(self, path: str) -> bool:
        """
        Whether the provider is known not to have what this path leads to.
        """
        missing = self._missing.get(path)
        if missing is None:
            row = self.provider
            missing = row is not None and not row.supports(path)
            if len(self._missing) < 64:
                self._missing[path] = missing
        return missing

    def _url(self, path: str) -> str:
        base = self._config.base_url
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"path must be a string, not {type(path).__name__}")
        if odd := NOT_IN_A_URL.search(path):
            # A line break in it would end the request line, and what follows would be headers.
            raise ConfigurationError(
                f"{odd[0]!r} cannot stand in a path ({path[:100]!r}); encode it with urllib.parse.quote()"
            )
        if WITH_SCHEME.match(path):
            if urlsplit(path)[:2] != urlsplit(base)[:2]:
                raise ConfigurationError(
                    f"{path!r} is not at {base}; the key is sent to base_url only (make another client for another host)"
                )
            return path
        if "." in path or "%" in path:
            segments = [unquote(each) for each in re.split("[?#]", path, maxsplit=1)[0].split("/")]
            if ".." in segments or "." in segments:
                raise ConfigurationError(f"the path {path!r} climbs out of {base}")
        return base + path.lstrip("/")

    async def _error(self, response: Response, request: Request) -> APIStatusError:
        body = await response.read()
        error = codec.error_from(response.status, response.headers, body, response.request)
        error.attempts = tuple(request.history)
        error.given_up = response.extensions.get("given_up", "")
        return error


async def read_whole(response: Response) -> None:
    """
    Takes in a whole reply, within what its headers have left of `Timeout.read`, and of `total`.
    """
    if response.settle():
        return
    request = response.request
    timeout = request.timeout
    spent = 0.0 if response.started is None else asyncio.get_running_loop().time() - response.started
    limit, phase = timeout.read, "body"
    left = limit
    if limit is not None and isinstance(request.body, (bytes, type(None))):
        left = limit - spent  # after an upload, which took its own time, the count begins anew
    if timeout.total is not None and (left is None or timeout.total - spent < left):
        limit, left, phase = timeout.total, timeout.total - spent, "total"
    deadline = Deadline(left)
    try:
        with deadline:
            await response.read()
    except TimeoutError:
        response.close()
        if not deadline.expired:
            raise
    else:
        return
    raise APITimeoutError(
        request,
        message=f"the reply of {urlsplit(response.url).hostname} began but did not end within {limit:g} s "
        f"(Timeout.{'read' if phase == 'body' else phase})",
        phase=phase,
        elapsed=limit,
    )


def path_segment(name: str, value: object) -> str:
    """
    An id as one segment of a path, from which it cannot escape.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not value.strip() or value in (".", ".."):
        raise ConfigurationError(f"expected a non-empty value for `{name}` but received {value!r}")
    return quote(value, safe="")


def unknown_argument(method: str, name: str, known: Sequence[str]) -> TypeError:
    """
    The error for a misspelt option. Kimi ignores unknown fields, so that a typo would go unnoticed there.
    """
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return TypeError(
        f"{method}() got an unexpected keyword argument {name!r}{hint} "
        "(fields that this client does not know go through extra_body={...})"
    )


def _check_session(session: Any) -> None:
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


def _digest(key: object) -> str:
    """
    Tells organisations apart without keeping a key.
    """
    if not isinstance(key, str):
        return f"function-{id(key)}"
    from hashlib import blake2b

    return blake2b(str(key).encode(), digest_size=12).hexdigest()
