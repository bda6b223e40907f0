"""
What is repeated, when, and when no longer: the policy, one call's attempts, the breakers that a whole organisation shares.
"""

from .attempts import (
    Admissions,
    Failure,
    OverloadBreaker,
    RetryBudget,
    RetryMiddleware,
    RetryPolicy,
    RetryRule,
    Verdict,
    backoff,
    decide,
)

__all__ = [
    "Admissions",
    "Failure",
    "OverloadBreaker",
    "RetryBudget",
    "RetryMiddleware",
    "RetryPolicy",
    "RetryRule",
    "Verdict",
    "backoff",
    "decide",
]
