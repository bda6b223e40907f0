"""
arq: one client a worker, made when it starts and closed when it stops.

    pip install arq 'kimi-async[redis]'
    arq arq_worker.WorkerSettings
"""

from typing import Any

from kimi_async import AsyncKimi


async def answer(ctx: dict[str, Any], question: str) -> str | None:
    completion = await ctx["kimi"].chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": question}], max_completion_tokens=2_000
    )
    content: str | None = completion.choices[0].message.content
    return content


async def begin(ctx: dict[str, Any]) -> None:
    ctx["kimi"] = AsyncKimi(limits="tier5", shared="redis://127.0.0.1:6379/0", quota="acme")


async def end(ctx: dict[str, Any]) -> None:
    await ctx["kimi"].aclose()


class WorkerSettings:
    functions = (answer,)
    on_startup = begin
    on_shutdown = end
    max_jobs = 100  # what may really be under way, the quota says
    job_timeout = 1_800
