"""The server's process: what ``shadow serve`` becomes. The API and a worker over one database, until it is told to stop."""

import asyncio
import ipaddress
import signal
import socket
import sys
from contextlib import AsyncExitStack
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from shadow.accounts.service import Accounts
from shadow.api.access import Origins, origin
from shadow.api.app import ServerApp, Services
from shadow.api.metrics import ServerMetrics
from shadow.bootstrap import check_model, make_manager, make_worker, open_tasks, resilience, start_logging
from shadow.core.errors import Denied, SettingsRefused, ShadowError
from shadow.engine.worker import Worker
from shadow.execution.interface import WorkspaceManager
from shadow.execution.sidecar_client.breakers import Breakers
from shadow.http.server import HttpServer
from shadow.settings import Settings, load_settings
from shadow.tasks.service import Tasks

BACKLOG = 2048


class MakeWorker(Protocol):
    async def __call__(self, settings: Settings, tasks: Tasks, *, manager: WorkspaceManager) -> Worker: ...


log = structlog.get_logger("shadow.server")


def origins_of(settings: Settings, port: int) -> Origins:
    """Raises: SettingsRefused: others could reach it, and nobody said under which name."""
    listens = settings.server_listen
    if settings.server_url:
        url = origin(settings.server_url)
        return Origins(allowed=frozenset({url}), secure=urlsplit(url).scheme == "https")
    if not _is_loopback(listens.host):
        raise SettingsRefused(
            f"Others than you can reach {listens}.",
            mend="Set SHADOW_SERVER_URL to the address that users type (https://…, with a proxy in front of it that speaks TLS), "
            "or listen on 127.0.0.1.",
        )
    names = ("127.0.0.1", "localhost", "[::1]")
    return Origins(allowed=frozenset(origin(f"http://{name}:{port}") for name in names), secure=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(settings: Settings) -> socket.socket:
    """Raises: Denied: the address is taken, or none of this host's."""
    listens = settings.server_listen
    family = socket.AF_INET6 if ":" in listens.host else socket.AF_INET
    # With its protocol: only where that stands does asyncio turn Nagle's algorithm off, which costs 40 ms a request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((listens.host, listens.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Denied(
            f"The server cannot listen on {listens}: {error.strerror or error}.",
            mend="Another server may run there; set SHADOW_SERVER_LISTEN to another address.",
        ) from error
    listener.setblocking(False)
    return listener


async def serve(settings: Settings, *, make: MakeWorker = make_worker) -> None:
    """Until SIGTERM or SIGINT; a second signal ends it at once. ``make``: its worker."""
    async with AsyncExitStack() as stack:
        listener = listen(settings)
        stack.callback(listener.close)
        port = listener.getsockname()[1]
        origins = origins_of(settings, port)
        tasks = await stack.enter_async_context(open_tasks(settings))
        accounts = Accounts(database=tasks.database, entropy=tasks.entropy)
        breakers = Breakers(resilience(settings).breaker)
        manager = make_manager(settings, breakers=breakers)
        worker = await make(settings, tasks, manager=manager)
        app = ServerApp(
            Services(
                tasks=tasks,
                accounts=accounts,
                manager=manager,
                check_model=lambda name: check_model(settings, name),
                origins=origins,
                metrics=ServerMetrics(tasks.database, breakers, worker=worker),
                proxies=settings.server_trusted_proxies,
                user_requests_per_s=settings.server_user_requests_per_s,
                logins_per_min=settings.server_logins_per_min,
            )
        )
        stack.push_async_callback(app.aclose)
        server = HttpServer(app)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, stopping)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(worker.run())
            serving = group.create_task(server.serve(sockets=[listener]))
            await _greet(accounts, min(origins.allowed))
            await stopping.wait()
            log.info("server.draining")
            app.is_draining = True
            worker.drain(within_s=settings.server_drain_s)
            await asyncio.sleep(settings.server_unready_s)
            server.stop()
            await asyncio.wait({working, serving})
        log.info("server.stopped")


def _stop(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    stopping.set()


async def _greet(accounts: Accounts, address: str) -> None:
    user = await accounts.first_user()
    _, code = await accounts.issue_code(user.id)
    print(f"Shadow listens on {address}", flush=True)
    print(f"Log in (once, within 15 minutes): shadow login {address} --code {code.secret}", flush=True)


def main() -> None:
    try:
        settings = load_settings()
        start_logging(settings)
        asyncio.run(serve(settings))
    except* ShadowError as group:
        error = _first(group)
        print(f"shadow: {error.message}", file=sys.stderr)
        if error.mend:
            print(f"  {error.mend}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsRefused) else 1)


def _first(group: BaseExceptionGroup[ShadowError]) -> ShadowError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ShadowError)
    return error


if __name__ == "__main__":
    main()
