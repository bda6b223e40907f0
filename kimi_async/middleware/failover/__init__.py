"""
Failover: the same chat request over hosts, keys and models. `policy` and `needs` decide, `middleware` acts.
"""

from .middleware import Failover, FailoverTarget
from .policy import asking_again_soon

__all__ = ["Failover", "FailoverTarget", "asking_again_soon"]
