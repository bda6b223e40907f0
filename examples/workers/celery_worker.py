"""
Celery: one client a worker process, one quota for all of them.

    pip install celery 'kimi-async[redis]'
    celery -A celery_worker worker --concurrency 8
"""

import asyncio
import threading
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from kimi_async import AsyncKimi

app = Celery("answers", broker="redis://127.0.0.1:6379/1", backend="redis://127.0.0.1:6379/2")
loop = asyncio.new_event_loop()
client: AsyncKimi


@worker_process_init.connect
def begin(**_: Any) -> None:
    # After the fork, and on a loop that stays: connections and the place in the quota outlive a task.
    global client
    threading.Thread(target=loop.run_forever, daemon=True).start()
    client = AsyncKimi(limits="tier5", shared="redis://127.0.0.1:6379/0", quota="acme")


@worker_process_shutdown.connect
def end(**_: Any) -> None:
    asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(5)


@app.task
def answer(question: str) -> str | None:
    async def ask() -> str | None:
        completion = await client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": question}], max_completion_tokens=2_000
        )
        return completion.choices[0].message.content

    return asyncio.run_coroutine_threadsafe(ask(), loop).result()
