"""
Dated facts about hosts and models: addresses, key variables, ids, budgets, prices, and what is certain to be refused.

Tables and look-ups, each with its source. May use errors.
"""

from .hosts import (
    PROVIDERS,
    Provider,
    by_base_url,
    foreign_model_message,
    missing_endpoint_message,
    provider,
)
from .ids import Gateway, gateway_of_model_id, official_id

__all__ = [
    "PROVIDERS",
    "Gateway",
    "Provider",
    "by_base_url",
    "foreign_model_message",
    "gateway_of_model_id",
    "missing_endpoint_message",
    "official_id",
    "provider",
]
