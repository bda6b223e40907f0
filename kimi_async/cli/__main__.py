"""`python -m kimi_async.cli`, for when the script's directory is not on PATH."""

from . import main

__all__: list[str] = []

main()
