"""
Chaos to order: what goes wrong with which request, as data.

    plan = FaultPlan([
        Drop(after_events=3, how="rst"),          # the first chat request
        None,                                     # the second goes well
        [Trickle(size=1), ErrorEvent(after_events=5)],   # the third has two troubles
    ])
    async with KimiSimulator(faults=plan) as sim: ...

A plan hands one entry to each request that matches its `path`, in order of arrival; when the entries are used up
requests go well again (or, with `cycle=True`, the plan starts over). `FaultPlan.random(seed)` never ends, and the same
seed gives the same troubles; with `per="conversation"` whatever the order of arrival. Faults are msgspec structs:
`plan.to_json()` and `FaultPlan.from_json()` carry a plan through a file, and
`kimi-async simulate --faults plan.json` plays it.

`Fault` classes in the order of the layers they trouble:

- the reply as a whole: `Error`, `Redirect`, `ContentType`, `HeaderFlood`, `SlowHeaders`, `EmptyBody`;
- chunks: `MissingRole`, `MissingFinish`, `DuplicateFinish`, `MissingDone`, `ToolDeltas`, `NullFields`, `InsertText`,
  `SurrogateHalves`, `GiantEvent`, `ErrorEvent`;
- tool calls: `LeakedTools`, `BrokenArguments`;
- lines: `Comments`, `Pings`, `LineEndings`, `JoinedEvents`, `Garbage`, `InvalidUtf8`;
- bytes and time: `Drop`, `Stall`, `Trickle`, `Compress`, `Bomb`, `BadFraming`, `LateTerminator`, `CloseIdle`.

Positions: `after_events=n` means after n events have been sent (0: right after the headers); `after_bytes=n` counts
bytes of the body, before any compression. A reply that is not a stream has no events; faults placed by events
then strike in the middle of its body. Faults on chunks and lines leave such replies alone.
"""

from .byte_faults import BadFraming, Bomb, CloseIdle, Compress, Drop, LateTerminator, Stall, Trickle
from .chunk_faults import (
    DuplicateFinish,
    ErrorEvent,
    GiantEvent,
    InsertText,
    MissingDone,
    MissingFinish,
    MissingRole,
    NullFields,
    SurrogateHalves,
    ToolDeltas,
)
from .fault import Fault
from .line_faults import Comments, Garbage, InvalidUtf8, JoinedEvents, LineEndings, Pings
from .plans import FaultEntry, FaultPlan, apply_faults, random_fault
from .reply_faults import ContentType, EmptyBody, Error, HeaderFlood, Redirect, SlowHeaders
from .tool_faults import BrokenArguments, LeakedTools

__all__ = [
    "BadFraming",
    "Bomb",
    "BrokenArguments",
    "CloseIdle",
    "Comments",
    "Compress",
    "ContentType",
    "Drop",
    "DuplicateFinish",
    "EmptyBody",
    "Error",
    "ErrorEvent",
    "Fault",
    "FaultEntry",
    "FaultPlan",
    "Garbage",
    "GiantEvent",
    "HeaderFlood",
    "InsertText",
    "InvalidUtf8",
    "JoinedEvents",
    "LateTerminator",
    "LeakedTools",
    "LineEndings",
    "MissingDone",
    "MissingFinish",
    "MissingRole",
    "NullFields",
    "Pings",
    "Redirect",
    "SlowHeaders",
    "Stall",
    "SurrogateHalves",
    "ToolDeltas",
    "Trickle",
    "apply_faults",
    "random_fault",
]
