"""
`python -m kimi_async.testing.simulator`: a simulated Kimi until Ctrl-C.
"""

from .server import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
