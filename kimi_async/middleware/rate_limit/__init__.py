"""
One organisation's limits: who may send now, and what the server's answers teach about it.

`controller` keeps queues and timers around the arithmetic of `law`, which asks `rate`, `slots` and `outage`; `middleware`
stands in the chain; `shared` is for a quota that several processes use.
"""

from .controller import AdmissionController, Lease
from .cost import tokens_of
from .limiter import Limiter, Permission
from .limits import RateLimits
from .middleware import RateLimitMiddleware
from .shared.controller import SharedController
from .shared.engine import Ask, Grant, SharedEngine, SharedLimits
from .shared.memory import MemoryLedger
from .shared.message import Answer, Ledger, LedgerUnavailable, SharedView, Sync
from .shared.quota import SharedQuota
from .stats import LimiterStats, LimitStats

__all__ = [
    "AdmissionController",
    "Answer",
    "Ask",
    "Grant",
    "Lease",
    "Ledger",
    "LedgerUnavailable",
    "LimitStats",
    "Limiter",
    "LimiterStats",
    "MemoryLedger",
    "Permission",
    "RateLimitMiddleware",
    "RateLimits",
    "SharedController",
    "SharedEngine",
    "SharedLimits",
    "SharedQuota",
    "SharedView",
    "Sync",
    "tokens_of",
]
