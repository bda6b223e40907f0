"""
How many may be under way, and how far a run goes ahead of who takes its results.
"""

import asyncio

import pytest

from kimi_async.bulk.pace import Pace


def pace(concurrency: int | None = 2, window: int | None = None, allowed: int = 5) -> Pace:
    made = Pace(concurrency, window, allowed=lambda: allowed, slack=3)
    made.recap()
    return made


def test_pace_window_follows_the_concurrency():
    """
    The window leaves room for results beside what is under way; one that was given stands.
    """
    assert (2, 5) == (pace().cap, pace().window)
    assert (5, 10) == (pace(None).cap, pace(None).window)
    assert 7 == pace(window=7).window


async def test_pace_full_waits_until_something_is_taken():
    """
    Each thing taken lets one waiter through, and no more.
    """
    made = pace(window=2)
    made.held = 2
    waiting = [asyncio.ensure_future(made.room()) for _ in range(2)]
    await asyncio.sleep(0)
    assert made.full
    assert 2 == made.idle
    made.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [True, False] == [each.done() for each in waiting]
    made.open()
    await asyncio.gather(*waiting)
    assert 0 == made.idle


async def test_pace_cancelled_waiter_takes_nobodys_turn():
    """
    A waiter that was cancelled is passed over.
    """
    made = pace(window=1)
    made.held = 1
    first, second = (asyncio.ensure_future(made.room()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    made.release()
    await asyncio.wait([first, second], timeout=5)

    assert (True, False) == (first.cancelled(), second.cancelled())
    assert second.done()


@pytest.mark.parametrize(("workers", "idle", "wanted"), [(1, 0, True), (1, 1, False), (2, 0, False)])
def test_pace_wants_workers_only_where_none_is_idle(workers: int, idle: int, wanted: bool):
    """
    Workers are made as they are needed, up to the concurrency.
    """
    made = pace()
    made.workers, made.idle = workers, idle

    assert wanted == made.wants_worker
    made.open()
    assert not made.wants_worker
