"""
A Kimi-like server with limits behind a `MemoryTransport`, and the crowd that uses it up: ten minutes in a second.

The ledger is `kimi_async.testing.ServerLedger`; here are the times: the way there and back, how long an answer takes,
and whether its headers come early (a stream) or at its end.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kimi_async.errors import KimiError
from kimi_async.middleware.chain import chain
from kimi_async.middleware.rate_limit.controller import AdmissionController
from kimi_async.middleware.rate_limit.middleware import RateLimitMiddleware
from kimi_async.middleware.retry.middleware import RetryMiddleware
from kimi_async.testing.clock import run
from kimi_async.testing.memory_transport import MemoryTransport, Reply
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits, Storm
from kimi_async.transport.exchange import Request, Response

__all__ = ["LimitedServer", "Outcome", "crowd", "jain", "simulate"]

URL = "https://api.moonshot.ai/v1/chat/completions"
BODY = b'{"model":"kimi-k3","messages":[],"max_completion_tokens":16}'


class LimitedServer:
    """
    Times are seconds: `rtt` both ways together (each way varies by `jitter`), `latency` the mean of a lognormal with `sigma`;
    `ack` is when the headers of a stream come, None where they come with the whole answer.
    """

    def __init__(
        self,
        ledger: ServerLedger,
        *,
        latency: float = 6.0,
        sigma: float = 0.6,
        rtt: float = 0.03,
        jitter: float = 0.3,
        ack: float | None = 0.8,
        tokens: int = 0,
        gid: str | None = None,
        seed: int = 0,
    ) -> None:
        self.ledger = ledger
        self.latency = latency
        self.sigma = sigma
        self.rtt = rtt
        self.jitter = jitter
        self.ack = ack
        self.tokens = tokens
        self.headers = {"msh-gid": gid} if gid else {}
        self.dice = random.Random(seed)
        self.by_user: dict[str, list[float]] = {}
        self.requests = 0

    def _way(self) -> float:
        return self.rtt / 2 * (1 + self.jitter * (2 * self.dice.random() - 1))

    def _takes(self) -> float:
        if not self.sigma:
            return self.latency
        return self.latency * math.exp(self.dice.gauss(0, self.sigma) - self.sigma**2 / 2)

    async def __call__(self, request: Request) -> Reply:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._way())
        self.requests += 1
        permit = self.ledger.admit(loop.time(), request.cost or self.tokens)
        if permit.refusal is not None:
            if permit.delay:
                await asyncio.sleep(permit.delay)
                permit.release()
            await asyncio.sleep(self._way())
            refusal = permit.refusal
            headers = {**dict(refusal.headers), "content-type": refusal.content_type, **self.headers}
            return Reply(refusal.status, headers, refusal.body or _body(refusal))
        self.by_user.setdefault(request.headers.get("x-user", ""), []).append(loop.time())
        takes = self._takes()
        if self.ack is None:
            try:
                await asyncio.sleep(takes)
            finally:
                permit.release()
            await asyncio.sleep(self._way())
            return Reply(200, self.headers, b'{"id": "x"}')
        await asyncio.sleep(min(self.ack, takes) + self._way())

        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"data: {}\n\n"
                await asyncio.sleep(max(0.0, takes - (self.ack or 0)))
                yield b"data: [DONE]\n\n"
            finally:
                permit.release()

        return Reply(200, self.headers, body())


def _body(refusal: Any) -> bytes:
    import json

    return json.dumps({"error": {"message": refusal.message, "type": refusal.type}}).encode()


@dataclass
class Outcome:
    duration: float
    server: LimitedServer
    succeeded: int = 0
    lost: list[BaseException] = field(default_factory=list)
    finished_at: float = 0.0

    @property
    def ledger(self) -> ServerLedger:
        return self.server.ledger

    @property
    def admitted(self) -> int:
        return self.ledger.admitted

    @property
    def rejected(self) -> int:
        return sum(self.ledger.rejected.values())

    def goodput(self, allowed: float) -> float:
        return self.admitted / allowed

    @property
    def rejected_per_success(self) -> float:
        return self.rejected / max(1, self.admitted)


async def crowd(
    send: Callable[[Request], Awaitable[Response]],
    outcome: Outcome,
    *,
    tasks: int,
    calls: int | None = None,
    until: float | None = None,
    user: str = "",
    cost: int | Iterator[int] | None = None,
    max_retries: int = 2,
    begin: float = 0.0,
) -> None:
    """
    `tasks` callers, each with the next call as soon as one is done, until there were `calls` or it is late.
    `cost` may be an iterator: what each costs.
    """
    loop = asyncio.get_running_loop()
    left = [math.inf if calls is None else calls]
    if begin:
        await asyncio.sleep(begin)

    async def caller() -> None:
        while left[0] > 0:
            left[0] -= 1
            each = next(cost) if isinstance(cost, Iterator) else cost
            request = Request("POST", URL, body=BODY, max_retries=max_retries, cost=each)
            request.headers["authorization"] = "Bearer test"
            request.headers["x-user"] = user
            try:
                response = await send(request)
                if response.status >= 400:
                    raise AssertionError(f"{response.status}: {(await response.read()).decode()}")
                while await response.readany():
                    pass
                response.close()
                outcome.succeeded += 1
            except (KimiError, AssertionError) as error:
                outcome.lost.append(error)

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(caller()) for _ in range(tasks)]
        if until is not None:
            await asyncio.sleep(max(0.0, until - loop.time()))
            for task in callers:
                task.cancel()
    outcome.finished_at = loop.time()


def simulate(
    limits: ServerLimits | str,
    *,
    client: Any = None,
    duration: float = 600.0,
    tasks: int = 200,
    calls: int | None = None,
    seed: int = 0,
    law: Callable[[AdmissionController, Callable[[Request], Awaitable[Response]]], Any] | None = None,
    users: int = 1,
    join: float = 120.0,
    max_retries: int = 2,
    cost: int | None = None,
    during: Callable[[list[AdmissionController], Outcome], Awaitable[None]] | None = None,
    ledger: dict[str, Any] | None = None,
    **timing: Any,
) -> Outcome:
    """
    One experiment on a virtual clock. `client` is what the callers know (`limits=`); `users` processes that do not know
    of each other, the second from `join` on; `ledger` goes to `ServerLedger`, `timing` to `LimitedServer`.
    """
    server = LimitedServer(ServerLedger(limits, seed=seed, **(ledger or {})), seed=seed, **timing)
    outcome = Outcome(duration, server)

    async def main() -> None:
        crowds: list[Any] = []
        controllers: list[AdmissionController] = []
        for number in range(users):
            transport = MemoryTransport(server)
            transport.requests = _Forgetful()
            dice = random.Random(seed * 1000 + number)
            limiter = AdmissionController(client, dice=dice.random)
            controllers.append(limiter)
            if law is not None:
                send = law(limiter, transport.send)
            else:
                send = chain(
                    [RetryMiddleware(limiter=limiter, dice=dice.random), RateLimitMiddleware(limiter)],
                    transport.send,
                )
            crowds.append(
                crowd(
                    send,
                    outcome,
                    tasks=tasks,
                    calls=calls,
                    until=duration if calls is None else None,
                    user=str(number),
                    cost=cost,
                    max_retries=max_retries,
                    begin=number * join,
                )
            )
        if during is not None:
            crowds.append(during(controllers, outcome))
        await asyncio.gather(*crowds)

    run(main())
    return outcome


class _Forgetful(list[Request]):
    def append(self, _: Request) -> None:
        pass


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 where all have alike."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


__all__ += ["Storm"]
