"""
The two waits of an exchange and their bounds: `send_within` for the headers of a reply, `read_whole` for its body.
"""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from ..errors import APITimeoutError
from .deadlines import Deadline
from .exchange import Request, Response

__all__ = ["read_whole", "send_within", "unread", "whole"]


async def send_within(transport_send: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """
    Sends, and gives up when the headers do not come in time: `first_token` for a stream, `read` otherwise, `total` for both.

    The bound is on the headers as a whole, so that a server that trickles them byte by byte cannot stretch it.
    """
    timeout = request.timeout
    started = asyncio.get_running_loop().time()
    seconds = timeout.first_token if request.stream else timeout.read
    phase = "headers"
    if timeout.total is not None and (seconds is None or timeout.total < seconds):
        seconds, phase = timeout.total, "total"
    if not isinstance(request.body, (bytes, type(None))):
        # An upload takes as long as it takes; the transport bounds each write, and `total`, if set, all of it.
        seconds, phase = timeout.total, "total"
    deadline = Deadline(seconds)
    try:
        with deadline:
            response = await transport_send(request)
        response.started = started
        return response
    except TimeoutError:
        if not deadline.expired:
            raise
    host = urlsplit(request.url).hostname
    raise APITimeoutError(
        request,
        message=f"no reply from {host} after {seconds:g} s (waiting for headers; Timeout.{_FIELD[phase, request.stream]} = {seconds:g})",
        phase=phase,
        elapsed=seconds,
    )


_FIELD = {
    ("headers", True): "first_token",
    ("headers", False): "read",
    ("total", True): "total",
    ("total", False): "total",
}


async def read_whole(response: Response) -> None:
    """Takes in a whole reply, within what its headers have left of `Timeout.read`, and of `total`."""
    if response.settle():
        return
    request = response.request
    timeout = request.timeout
    spent = 0.0 if response.started is None else asyncio.get_running_loop().time() - response.started
    limit, phase = timeout.read, "body"
    left = limit
    if limit is not None and isinstance(request.body, (bytes, type(None))):
        left = limit - spent  # after an upload, which took its own time, the count begins anew
    if timeout.total is not None and (left is None or timeout.total - spent < left):
        limit, left, phase = timeout.total, timeout.total - spent, "total"
    deadline = Deadline(left)
    try:
        with deadline:
            await response.read()
    except TimeoutError:
        response.close()
        if not deadline.expired:
            raise
    else:
        return
    raise APITimeoutError(
        request,
        message=f"the reply of {urlsplit(response.url).hostname} began but did not end within {limit:g} s "
        f"(Timeout.{'read' if phase == 'body' else phase})",
        phase=phase,
        elapsed=limit,
    )


async def whole(response: Response) -> Response:
    """The reply itself, read to its end: what `request.accept` is where nothing more is known of its shape."""
    await read_whole(response)
    return response


async def unread(response: Response) -> Response:
    """The reply itself, its body still on the way."""
    return response
