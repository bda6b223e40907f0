"""
One module for each family of endpoints; thin. What sends for them is a `Caller`: they know no client.

May use every layer below the client, and opens `bulk` only when it is asked for.
"""

__all__: list[str] = []
