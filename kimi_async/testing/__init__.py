"""
What a program that uses `kimi_async` needs for its own tests.

- `KimiSimulator`: a Kimi server on loopback, with faults (`FaultPlan`) and limits (`ServerLimits`) to order.
- `MemoryTransport` and `Reply`: a transport that calls a function; no socket, no simulator.
- `VirtualClockLoop`: an event loop whose clock jumps, so that ten minutes of waiting take a moment.
- `kimi_async.testing.pytest_plugin`: the fixtures `kimi_simulator` and `kimi_client`, installed with the package.

Importing this package loads none of it: each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat_model import ToolCall, Turn
    from .clock import VirtualClockLoop
    from .memory import MemoryTransport, Reply
    from .prerendered import Prerendered, PrerenderedServer
    from .records import RecordedRequest, SimulatorStats
    from .replies import Pace, Refusal, error_reply
    from .service import KimiService
    from .simulator import KimiSimulator

__all__ = [
    "KimiService",
    "KimiSimulator",
    "MemoryTransport",
    "Pace",
    "Prerendered",
    "PrerenderedServer",
    "RecordedRequest",
    "Refusal",
    "Reply",
    "SimulatorStats",
    "ToolCall",
    "Turn",
    "VirtualClockLoop",
    "error_reply",
]

_HOME = {
    "KimiService": "service",
    "KimiSimulator": "simulator",
    "MemoryTransport": "memory",
    "Pace": "replies",
    "Prerendered": "prerendered",
    "PrerenderedServer": "prerendered",
    "RecordedRequest": "records",
    "Refusal": "replies",
    "Reply": "memory",
    "SimulatorStats": "records",
    "ToolCall": "chat_model",
    "Turn": "chat_model",
    "VirtualClockLoop": "clock",
    "error_reply": "replies",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
