"""
The embedded Kimi: a service that answers as the real one does, and the server that puts it on a socket.

`kimi_async.testing` offers the names; this folder loads nothing by itself.
"""

__all__: list[str] = []
