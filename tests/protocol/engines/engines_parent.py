"""A parent process for the tests: starts a pool, tells its workers' process ids, gives one a job, and waits."""

import asyncio
import sys

from bridge.providers.local.jobs import Priority
from bridge.providers.local.pool import EnginePool
from bridge.providers.local.settings import EngineSettings


async def main() -> None:
    pool = EnginePool(EngineSettings(workers=2), ["tts"])
    await pool.start()
    text = "This takes a worker a while. " * 20
    work = asyncio.create_task(
        pool.run("tts", {"text": text, "sample_rate": 8000}, priority=Priority.REPLY, deadline_s=60)
    )
    while not pool.load.running:
        await asyncio.sleep(0)
    print(*(pid for pid, _, _ in pool.workers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    work.cancel()
    await pool.aclose()


asyncio.run(main())
