"""100 MB and small requests from inside a sandbox through relay and proxy, against the same server asked directly."""

import asyncio
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.result import Result, median
from benchmarks.workspaces import manager
from shadow.core.commands import CommandSpec
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.workspaces import WorkspaceSpec

SIZE = 100_000_000
REQUESTS = 100
GOAL_MB_S = 100.0
_PIECE = b"x" * 1_000_000
# The same client inside and outside: seconds for one large tunnel, then for each small one.
CLIENT = """
import http.client, sys, time
port, proxy, size, requests = (int(text) for text in sys.argv[1:])
def get(path):
    connection = http.client.HTTPConnection("127.0.0.1", proxy or port)
    if proxy: connection.set_tunnel("127.0.0.1", port)
    started = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    count = 0
    while data := response.read(1 << 20): count += len(data)
    connection.close()
    return time.perf_counter() - started, count
get("/0")
taken, count = get(f"/{size}")
assert count == size
times = sorted(get("/0")[0] for _ in range(requests))
print(taken, times[len(times) // 2])
"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        left = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        while left:
            left -= self.wfile.write(_PIECE[:left])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        pass


def _argv(port: int, proxy: int) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", CLIENT, str(port), str(proxy), str(SIZE), str(REQUESTS))


async def _direct(port: int) -> tuple[float, float]:
    process = await asyncio.create_subprocess_exec(*_argv(port, 0), stdout=asyncio.subprocess.PIPE)
    taken, small = (await process.communicate())[0].split()
    return float(taken), float(small)


async def measure() -> Result:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    ours: list[tuple[float, float]] = []
    floor: list[tuple[float, float]] = []
    try:
        async with manager() as (workspaces, _):
            started = time.perf_counter()
            status = await workspaces.create(
                WorkspaceSpec(egress=EgressPolicy(rules=parse_rules([f"127.0.0.1:{port}"])))
            )
            created_s = time.perf_counter() - started
            async with await workspaces.attach(status.id) as executor:
                for _ in range(3):
                    result = await executor.run(CommandSpec(argv=_argv(port, 3128)))
                    taken, small = result.stdout.split()
                    ours.append((float(taken), float(small)))
                    floor.append(await _direct(port))
    finally:
        server.shutdown()
        server.server_close()
    ours_mb_s, floor_mb_s = (SIZE / 1e6 / median([taken for taken, _ in times]) for times in (ours, floor))
    return Result(
        name="egress",
        unit="MB/s, one tunnel from inside a sandbox",
        ours=ours_mb_s,
        floor=floor_mb_s,
        floor_is="the same client outside, straight to the server",
        better="higher",
        goal=f"at least {GOAL_MB_S:.0f} MB/s",
        reached=ours_mb_s >= GOAL_MB_S,
        details={
            "request_ms": median([small for _, small in ours]) * 1000,
            "request_direct_ms": median([small for _, small in floor]) * 1000,
            "create_with_policy_s": created_s,
        },
    )
