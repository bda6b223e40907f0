"""
What a server of this package remembers, for a test to read afterwards.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
from multidict import CIMultiDict

__all__ = ["RecordedRequest", "SimulatorStats"]


@dataclass(slots=True)
class RecordedRequest:
    """One request as the server saw it, and what became of it."""

    ordinal: int
    method: str
    path: str
    """With the query."""
    headers: CIMultiDict[str]
    at: float
    """The loop's time when the headers had arrived."""
    connection: int
    """The client's port: equal for requests on one connection."""
    body: bytes = b""
    """Empty for uploads: those are hashed, not held."""
    status: int = 0
    """0 until a status line was sent."""
    events: int = 0
    """Events sent so far."""
    faults: tuple[str, ...] = ()
    """Names of the faults that were applied."""
    finished: bool = False
    """The reply went as far as it was meant to."""
    client_gone: bool = False
    """The client closed the connection before that."""

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


@dataclass(slots=True)
class SimulatorStats:
    """Counters since the server started."""

    connections_opened: int = 0
    connections_open: int = 0
    requests: int = 0
    by_path: Counter[str] = field(default_factory=Counter[str])
    """Keys like "POST /v1/chat/completions"."""
    by_status: Counter[int] = field(default_factory=Counter[int])
    """Status 0 counts requests that got no status line."""
    rejected: Counter[str] = field(default_factory=Counter[str])
    """Error replies by kind: the limiter's ("rpm", "concurrency", …), and otherwise `error.type`."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """Faults applied, by name."""
    in_flight: int = 0
    peak_in_flight: int = 0
    events_sent: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    """Request bodies."""
    clients_gone: int = 0
    """Replies that the client did not wait for."""
