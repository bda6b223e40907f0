"""
Results in the order they are finished, or in that of the input.
"""

import asyncio
from itertools import permutations

import pytest

from kimi_async.bulk.outbox import Outbox
from kimi_async.bulk.results import Result


def result(index: int) -> Result:
    return Result(f"r{index}", index, error=ValueError())


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_outbox_ordered_gives_the_order_of_the_input(order: tuple[int, ...]):
    """
    However they arrive, results leave in order; what has none is passed over and counts as taken.
    """
    released: list[int] = []
    box = Outbox(ordered=True, released=lambda: released.append(1))
    for index in order:
        if index == 2:
            box.skip(index)
        else:
            box.put(result(index))

    assert [0, 1, 3] == [box.take().index for _ in range(len(box))]
    assert 4 == len(released)


async def test_outbox_wakes_everybody_who_waits():
    """
    Several tasks may share an iteration: those who come too late wait again.
    """
    box = Outbox(ordered=False, released=lambda: None)
    waiting = [asyncio.ensure_future(box.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    box.put(result(0))
    await asyncio.wait(waiting, timeout=5)

    assert [True, True, True] == [each.done() for each in waiting]
