"""A worker for all tasks, as a process that can be killed: ``python -m tests.support.worker_process``. Settings: environment."""

import asyncio
import signal

from shadow.bootstrap import make_worker, open_tasks, start_logging
from shadow.settings import load_settings


async def main() -> None:
    settings = load_settings()
    start_logging(settings)
    async with open_tasks(settings) as tasks:
        worker = await make_worker(settings, tasks)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: worker.drain(within_s=1))
        print("ready", flush=True)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
