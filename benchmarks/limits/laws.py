"""
How others drive a rate-limited API, as handlers: each takes a transport's `send` and gives back one that retries.

Constants are those of the sources named; the code is ours. All but the SDK's retries go on until they succeed, so they lose no
call by construction: what they pay is refusals and time.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from kimi_async.transport.exchange import Request, Response

__all__ = ["LAWS", "aimd", "cubic", "sdk", "sdk10"]

Send: TypeAlias = Callable[[Request], Awaitable[Response]]


def _hint(response: Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _retries(count: int) -> Callable[[Send, int, random.Random], Send]:
    """
    The OpenAI SDK's: 0.5 s doubling to 8 s, up to a quarter less by chance; a `Retry-After` up to two minutes is obeyed.
    (openai-python 3.54, `_base_client.py`, `_calculate_retry_timeout`.)
    """

    def law(send: Send, _: int, dice: random.Random) -> Send:
        async def handle(request: Request) -> Response:
            response = await send(request)
            for attempt in range(count):
                if response.status < 400:
                    break
                hint = _hint(response)
                response.close()
                if hint is not None and 0 < hint <= 120:
                    wait = hint
                else:
                    wait = min(0.5 * 2**attempt, 8.0) * (1 - 0.25 * dice.random())
                await asyncio.sleep(wait)
                response = await send(request)
            return response

        return handle

    return law


sdk = _retries(2)
sdk10 = _retries(10)


def cubic(send: Send, _: int, dice: random.Random) -> Send:
    """
    botocore's adaptive mode (`retries/adaptive.py`, `throttling.py`, `bucket.py`): a token bucket of sends whose rate follows CUBIC with
    β 0.7 and C 0.4, never above twice what is measured over half seconds; off until the first refusal.
    """
    beta, scale, floor = 0.7, 0.4, 0.5
    rate, w_max, k, last_cut = floor, 0.0, 0.0, 0.0
    enabled = False
    tokens, at = 0.0, 0.0
    measured, bucket, count = 0.0, 0.0, 0
    queue = asyncio.Lock()

    def measure(now: float) -> None:
        nonlocal measured, bucket, count
        count += 1
        slot = now // 0.5 * 0.5
        if slot > bucket:
            measured = 0.8 * (count / (slot - bucket)) + 0.2 * measured
            bucket, count = slot, 0

    async def acquire() -> None:
        nonlocal tokens, at
        if not enabled:
            return
        async with queue:
            loop = asyncio.get_running_loop()
            while True:
                now = loop.time()
                tokens = min(max(1.0, rate), tokens + (now - at) * rate)
                at = now
                if tokens >= 1.0:
                    tokens -= 1.0
                    return
                await asyncio.sleep(max(1e-3, (1.0 - tokens) / rate))

    async def handle(request: Request) -> Response:
        nonlocal rate, w_max, k, last_cut, enabled, at
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            await acquire()
            response = await send(request)
            now = loop.time()
            measure(now)
            if response.status == 429:
                used = min(measured, rate) if enabled else max(measured, floor)
                w_max, last_cut = max(used, floor), now
                k = (w_max * (1 - beta) / scale) ** (1 / 3)
                rate = w_max * beta
                if not enabled:
                    at = now
                enabled = True
                response.close()
                await asyncio.sleep(dice.random() * min(2.0**attempt, 20.0))
                attempt += 1
                continue
            if enabled:
                rate = scale * (now - last_cut - k) ** 3 + w_max
            rate = max(floor, min(rate, 2 * max(measured, floor)))
            return response

    return handle


def aimd(send: Send, slots: int, _: random.Random) -> Send:
    """
    NeMo DataDesigner's: slots that shrink by a quarter at a refusal, if the request had gone out under the present number, and grow
    by one after 25 successes in a row; a refusal gates everybody for its `Retry-After`, or two seconds.
    """
    limit, inflight, streak, gate = slots, 0, 0, 0.0
    waiting: deque[asyncio.Future[None]] = deque()

    def wake() -> None:
        nonlocal inflight
        if asyncio.get_running_loop().time() < gate:
            return
        while waiting and inflight < limit:
            waiter = waiting.popleft()
            if not waiter.done():
                inflight += 1
                waiter.set_result(None)

    async def acquire() -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        waiting.append(waiter)
        wake()
        await waiter

    async def handle(request: Request) -> Response:
        nonlocal limit, inflight, streak, gate
        loop = asyncio.get_running_loop()
        while True:
            await acquire()
            sent_under = limit
            try:
                response = await send(request)
            except BaseException:
                inflight -= 1
                raise
            if response.status != 429:
                streak += 1
                if streak >= 25:
                    streak = 0
                    limit = min(slots, limit + 1)

                def free() -> None:
                    nonlocal inflight
                    inflight -= 1
                    wake()

                response.on_close(free)
                return response
            streak = 0
            if sent_under <= limit:
                limit = max(1, int(limit * 0.75))
            gate = loop.time() + (_hint(response) or 2.0)
            response.close()
            inflight -= 1
            loop.call_at(gate, wake)
            await asyncio.sleep(_hint(response) or 2.0)

    return handle


LAWS: dict[str, Callable[[Send, int, random.Random], Send]] = {
    "openai-sdk": sdk,
    "openai-sdk, 10 retries": sdk10,
    "AIMD": aimd,
    "AWS CUBIC": cubic,
}
