"""
Files and batches of the simulated Kimi.

It takes the time as an argument and does no I/O, so it stands behind real sockets (`add_routes`) and behind a memory
transport (`answer`) alike. Shapes, texts, limits and statuses follow platform.kimi.ai/docs/api/files and /batch, and
replies captured from the live API; what is only believed is marked so. `StorageFaults` makes things go wrong.
"""

from .routes import add_routes, answer
from .state import BatchPace, Storage, StorageFaults, StorageReply, StoredBatch, StoredFile

__all__ = [
    "BatchPace",
    "Storage",
    "StorageFaults",
    "StorageReply",
    "StoredBatch",
    "StoredFile",
    "add_routes",
    "answer",
]
