"""
Which bound ends a wait, and when streams let the other tasks of the loop have their turn.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kimi_async import AsyncKimi, Timeout
from kimi_async.streaming.clocks import FLOWS, GRACE, NOTED, SAID, SHARE, WAITS, Turn, limit_of
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

TIMEOUT = Timeout(first_token=30.0, idle=20.0, total=100.0)


@pytest.mark.parametrize(
    ("state", "since", "expected"),
    [
        (WAITS, 15.0, (40.0, "first_token")),
        (FLOWS, 15.0, (35.0, "idle")),
        (SAID, 15.0, (15.0 + GRACE, "grace")),
        (FLOWS, 95.0, (110.0, "total")),
    ],
)
def test_limit_is_the_nearest_bound(state: int, since: float, expected: tuple[float, str]) -> None:
    """
    A wait ends at the bound of its state, counted from where that begins, or at the bound on the whole if it is nearer.
    """
    assert expected == limit_of(TIMEOUT, state, 10.0, since)


def test_limit_none_without_bounds() -> None:
    """
    Without bounds nothing ends a wait.
    """
    assert limit_of(Timeout(first_token=None, idle=None, total=None), FLOWS, 0.0, 1.0) is None


def test_turn_is_over_after_share() -> None:
    """
    A turn that streams had to themselves for longer than their share is over; the next one is new.
    """

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        begun = 100.0

        assert not turn.is_over(begun)
        assert not turn.is_over(begun + SHARE * 0.99)
        assert turn.is_over(begun + SHARE * 1.01)

        await asyncio.sleep(0)

        assert not turn.is_over(begun + SHARE * 1.02)
        assert not turn.is_over(begun + SHARE * 1.02 + NOTED / 2)

    asyncio.run(main())


def chunks() -> AsyncIterator[bytes]:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n' * 50

    return endless()


def test_stream_that_never_waits_lets_others_run() -> None:
    """
    A reply whose data is always there does not keep the loop: another task ends the stream when its time has come.
    """

    async def serve(request: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=chunks())

    async def main() -> int:
        count = 0
        async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(serve)) as client:
            stream = await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": "go on"}], stream=True
            )
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), stream:
                    async for _ in stream:
                        count += 1
        return count

    assert asyncio.run(main()) > 0
