"""
One file an outside system, each behind an extra of its name, imported only when it is used.
"""

__all__: list[str] = []
