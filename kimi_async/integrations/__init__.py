"""
One file an outside system, imported only when it is used: behind an extra of its name, or none where the system is yours.
"""

__all__: list[str] = []
