"""
A map killed with SIGKILL at random, again and again, and resumed: what is written twice, what is sent twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

__all__ = ["killed"]

VICTIM = Path(__file__).parents[2] / "tests" / "support" / "bulk_victim.py"


def killed(
    count: int, kills: int, concurrency: int, durability: str, directory: str, seed: int = 1
) -> dict[str, float]:
    """
    Lines, ids and requests after `kills` kills and one undisturbed run.
    """
    from kimi_async.testing.simulator.server import KimiSimulator

    path = os.path.join(directory, f"killed-{durability}.jsonl")
    dice = random.Random(seed)
    with KimiSimulator(words=(1, 3), keep_requests=count * 4).in_thread() as simulator:
        command = [
            *(sys.executable, str(VICTIM), simulator.base_url, simulator.api_key),
            *(path, str(count), str(concurrency), durability),
        ]
        happened = 0
        for _ in range(kills):
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            goal = simulator.stats.requests + dice.randrange(1, 2 * count // (kills + 2))
            while simulator.stats.requests < goal and process.poll() is None:
                os.sched_yield()
            happened += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        asked = Counter(
            json.loads(request.body)["messages"][0]["content"]
            for request in simulator.requests
            if request.method == "POST"
        )
    with open(path, "rb") as file:
        ids = [json.loads(line)["custom_id"] for line in file]
    return {
        "kills": happened,
        "lines": len(ids),
        "ids": len(set(ids)),
        "sent_twice": sum(asked.values()) - len(asked),
        "allowed_twice": happened * concurrency,
    }
