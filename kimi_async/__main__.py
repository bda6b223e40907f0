"""`python -m kimi_async`: the command line, for when the script's directory is not on PATH."""

from .cli import main

__all__: list[str] = []

main()
