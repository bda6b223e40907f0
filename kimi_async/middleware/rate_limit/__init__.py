"""
One organisation's limits: who may send now, and what the server's answers teach about it.

`controller` keeps queues and timers around the arithmetic of `law`, which asks `rate`, `slots` and `outage`; `middleware`
stands in the chain; `shared` is the seam for a quota that several processes use.
"""

from .controller import AdmissionController, Lease
from .cost import tokens_of
from .in_process import InProcessLimits
from .limits import RateLimits
from .middleware import RateLimitMiddleware
from .shared import Bundle, SharedLimits
from .stats import LimiterStats, LimitStats

__all__ = [
    "AdmissionController",
    "Bundle",
    "InProcessLimits",
    "Lease",
    "LimitStats",
    "LimiterStats",
    "RateLimitMiddleware",
    "RateLimits",
    "SharedLimits",
    "tokens_of",
]
