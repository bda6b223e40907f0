"""
A quota shared through Redis (or Valkey): `AsyncKimi(limits="tier5", shared="redis://10.0.0.5:6379/0", quota="acme")`.

    from kimi_async.integrations.redis import RedisLedger

    AsyncKimi(limits="tier5", shared=RedisLedger(client=my_redis, quota="acme"))      # sentinel, cluster, a client of your own

The whole ledger is one key, changed by one Lua script: nothing needs to be persisted, replicated or locked. What was sent in the last
minute is remembered by those who sent it, and told again to a Redis that has forgotten it. The time is the server's, and a server whose
clock is set is not believed. Needs `pip install 'kimi-async[redis]'` and Redis 5 or later.
"""

import asyncio
import hashlib
from importlib import import_module, resources
from typing import Any

import msgspec

from ..errors import ConfigurationError
from ..middleware.rate_limit.shared.message import Answer, LedgerUnavailable, Sync
from ..redact import redact_url

__all__ = ["RedisLedger", "open_ledger"]

# A round trip takes a fraction of a millisecond. What an outage is, the engine decides: redis-py is to repeat nothing.
TIMEOUT = 0.5

# Refusals of a server that is there and cannot serve now. Any other refusal of the script is a fault in it, and not an outage.
_AWAY = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)


def open_ledger(address: str, quota: str) -> "RedisLedger":
    return RedisLedger(address, quota=quota)


def _script() -> str:
    return resources.files("kimi_async.integrations").joinpath("redis.lua").read_text("utf-8")


class RedisLedger:
    """
    A ledger in Redis. One for each event loop; `shared="redis://…"` sees to that.

    :param url: `redis://`, `rediss://` or `unix://`.
    :param client: a `redis.asyncio` client in place of an address, of whatever kind; it stays yours to close.
    :param quota: names the organisation. The key is `kimi:{quota}:limits`.

    :raises ConfigurationError: redis is not installed; or neither or both of address and client were given.
    """

    def __init__(self, url: str | None = None, *, client: Any = None, quota: str = "default") -> None:
        try:
            redis: Any = import_module("redis.asyncio")
            self._errors: Any = import_module("redis.exceptions")
        except ImportError:
            raise ConfigurationError(
                "a quota in Redis needs redis-py: pip install 'kimi-async[redis]'"
            ) from None
        if (url is None) == (client is None):
            raise ConfigurationError("pass either the address or the client of a RedisLedger")
        self._own = client is None
        if client is None:
            no_retry = import_module("redis.asyncio.retry").Retry(
                import_module("redis.backoff").NoBackoff(), 0
            )
            try:
                client = redis.from_url(
                    url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=no_retry
                )
            except ValueError:  # which quotes the password, where that has a slash in it
                raise ConfigurationError(
                    f"shared is no address of Redis: {redact_url(str(url))!r}; special characters of a password are "
                    "percent-encoded"
                ) from None
        self._client = client
        self.key: str = f"kimi:{{{quota}}}:limits"
        self._source = _script()
        self._digest = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def sync(self, message: Sync) -> Answer:
        """:raises LedgerUnavailable: the server is not there, too slow, or cannot serve now."""
        said = msgspec.json.encode(message)
        errors = self._errors
        try:
            async with asyncio.timeout(
                2 * TIMEOUT
            ):  # a client of the caller's may have no timeouts of its own
                try:
                    answer = await self._client.evalsha(self._digest, 1, self.key, said)
                except errors.NoScriptError:  # restarted, or flushed: scripts are not persisted
                    answer = await self._client.eval(self._source, 1, self.key, said)
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            raise LedgerUnavailable(f"Redis: {error or type(error).__name__}") from error
        except errors.ResponseError as error:
            if str(error).lstrip("-").startswith(_AWAY) or isinstance(error, errors.ReadOnlyError):
                raise LedgerUnavailable(f"Redis: {error}") from error
            raise
        return _answer(answer)

    async def aclose(self) -> None:
        if self._own:
            await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RedisLedger {self.key}>"  # no address: it may hold a password


def _answer(data: bytes | str) -> Answer:
    # cjson cannot tell an empty list from an empty object.
    data = data.encode() if isinstance(data, str) else data
    data = data.replace(b'"grants":{}', b'"grants":[]').replace(b'"peers":{}', b'"peers":[]')
    return msgspec.json.decode(data, type=Answer)
