"""
What a program that uses `kimi_async` needs for its own tests.

- `KimiSimulator`: a Kimi server on loopback, with faults (`FaultPlan`, `faults`) and limits (`ServerLimits`) to order.
- `KimiService` and `in_memory`: the same behaviour without sockets, for a virtual clock.
- `MemoryTransport` and `Reply`: a transport that calls a function; no socket, no simulator.
- `VirtualClockLoop`: an event loop whose clock jumps, so that ten minutes of waiting take a moment.
- `kimi_async.testing.pytest_plugin`: the fixtures `kimi_simulator` and `kimi_client`, installed with the package.

Importing this package loads none of it: each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import faults
    from .clock import VirtualClockLoop
    from .faults import FaultPlan
    from .memory_transport import MemoryTransport, Reply
    from .service_in_memory import in_memory
    from .simulator.chat_model import ToolCall, Turn
    from .simulator.records import RecordedRequest, SimulatorStats
    from .simulator.replies import Pace, Refusal, error_reply
    from .simulator.server import KimiSimulator
    from .simulator.server_limits import ServerLedger, ServerLimits, Storm
    from .simulator.service import KimiService

__all__ = [
    "FaultPlan",
    "KimiService",
    "KimiSimulator",
    "MemoryTransport",
    "Pace",
    "RecordedRequest",
    "Refusal",
    "Reply",
    "ServerLedger",
    "ServerLimits",
    "SimulatorStats",
    "Storm",
    "ToolCall",
    "Turn",
    "VirtualClockLoop",
    "error_reply",
    "faults",
    "in_memory",
]

_HOMES = {
    "simulator.chat_model": ("ToolCall", "Turn"),
    "clock": ("VirtualClockLoop",),
    "faults": ("FaultPlan",),
    "service_in_memory": ("in_memory",),
    "simulator.server_limits": ("ServerLedger", "ServerLimits", "Storm"),
    "memory_transport": ("MemoryTransport", "Reply"),
    "simulator.records": ("RecordedRequest", "SimulatorStats"),
    "simulator.replies": ("Pace", "Refusal", "error_reply"),
    "simulator.service": ("KimiService",),
    "simulator.server": ("KimiSimulator",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "faults":
        return importlib.import_module(".faults", __name__)
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
