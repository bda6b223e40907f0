"""
Many requests, files or batches at once, with bounded memory and results that are on disk before they are seen.

`map` sends requests as they come, `batch_jobs` through the Batch API, `upload_many` files. May use everything but the command
line; a client is handed to it.
"""

__all__: list[str] = []
