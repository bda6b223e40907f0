"""
What is repeated, when, and when no longer.

`policy` decides, `middleware` carries it out; `organisation` is what calls of one account share, `breakers` what stops them
all; `strategy` is for a tenacity strategy of your own, and alone needs tenacity.
"""

from .breakers import OverloadBreaker, RetryBudget
from .middleware import RetryMiddleware
from .organisation import Admissions
from .policy import Failure, RetryPolicy, RetryRule, Verdict, backoff, decide

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
