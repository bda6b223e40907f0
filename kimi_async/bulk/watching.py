"""
Functions of the caller's that watch a job: what they raise loses nothing of it.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

__all__ = ["logger", "watching"]

logger: logging.Logger = logging.getLogger("kimi_async")

T = TypeVar("T")


def watching(name: str, watch: Callable[[T], object] | None) -> Callable[[T], None] | None:
    """
    The same function, of which the first failure is logged, with its ``name``, and none goes further.

    A batch is paid for once it is made, and so is what was uploaded: neither may be lost to who only looks on.
    """
    if watch is None:
        return None
    complained = False

    def told(seen: T) -> None:
        nonlocal complained
        try:
            watch(seen)
        except Exception:
            if not complained:
                complained = True
                logger.exception("%s raised; it goes on being told, and the work goes on", name)

    return told
