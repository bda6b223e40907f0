"""The command line, `kimi-async`, a file a command; needs the extra `[cli]`. `options`, `terminal` and `words` are what commands share.

May use the whole package; nothing uses it."""

import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """
    Runs the command line on `sys.argv` and exits with its status.

    0: done. 1: something failed, told in one line on standard error. 2: wrong usage. 130: interrupted.
    """
    try:
        # Asked for here so that one sentence can say what is missing.
        for needed in ("rich", "typer"):
            import_module(needed)
    except ImportError as exc:
        print(
            f"kimi-async: the command line needs {exc.name}: pip install 'kimi-async[cli]'", file=sys.stderr
        )
        sys.exit(1)
    from .app import run

    sys.exit(run(sys.argv[1:]))
