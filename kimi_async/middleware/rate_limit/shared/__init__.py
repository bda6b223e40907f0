"""
One organisation's quota, used by several processes: a ledger somewhere, and in each process an engine that speaks with it.

    AsyncKimi(limits="tier5", shared="host")                            processes of this machine
    AsyncKimi(limits="tier5", shared="redis://10.0.0.5:6379/0")         … and of others

`ledger` is the arithmetic, pure; `message` what is said about it; `engine` one member; `controller` the limiter of a client. A back
end has two methods, `sync` and `aclose` (`Ledger`): here `MemoryLedger` and `HostLedger`, in `kimi_async.integrations` those for Redis
and Ray.
"""

from .controller import SharedController, SharedLease
from .engine import SharedEngine
from .host import HostLedger
from .memory import MemoryLedger
from .message import Answer, Ledger, LedgerUnavailable, Peer, SharedView, Sync
from .quota import SharedQuota
from .seam import Ask, Grant, Line, SharedLimits

__all__ = [
    "Answer",
    "Ask",
    "Grant",
    "HostLedger",
    "Ledger",
    "LedgerUnavailable",
    "Line",
    "MemoryLedger",
    "Peer",
    "SharedController",
    "SharedEngine",
    "SharedLease",
    "SharedLimits",
    "SharedQuota",
    "SharedView",
    "Sync",
]
