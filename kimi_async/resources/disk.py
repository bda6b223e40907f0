"""
What is done to files, each in one way: reading by offset, writing whole, replacing in one step.

Synchronous throughout: call it from a thread.
"""

import os
import sys

__all__ = ["read_at"]


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Bytes by offset, without moving the position of the file where the system can."""
    if sys.platform == "win32":
        # Appending ignores the position (O_APPEND), so moving it disturbs nobody.
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    return os.pread(fd, count, offset)
