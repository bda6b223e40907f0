"""
What a program that uses `kimi_async` needs for its own tests.

- `KimiSimulator`: a Kimi server on loopback, with faults (`FaultPlan`, `faults`) and limits (`ServerLimits`) to order.
- `KimiService` and `in_memory`: the same behaviour without sockets, for a virtual clock.
- `MemoryTransport` and `Reply`: a transport that calls a function; no socket, no simulator.
- `VirtualClockLoop`: an event loop whose clock jumps, so that ten minutes of waiting take a moment.
- `kimi_async.testing.pytest_plugin`: the fixtures `kimi_simulator` and `kimi_client`, installed with the package.

Importing this package loads none of it: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Each name twice, for type checkers and for Python, as at the top of the package.
if TYPE_CHECKING:
    __all__: list[str]

    from . import faults as faults
    from .clock import VirtualClockLoop as VirtualClockLoop
    from .faults import FaultPlan as FaultPlan
    from .memory_transport import MemoryTransport as MemoryTransport
    from .memory_transport import Reply as Reply
    from .service_in_memory import in_memory as in_memory
    from .simulator.chat_model import ToolCall as ToolCall
    from .simulator.chat_model import Turn as Turn
    from .simulator.records import RecordedRequest as RecordedRequest
    from .simulator.records import SimulatorStats as SimulatorStats
    from .simulator.replies import Pace as Pace
    from .simulator.replies import Refusal as Refusal
    from .simulator.replies import error_reply as error_reply
    from .simulator.server import KimiSimulator as KimiSimulator
    from .simulator.server_limits import ServerLedger as ServerLedger
    from .simulator.server_limits import ServerLimits as ServerLimits
    from .simulator.server_limits import Storm as Storm
    from .simulator.service import KimiService as KimiService

_MODULES: dict[str, str] = {
    "clock": "VirtualClockLoop",
    "faults": "FaultPlan",
    "memory_transport": "MemoryTransport Reply",
    "service_in_memory": "in_memory",
    "simulator.chat_model": "ToolCall Turn",
    "simulator.records": "RecordedRequest SimulatorStats",
    "simulator.replies": "Pace Refusal error_reply",
    "simulator.server": "KimiSimulator",
    "simulator.server_limits": "ServerLedger ServerLimits Storm",
    "simulator.service": "KimiService",
}
_MODULE_OF: dict[str, str] = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name == "faults":
        return import_module(".faults", __name__)
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({"faults", *_MODULE_OF})
