"""
The fault cases of `fault_cases.py`, shown to this client and to the OpenAI SDK: what each makes of them, in one table.

    .venv/bin/python tests/compare_faults.py

Takes about two minutes: some cases only end when the other client's timeout does. Not a test: nothing here fails.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import openai

import kimi_async.streaming.clocks
import kimi_async.streaming.reading
from kimi_async import AsyncKimi, KimiError, RetryPolicy, Timeout
from support.fault_cases import BROKEN, NOT_STREAMED, TOLERATED, Case
from support.raw_server import RawServer, every

LIMIT = 3.0
"""Seconds after which a call counts as hanging. Every bound that the clients are given is a tenth of that."""

QUESTION: Any = [{"role": "user", "content": "Hello?"}]
KEY = "sk-test-0123456789abcdef"


@dataclass
class Outcome:
    verdict: str
    """`right`, or what was wrong, in a few words."""
    seconds: float
    detail: str = ""


async def call(client: Any, case: Case, got: list[str]) -> None:
    answer = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=case.stream)
    if not case.stream:
        got.append(answer.choices[0].message.content)
        return
    async with answer:
        async for chunk in answer:
            got += [choice.delta.content or "" for choice in chunk.choices if choice.delta]


def judged(
    case: Case, got: list[str], raised: BaseException | None, ours: tuple[type, ...]
) -> tuple[str, str]:
    """
    Right is: an answer where there is one, with the right text; where there is none, an error of the library's own, with what
    had arrived either handed out before or attached.
    """
    content = "".join(got)
    if raised is None:
        if case.error is not None:
            return "took it for a whole answer", repr(content[:40])
        return ("right", "") if content == case.content else ("changed the text", repr(content[:40]))
    name = f"{type(raised).__name__}: {' '.join(str(raised).split())[:80]}"
    if isinstance(raised, TimeoutError) and not isinstance(raised, ours):
        return "hung", ""
    if case.error is None:
        return "lost a good answer", name
    if not isinstance(raised, ours):
        return "let a foreign error out", name
    if case.content and not case.content.startswith(content):
        return "changed the text", repr(content[:40])
    if case.content and content != case.content:
        return "lost what had arrived", name
    return "right", name


async def outcome(case: Case, make: Any, ours: tuple[type, ...]) -> Outcome:
    got: list[str] = []
    raised: BaseException | None = None
    async with RawServer(every(case.answer)) as server:
        client = make(server.base_url, case)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT):
                await call(client, case, got)
        except Exception as exc:
            raised = exc
        seconds = time.perf_counter() - began
        await client.close()
        server.faults.clear()
    return Outcome(*judged(case, got, raised, ours)[:1], seconds, judged(case, got, raised, ours)[1])


def kimi(base_url: str, case: Case) -> AsyncKimi:
    options = dict(case.options)
    timeout = Timeout(
        **{"connect": 1.0, "read": 0.3, "first_token": 0.3, "idle": 0.3, **options.pop("timeout", {})}
    )
    return AsyncKimi(
        api_key=KEY,
        base_url=base_url,
        timeout=timeout,
        max_retries=1,
        retry=RetryPolicy(base=0, cap=0),
        **options,
    )


def sdk(base_url: str, case: Case) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=KEY, base_url=base_url, timeout=0.3, max_retries=1)


async def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    kimi_async.streaming.clocks.GRACE = kimi_async.streaming.reading.DRAIN = 0.1  # type: ignore[misc]
    totals: dict[str, Counter[str]] = {"kimi-async": Counter(), "openai": Counter()}
    for title, cases in (
        ("Broken streams", BROKEN),
        ("Odd, but whole", TOLERATED),
        ("Not streamed", NOT_STREAMED),
    ):
        print(
            f"\n## {title}\n\n| the server | kimi-async | openai {openai.__version__} |\n| --- | --- | --- |"
        )
        for case in cases:
            if case.options:
                continue  # about bounds that only one of the two offers
            one = await outcome(case, kimi, (KimiError,))
            other = await outcome(case, sdk, (openai.OpenAIError,))
            totals["kimi-async"][one.verdict] += 1
            totals["openai"][other.verdict] += 1
            told = (
                f"{other.verdict} ({other.detail})"
                if other.verdict != "right" and other.detail
                else other.verdict
            )
            ours = f"{one.verdict} ({one.detail})" if one.verdict != "right" and one.detail else one.verdict
            print(f"| {case.name} | {ours} | {told} |".replace("\n", " "), flush=True)
    print()
    for name, counts in totals.items():
        print(f"{name}: " + ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common()))


if __name__ == "__main__":
    asyncio.run(main())
