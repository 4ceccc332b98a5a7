"""A client as a process of its own: appends a command's output to a file, from where the file ends.

``python -m tests.support.reading_client SOCKET COMMAND FILE``. Killed at any point and started again it goes on.
"""

import asyncio
import sys
from pathlib import Path

from shadow.core.commands import Output
from shadow.core.ids import CommandId
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from tests.support.sidecars import client


async def main(socket: str, command: str, path: str) -> None:
    async with client(UnixEndpoint(Path(socket))) as executor:
        with Path(path).open("ab", buffering=0) as file:  # noqa: ASYNC230 - this process does nothing else
            async for item in executor.read_output(CommandId(command), after=file.tell()):
                assert isinstance(item, Output)
                file.write(item.data)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
