"""
One client's middleware, put together: the chain of each organisation, from its hooks down to the transport.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..providers.hosts import by_base_url
from ..transport.exchange import Request, Response, Transport
from ..transport.phases import send_within
from .chain import Handler, Middleware, chain

if TYPE_CHECKING:
    from .rate_limit.limiter import Limiter
    from .rate_limit.shared import Ledger
    from .rate_limit.shared.seam import OnLost
    from .retry.breakers import RetryBudget

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

    def check(self, limits: Any) -> None:
        """
        :raises ConfigurationError: what would otherwise fail at the first call.
        """
        if self.where is not None:
            self.limiter(limits, ("", "unknown"))


def quota_of(account: str) -> str:
    """The name of a quota that was given none: the digest in which `account` ends, be it at one address or another."""
    return account.rpartition(" ")[2][:24]


class Stack:
    """What a client shares with its `with_options` views: the transport, and the chains that lead to it."""

    def __init__(
        self,
        *,
        transport: Transport | None,
        pool_options: dict[str, Any],
        middleware: Sequence[Middleware],
        limits: Any,
        limiter: Any,
        shared: "Shared",
        retry: Any,
        hooks: Sequence[Any],
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
        self._given_limiter: Limiter | None = limiter
        self._shared = shared
        self._limiters: dict[tuple[str, str], Limiter] = {}
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._budget: RetryBudget | None = None
        self._retry = retry
        self._hooks = hooks
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
        from .rate_limit.limits import unknown_limits

        limiter = self._given_limiter or self._limiters.get(organisation)
        if limiter is None and len(self._limiters) >= KEPT:
            self._forget()
        if limiter is None:
            limits = self._limits
            if limits is None and self._shared.where is None:
                row = by_base_url(organisation[0])
                limits = unknown_limits(organisation[0], official=row is not None and row.fixed_sampling)
            limiter = self._limiters[organisation] = self._shared.limiter(limits, organisation)
        return limiter

    def _forget(self) -> None:
        """
        Lets go the organisations that have nothing under way and nobody waiting: with a key for each user of a service there is
        no end of them. What was learnt of their limits is learnt again if they return.
        """
        for organisation, limiter in list(self._limiters.items()):
            stats = limiter.stats()
            if not stats.in_flight and not stats.waiting:
                del self._limiters[organisation]
                self._handlers.pop(organisation, None)
            if len(self._limiters) <= KEPT // 2:
                return

    def handler(self, organisation: tuple[str, str]) -> Handler:
        """
        The whole chain, made at an organisation's first call.
        """
        known = self._handlers.get(organisation)
        if known is not None:
            return known
        from .events import TelemetryMiddleware, observer, setup_logging
        from .rate_limit.middleware import RateLimitMiddleware
        from .retry.breakers import RetryBudget
        from .retry.middleware import RetryMiddleware

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
            *([_authorized] if organisation[1].startswith("function-") else []),
            *(layer for layer in self._middleware if not getattr(layer, "per_call", False)),
        ]
        handle = self._handlers[organisation] = chain(layers, attempt)
        return handle

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            from ..transport.aiohttp_pool import SessionPool

            self._transport = SessionPool(**self._pool_options)
        return self._transport

    async def aclose(self) -> None:
        self.closed = True
        for limiter in self._limiters.values():
            leave = getattr(limiter, "aclose", None)
            if leave is not None:
                await leave()
        transport = self._transport
        close = getattr(transport, "aclose", None)
        if close is not None:
            await close()


async def _authorized(request: Request, send: Handler) -> Response:
    """Asks for the key when the attempt's turn has come, however long it waited for it."""
    if request.authorize is not None:
        await request.authorize(request)
    return await send(request)
