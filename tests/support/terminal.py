"""A command line in a process of its own: in a pipe, or on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl

__all__ = ["ESCAPE", "KIMI", "READY", "Terminal", "environment", "kimi", "terminal_of"]

KIMI = [sys.executable, "-m", "kimi_async.cli"]
ESCAPE = "\x1b"
READY = "\x1b[?2004h"
"""Bracketed paste is switched on: a line is being read."""


def terminal_of(environ: Mapping[str, str]) -> dict[str, str]:
    """With nothing that says how wide or colourful the terminal is but its type."""
    settings = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_COMPATIBLE"}
    kept = {name: value for name, value in environ.items() if name not in settings}
    return {**kept, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "PROMPT_TOOLKIT_NO_CPR": "1"}


def environment(**more: str) -> dict[str, str]:
    return terminal_of({**os.environ, **more})


def kimi(
    *arguments: str, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a pipe."""
    return subprocess.run(
        [*KIMI, *arguments], input=stdin, capture_output=True, text=True, env=env or environment(), timeout=60
    )


class Terminal:
    """A command line on a pseudo-terminal of 100 by 30."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [*KIMI, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env or environment(),
            start_new_session=True,
            # Ctrl-C reaches the processes of the terminal's session, so it must be their terminal.
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(theirs)
        self.fd = ours
        self.seen = ""
        self.passed = 0

    def read_until(self, wanted: str, timeout: float = 30.0) -> str:
        while wanted not in self.seen:
            if not self._read(timeout):
                raise AssertionError(f"{wanted!r} was not shown; the screen got: {self.seen!r}")
        return self.seen

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], timeout)
        try:
            data = os.read(self.fd, 65536) if ready else b""
        except OSError:  # Linux says EIO when the other side has closed
            data = b""
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def pass_by(self, wanted: str) -> None:
        """Reads on until it is shown; what follows is then looked for behind it."""
        while wanted not in self.seen[self.passed :]:
            if not self._read(30.0):
                raise AssertionError(
                    f"{wanted!r} was not shown; the screen got: {self.seen[self.passed :]!r}"
                )
        self.passed = self.seen.index(wanted, self.passed) + len(wanted)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Reads to the end and returns the exit status."""
        while self._read(30.0):
            pass
        return self.process.wait(30)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
