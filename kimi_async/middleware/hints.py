"""
What a refusal says about waiting and about limits: `retry_after`, `limit_told`.

The rules live two floors down, in `kimi_async.hints`, because errors carry the same facts.
"""

from ..hints import LimitTold, limit_told, retry_after

__all__ = ["LimitTold", "limit_told", "retry_after"]
