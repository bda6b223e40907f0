"""
Dask: a client for each worker process, kept by a plugin; tasks are coroutines on the worker's own loop.

    pip install 'dask[distributed]' 'kimi-async[redis]'
    python dask_worker.py
"""

from typing import Any

from dask.distributed import Client, WorkerPlugin, get_worker

from kimi_async import AsyncKimi


class Kimi(WorkerPlugin):
    async def setup(self, worker: Any) -> None:
        worker.kimi = AsyncKimi(limits="tier5", shared="redis://127.0.0.1:6379/0", quota="acme")

    async def teardown(self, worker: Any) -> None:
        await worker.kimi.aclose()


async def answer(question: str) -> str | None:
    completion = await get_worker().kimi.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": question}], max_completion_tokens=2_000
    )
    content: str | None = completion.choices[0].message.content
    return content


if __name__ == "__main__":
    with Client(n_workers=4, threads_per_worker=1) as cluster:
        cluster.register_plugin(Kimi())
        for text in cluster.gather(cluster.map(answer, [f"What is {n} squared?" for n in range(20)])):
            print(text)
