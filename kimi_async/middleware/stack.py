"""
One client's middleware, put together: the chain of each organisation, from its hooks down to the transport.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..providers.hosts import by_base_url
from ..transport.exchange import Request, Response, Transport
from ..transport.framing import check_framing
from ..transport.phases import send_within
from .chain import Handler, Middleware, chain

if TYPE_CHECKING:
    from .events import Hook, Observer
    from .rate_limit.limiter import Limiter
    from .rate_limit.shared import Ledger
    from .rate_limit.shared.seam import OnLost
    from .retry.breakers import RetryBudget
    from .retry.policy import RetryPolicy

__all__ = ["Shared", "Stack", "quota_of"]

KEPT = 256
"""Organisations whose limits are remembered, idle ones included; each takes some 10 KB."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Whether limits are shared with other processes: through which ledger, as which organisation, and what if that is away."""

    where: "str | Ledger | None" = None
    quota: str | None = None
    """None: a digest of the organisation. Two keys of one organisation are then two."""
    on_lost: "OnLost" = "share"

    def limiter(self, limits: Any, organisation: tuple[str, str]) -> "Limiter":
        """Who admits the requests of one organisation."""
        if self.where is None:
            from .rate_limit.controller import AdmissionController

            return AdmissionController(limits)
        from .rate_limit.shared import SharedController, SharedQuota

        quota = self.quota or quota_of(organisation[1])
        if quota.startswith("function-"):
            raise ConfigurationError(
                "a key that comes from a function does not tell which organisation it belongs to: pass quota= with shared="
            )
        return SharedController(SharedQuota(self.where, quota, limits=limits, on_lost=self.on_lost))

    def check(self, limits: object) -> None:
        """
        :raises ConfigurationError: what would otherwise fail at the first call.
        """
        if self.where is not None:
            self.limiter(limits, ("", "unknown"))


def quota_of(account: str) -> str:
    """The name of a quota that was given none: the digest in which `account` ends, be it at one address or another."""
    return account.rpartition(" ")[2][:24]


class _Known:
    """One organisation: who admits its requests, and the chain that they go through, made at the first of them."""

    __slots__ = ("handle", "limiter")

    def __init__(self, limiter: "Limiter") -> None:
        self.limiter: Limiter = limiter
        self.handle: Handler | None = None


class Stack:
    """What a client shares with its `with_options` views: the transport, and the chains that lead to it."""

    def __init__(
        self,
        *,
        transport: Transport | None,
        pool_options: dict[str, Any],
        middleware: Sequence[Middleware],
        limits: Any,
        limiter: "Limiter | None",
        shared: "Shared",
        retry: "RetryPolicy | None",
        hooks: "Sequence[Hook]",
        own: bool = False,
    ) -> None:
        self.closed: bool = False
        self._transport = transport
        self._pool_options = pool_options
        self._middleware = list(middleware)
        self.around_tool: Any = next(
            (found for layer in middleware if (found := getattr(layer, "around_tool", None)) is not None),
            None,
        )
        """The first middleware's that has one: see `kimi_async.tools.run.AroundTool`."""
        self._limits = limits
        self._own = own  # a server of the caller's, as far as is known
        self._given_limiter: Limiter | None = limiter
        self._shared = shared
        # Which organisations were used last costs nothing to know by two generations, and a look-up for each call by order.
        self._recent: dict[tuple[str, str], _Known] = {}
        self._earlier: dict[tuple[str, str], _Known] = {}
        self._leaving: set[asyncio.Future[None]] = set()
        self._budget: RetryBudget | None = None
        self._retry = retry
        self._hooks = hooks
        self._watchers: list[
            Observer | None
        ] = []  # one for all organisations, once it was asked whether somebody watches
        # Whoever makes a client will use it: what its first call needs is imported now, so that the call does not pay.
        import_module(".rate_limit", __package__)
        import_module(".retry", __package__)
        if transport is None:
            import_module("..transport.aiohttp_pool", __package__)

    def limiter_for(self, organisation: tuple[str, str]) -> "Limiter":
        """
        Who admits the requests of one organisation: the address and the key, as a digest. Views with another key have their own
        limits, since Kimi counts by organisation; a limiter that was passed in serves them all.
        """
        return self._given_limiter or self._known(organisation).limiter

    def _known(self, organisation: tuple[str, str]) -> "_Known":
        known = self._recent.get(organisation)
        if known is None:
            known = self._earlier.pop(organisation, None)
            if known is None:
                known = _Known(self._given_limiter or self._limiter_of(organisation))
            if len(self._recent) >= max(KEPT // 2, len(self._earlier)):
                self._forget()
            self._recent[organisation] = known
        return known

    def _limiter_of(self, organisation: tuple[str, str]) -> "Limiter":
        from .rate_limit.limits import unknown_limits

        limits = self._limits
        if limits is None and self._shared.where is None:
            row = by_base_url(organisation[0])
            limits = unknown_limits(
                organisation[0], official=row is not None and row.fixed_sampling, own=self._own
            )
        return self._shared.limiter(limits, organisation)

    def _forget(self) -> None:
        """
        Lets go the organisations that were not used while half of `KEPT` others were, and have nothing under way and nobody waiting:
        with a key for each user of a service there is no end of them. What was learnt of their limits is learnt again if they return.
        """
        earlier = self._earlier
        self._earlier = self._recent
        self._recent = {}
        for organisation, known in earlier.items():
            if self._given_limiter is None and not known.limiter.idle:
                self._earlier[organisation] = known
            elif self._shared.where is not None and self._given_limiter is None:
                leaving = asyncio.ensure_future(self._leave(known.limiter))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, limiter: "Limiter") -> None:
        leave = getattr(limiter, "aclose", None)
        if leave is not None:
            await leave()

    def handler(self, organisation: tuple[str, str]) -> Handler:
        """
        The whole chain, made at an organisation's first call.
        """
        recent = self._recent.get(organisation)
        if recent is not None and recent.handle is not None:
            return recent.handle
        known = self._known(organisation)
        if known.handle is not None:
            return known.handle
        from .events import TelemetryMiddleware, observer, setup_logging
        from .rate_limit.middleware import RateLimitMiddleware
        from .retry.breakers import RetryBudget
        from .retry.middleware import RetryMiddleware

        setup_logging()
        send = self.transport.send

        def attempt(request: Request) -> Awaitable[Response]:
            return send_within(send, request)

        def checked(request: Request) -> Awaitable[Response]:
            # A middleware may have put in what a service's own callers sent.
            check_framing(request.headers, but="content-length")
            return send_within(send, request)

        if self._budget is None:
            self._budget = RetryBudget(500 if self._retry is None else self._retry.budget)
        if not self._watchers:
            self._watchers.append(observer(self._hooks))
        watcher = self._watchers[0]
        limiter = known.limiter
        layers: list[Middleware] = [
            *([TelemetryMiddleware(watcher)] if watcher is not None else []),
            *(layer for layer in self._middleware if getattr(layer, "per_call", False)),
            RetryMiddleware(self._retry, budget=self._budget, watcher=watcher, limiter=limiter),
            RateLimitMiddleware(limiter, watcher=watcher),
            *([_authorized] if organisation[1].startswith("function-") else []),
            *(layer for layer in self._middleware if not getattr(layer, "per_call", False)),
        ]
        handle = known.handle = chain(layers, checked if self._middleware else attempt)
        return handle

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            from ..transport.aiohttp_pool import SessionPool

            self._transport = SessionPool(**self._pool_options)
        return self._transport

    async def aclose(self) -> None:
        self.closed = True
        try:
            if self._given_limiter is None:
                for known in (*self._recent.values(), *self._earlier.values()):
                    await self._leave(known.limiter)
            if self._leaving:
                await asyncio.wait(self._leaving)
        finally:
            close = getattr(self._transport, "aclose", None)
            if close is not None:
                await close()


async def _authorized(request: Request, send: Handler) -> Response:
    """Asks for the key when the attempt's turn has come, however long it waited for it."""
    if request.authorize is not None:
        await request.authorize(request)
    return await send(request)
