"""The real server in a process of its own, and what speaks to it as any program would."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

STARTS_WITHIN_S = 60.0


@dataclass
class Server:
    """``home`` outlives the process: start it again after its end, and it goes on with what is there."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    module: str = "shadow.api.main"
    port: int = 0
    code: str = ""
    """For the first login; a new one with each start."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHADOW_", "AGENT_MODE", "XDG_"))}
        own = {
            "HOME": str(self.home),
            "SHADOW_DATA_DIR": str(self.home / "data"),
            "SHADOW_SERVER_LISTEN": f"127.0.0.1:{self.port}",
            "SHADOW_WORKER_LEASE_S": "2",
            "SHADOW_LOG_FORMAT": "json",
        }
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                env=inherited | own | dict(self.env),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        async with asyncio.timeout(STARTS_WITHIN_S):
            told = await asyncio.to_thread(self._read_greeting, self.process)
        found = re.search(r"http://[^:]+:(\d+)\n.*--code (\S+)", told, re.DOTALL)
        assert found, f"{told}\n{self.log()}"
        self.port, self.code = int(found[1]), found[2]

    @staticmethod
    def _read_greeting(process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        return (process.stdout.readline() + process.stdout.readline()).decode()

    def log(self) -> str:
        return (self.home / "server.log").read_text()

    def end(self, number: int = signal.SIGKILL) -> int:
        """Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Waits for an end that has been asked for; the exit code."""
        assert self.process is not None
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@dataclass
class Caller:
    """One user's program."""

    session: aiohttp.ClientSession
    url: str
    token: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, body: object = None, *, expect: int | None = None) -> Any:
        """The answer's JSON. ``expect``: its status; else any that is no error."""
        async with self.session.request(method, self.url + path, json=body, headers=self.headers) as response:
            text = await response.text()
            assert response.status == expect or (expect is None and response.status < 300), (response.status, text)
            return json.loads(text)

    async def events(self, task: str, *, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """As a WebSocket brings them, from ``after`` on; ends where the connection does."""
        url = f"{self.url}/v1/tasks/{task}/events/attach?after={after}"
        async with self.session.ws_connect(url, headers=self.headers) as socket:
            async for message in socket:
                yield json.loads(message.data)


@asynccontextmanager
async def running(home: Path, *, module: str = "shadow.api.main", **env: str) -> AsyncGenerator[Server]:
    server = Server(home, env, module)
    await server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.end()


@asynccontextmanager
async def calling(url: str, token: str | None) -> AsyncGenerator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(session, url, token)


@asynccontextmanager
async def logged_in(server: Server) -> AsyncGenerator[Caller]:
    """The first administrator."""
    async with calling(server.url, None) as caller:
        caller.token = (await caller.call("POST", "/v1/login", {"code": server.code}))["secret"]
        yield caller
