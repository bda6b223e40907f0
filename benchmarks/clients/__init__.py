"""
The clients, by name. Their libraries are imported only when one runs.
"""

from __future__ import annotations

from benchmarks.clients.base import Peer
from benchmarks.clients.by_hand import AiohttpJSON, Floor, FloorUvloop, Raw
from benchmarks.clients.openai_sdk import OpenAI, OpenAIAiohttp
from benchmarks.clients.others import Groq, KimiAgents, LiteLLM, Mistral
from benchmarks.clients.ours import Ours, OursUvloop

__all__ = ["CLIENTS", "FLOOR", "OURS"]

CLIENTS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Ours,
        OursUvloop,
        Raw,
        Floor,
        FloorUvloop,
        AiohttpJSON,
        OpenAI,
        OpenAIAiohttp,
        Groq,
        Mistral,
        LiteLLM,
        KimiAgents,
    )
}
"""Every client this program knows, in the order of the table."""

OURS = Ours.name
FLOOR = Floor.name
