"""
One organisation's limits: who may send now, and what the server's answers teach about it.
"""

from .middleware import (
    AdmissionController,
    Bundle,
    InProcessLimits,
    Lease,
    LimiterStats,
    LimitStats,
    RateLimitMiddleware,
    RateLimits,
    SharedLimits,
    tokens_of,
)

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
