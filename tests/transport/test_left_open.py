"""
Programs that never close their client end in silence.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.left_open import WAYS

PROGRAM = Path(__file__).parents[1] / "support" / "left_open.py"


def printed(way: str, *flags: str) -> str:
    """
    What the program prints, on whichever stream.
    """
    ran = subprocess.run(
        [sys.executable, *flags, str(PROGRAM), way], capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == ran.returncode, ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("way", WAYS)
def test_client_left_open_prints_nothing(way: str):
    """
    At exit, and when a client is collected, in whichever thread: connections are closed, and nothing is said of them.
    """
    assert "" == printed(way)


def test_client_left_open_warns_who_asks_for_warnings():
    """
    Python's own development mode shows one line that says how to close it, and nothing of aiohttp's.
    """
    told = printed("global", "-X", "dev")

    assert "ResourceWarning: an AsyncKimi client was left open; use `async with" in told
    assert "aiohttp" not in told
