"""
One module for each family of endpoints; thin.
"""

__all__: list[str] = []
