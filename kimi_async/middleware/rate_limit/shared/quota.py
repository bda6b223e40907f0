"""
A quota by its address: which ledger, whose quota, what is known of it. An engine for each event loop.
"""

import asyncio
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from ....errors import ConfigurationError
from ....transport.loops import PerLoop
from ..limits import RateLimits
from .engine import SharedEngine
from .message import Answer, Ledger, Sync
from .seam import OnLost

__all__ = ["SharedQuota"]

# By the scheme of the address: where its ledger is made. `open_ledger(address, quota)` is called anew for each event loop.
_BY_SCHEME = {
    "host": "kimi_async.middleware.rate_limit.shared.host",
    "redis": "kimi_async.integrations.redis",
    "rediss": "kimi_async.integrations.redis",
    "unix": "kimi_async.integrations.redis",
    "ray": "kimi_async.integrations.ray",
}

_EXTRAS = {"redis": "redis", "rediss": "redis", "unix": "redis", "ray": "ray"}


class SharedQuota:
    """
    One organisation's quota that several processes use. Every event loop that uses it is a member of its own.

    :param where: `"host"` for the processes of this machine; `"redis://…"`, `"rediss://…"`, `"unix://…"`; `"ray"`; or a ledger, such
        as `RedisLedger(client=…)`.
    :param quota: names the organisation. Whoever gives the same name at the same place shares.
    :param limits: what is known of the limits. Where members were told different numbers, the least is right.
    :param on_lost: what happens while the ledger does not answer: `"share"`, `"block"` or `"raise"`; see `SharedEngine`.

    :raises ConfigurationError: an address that is none, an extra that is not installed.
    """

    def __init__(
        self,
        where: str | Ledger,
        quota: str = "default",
        *,
        limits: RateLimits | str | None = None,
        on_lost: OnLost = "share",
    ) -> None:
        self.limits: RateLimits = RateLimits.of(limits)
        self.quota: str = check_quota(quota)
        if on_lost not in ("share", "block", "raise"):
            raise ConfigurationError(f"on_lost must be 'share', 'block' or 'raise'; got {on_lost!r}")
        self._on_lost: OnLost = on_lost
        self._make = _maker(where, self.quota)
        self._engines: PerLoop[SharedEngine] = PerLoop()
        self._lock = threading.Lock()

    def engine(self) -> SharedEngine:
        """The member that belongs to the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            engine = self._engines.get(loop)
            if engine is None:
                self._engines.clean()
                engine = SharedEngine(self._make(), self.limits, on_lost=self._on_lost)
                self._engines.put(loop, engine)
            return engine

    async def look(self) -> Answer:
        """
        Who is there and what is used, without becoming a member.

        :raises LedgerUnavailable: the ledger did not answer.
        """
        ledger = self._make()
        try:
            return await ledger.sync(Sync(member="-", leave=2))
        finally:
            await ledger.aclose()

    async def aclose(self) -> None:
        """Leaves, so that the others need not find out. Members of other loops leave when they fall silent."""
        loop = asyncio.get_running_loop()
        with self._lock:
            mine = self._engines.get(loop)
            self._engines.pop(loop)
        if mine is not None:
            await mine.aclose()


def check_quota(quota: object) -> str:
    if (
        not isinstance(quota, str)
        or not 0 < len(quota) <= 100
        or not quota.isprintable()
        or any(c in quota for c in "{}/\\ ")
    ):
        raise ConfigurationError(
            f"quota must be a name of 1 to 100 characters without blanks, slashes and braces; got {str(quota)[:120]!r}"
        )
    return quota


def _maker(where: str | Ledger, quota: str) -> Callable[[], Ledger]:
    if not isinstance(where, str):
        if not callable(getattr(where, "sync", None)) or not callable(getattr(where, "aclose", None)):
            raise ConfigurationError(
                f"shared must be an address or a ledger with `sync` and `aclose`; got {type(where).__name__}"
            )
        ledger = where
        return lambda: ledger
    scheme = where.partition(":")[0].lower()
    module = _BY_SCHEME.get(scheme)
    if module is None or (where.lower() != scheme if scheme in ("host", "ray") else "://" not in where):
        raise ConfigurationError(
            "shared must be 'host', 'ray' or an address such as redis://127.0.0.1:6379/0, rediss://… or unix:///…; "
            f"got one that begins with {scheme[:20]!r}"  # what follows may hold a password
        )
    extra = _EXTRAS.get(scheme)
    if extra is not None and find_spec(extra) is None:
        raise ConfigurationError(
            f"shared={scheme!r} needs the package {extra}: pip install 'kimi-async[{extra}]'"
        )
    opened: object = import_module(module).open_ledger
    make = cast("Callable[[str, str], Ledger]", opened)
    make_here: Callable[[], Ledger] = lambda: make(where, quota)  # noqa: E731
    return make_here
