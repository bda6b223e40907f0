"""
Conversations that the host will take: what is wrong with a history, what mends it, and what of it fits the window.

Plain functions over lists of messages; only `fit` may ask somebody, the token endpoint of a client it is given. May use
providers and types.
"""

from .fit import Fitted, TooLongError, fit
from .history import HistoryFault, Mended, check_history, mend_history
from .tokens import estimate_tokens

__all__ = [
    "Fitted",
    "HistoryFault",
    "Mended",
    "TooLongError",
    "check_history",
    "estimate_tokens",
    "fit",
    "mend_history",
]
