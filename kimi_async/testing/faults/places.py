"""
Places in what is sent: after so many events, after so many bytes.
"""

import itertools
from collections.abc import Callable, Iterator

from ..simulator.replies import Cut, End, Head, Send, Step

__all__ = ["at_place"]


def at_place(
    steps: Iterator[Step],
    after_events: int | None,
    after_bytes: int | None,
    then: Callable[[Iterator[Step]], Iterator[Step]],
) -> Iterator[Step]:
    """Let steps pass until so many events or bytes have been sent after the head; `then` gives what follows."""
    events, sent = after_events, after_bytes
    begun = False
    for step in steps:
        if isinstance(step, Head):
            begun = True
            yield step
            if events == 0 or sent == 0:
                yield from then(steps)
                return
            continue
        if not begun or not isinstance(step, Send):
            if isinstance(step, (End, Cut)) and begun:
                # The body was shorter than the place that was named.
                yield step
                return
            yield step
            continue
        if sent is not None and len(step.data) >= sent:
            if step.data[:sent]:
                yield Send(step.data[:sent])
            rest = Send(step.data[sent:], step.events)
            yield from then(itertools.chain((rest,) if rest.data else (), steps))
            return
        if events is not None and step.events >= events:
            cut = len(step.data) if step.events == events else _end_of_event(step.data, events)
            yield Send(step.data[:cut], events)
            rest = Send(step.data[cut:], step.events - events)
            yield from then(itertools.chain((rest,) if rest.data else (), steps))
            return
        if sent is not None:
            sent -= len(step.data)
        if events is not None:
            events -= step.events
        yield step


def _end_of_event(data: bytes, count: int) -> int:
    at = 0
    for _ in range(count):
        at = data.find(b"\n\n", at) + 2
    return at
