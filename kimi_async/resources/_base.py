"""
What all resources share: the client that sends for them, and their raw and streaming views.
"""

from .caller import Caller
from .raw_replies import WithRawResponse, WithStreamingResponse

__all__ = ["Resource"]


class Resource:
    """A family of endpoints of one client."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    @property
    def with_raw_response(self) -> WithRawResponse:
        """The same methods, giving the reply with what it means: `(await r.create(...)).headers`, `.parse()`."""
        return WithRawResponse(self)

    @property
    def with_streaming_response(self) -> WithStreamingResponse:
        """The same methods as `async with`, giving the reply before its body has been read."""
        return WithStreamingResponse(self)
