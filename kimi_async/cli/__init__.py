"""The command line, `kimi-async`, a file a command; needs the extra `[cli]`. `options`, `terminal` and `words` are what commands share.

May use the whole package; nothing uses it."""

import signal
import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """
    Runs the command line on `sys.argv` and exits with its status.

    0: done. 1: something failed, told in one line on standard error. 2: wrong usage. 130: interrupted.
    """
    status = 130
    try:
        status = _run()
    except KeyboardInterrupt:
        pass  # while the commands were imported
    # Nothing is left to be done for a Ctrl-C but to end, and nothing to say: Python would print where it was.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(status)


def _run() -> int:
    try:
        # Asked for here so that one sentence can say what is missing.
        for needed in ("rich", "typer"):
            import_module(needed)
    except ImportError as exc:
        print(
            f"kimi-async: the command line needs {exc.name}: pip install 'kimi-async[cli]'", file=sys.stderr
        )
        return 1
    from .app import run

    return run(sys.argv[1:])
