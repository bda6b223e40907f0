"""
What belongs to one event loop goes with it, also where nobody closes it.
"""

from __future__ import annotations

import asyncio
import gc
import weakref

from kimi_async.transport.loops import PerLoop


class Thing:
    """
    What a loop may have; it holds its loop, as most do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop


def test_per_loop_value_goes_with_its_loop():
    """
    A loop that nobody holds is collected with what it has, though that holds the loop and others list it.
    """
    things: PerLoop[Thing] = PerLoop()
    loop, other = asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop()
    for each in (loop, other):
        things.put(each, Thing(each))
    gone = weakref.ref(things.get(loop))  # type: ignore[arg-type]

    assert {loop, other} == {each for each, _ in things.all()}
    loop.close()
    del loop, each
    gc.collect()

    assert gone() is None
    assert [other] == [each for each, _ in things.all()]
    assert (True, False) == (things.clean(), things.clean())
    assert 1 == len(things)
    other.close()
    assert things.clean()
    assert (None, 0) == (things.get(other), len(things))


def test_per_loop_value_goes_with_its_owner():
    """
    A loop that runs for years does not gather what the clients of the past had on it.
    """
    things: PerLoop[Thing] = PerLoop()
    loop = asyncio.SelectorEventLoop()
    things.put(loop, Thing(loop))
    gone = weakref.ref(things.get(loop))  # type: ignore[arg-type]
    del things
    gc.collect()

    assert gone() is None
    loop.close()


def test_per_loop_value_that_was_taken_out():
    """
    It is known no more, and may be taken out twice.
    """
    things: PerLoop[Thing] = PerLoop()
    loop = asyncio.SelectorEventLoop()
    things.put(loop, Thing(loop))
    things.pop(loop)
    things.pop(loop)

    assert (None, [], 0) == (things.get(loop), things.all(), len(things))
    loop.close()
