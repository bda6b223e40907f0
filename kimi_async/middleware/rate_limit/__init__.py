"""
One organisation's limits: who may send now, and what the server's answers teach about it.

`controller` keeps queues and timers around the arithmetic of `law`, which asks `rate`, `slots` and `outage`; `middleware`
stands in the chain; `shared` is for a quota that several processes use, and is imported only where one is.
"""

from .controller import AdmissionController, Lease
from .cost import tokens_of
from .limiter import Limiter, Permission
from .limits import RateLimits
from .middleware import RateLimitMiddleware
from .stats import LimiterStats, LimitStats

__all__ = [
    "AdmissionController",
    "Lease",
    "LimitStats",
    "Limiter",
    "LimiterStats",
    "Permission",
    "RateLimitMiddleware",
    "RateLimits",
    "tokens_of",
]
