"""
What all resources share: the client that sends for them, and their raw and streaming views.
"""

from typing import Generic, TypeVar, cast

from .caller import Caller
from .raw_replies import WithRawResponse, WithStreamingResponse

__all__ = ["Resource"]

Raw = TypeVar("Raw", bound=WithRawResponse)
Streaming = TypeVar("Streaming", bound=WithStreamingResponse)


class Resource(Generic[Raw, Streaming]):
    """A family of endpoints of one client. `Raw` and `Streaming` say, for type checkers, what its methods are on its views."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    @property
    def with_raw_response(self) -> Raw:
        """The same methods, giving the reply with what it means: `(await r.create(...)).headers`, `.parse()`."""
        return cast("Raw", WithRawResponse(self))

    @property
    def with_streaming_response(self) -> Streaming:
        """The same methods as `async with`, giving the reply before its body has been read."""
        return cast("Streaming", WithStreamingResponse(self))
