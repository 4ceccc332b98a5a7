"""The same proxy for the control plane's own fetches: in this process, for one block."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from shadow.core.egress import EgressPolicy
from shadow.core.errors import Denied
from shadow.egress.book import Book
from shadow.egress.carrying import BUFFER_BYTES
from shadow.egress.proxy import Proxy
from shadow.egress.resolving import Resolver, checked_addresses, resolve_by_system


@asynccontextmanager
async def guarding_proxy(
    policy: EgressPolicy, *, resolver: Resolver = resolve_by_system, clock: Callable[[], float] = time.time
) -> AsyncGenerator[str]:
    """The URL of a proxy on the loopback that lets through what ``policy`` allows, for the length of the block.

    The URL holds random credentials, without which the proxy does nothing: other users of this host can connect to it too.
    """
    credentials = f"shadow:{secrets.token_hex(16)}"
    proxy = Proxy(
        policy=policy,
        book=Book(clock=clock),
        how_to_allow=lambda rule: f"the egress rule {rule} would.",
        resolver=resolver,
        credentials=credentials,
    )
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=BUFFER_BYTES)
    try:
        yield f"http://{credentials}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await proxy.end()
        await server.wait_closed()


@asynccontextmanager
async def guarded_to(
    policy: EgressPolicy, host: str, port: int, *, resolver: Resolver = resolve_by_system
) -> AsyncGenerator[str]:
    """As ``guarding_proxy``, for a client that speaks to one host: what is refused already now, is said now.

    Each connection is judged again. Raises: Denied; Unavailable: it does not resolve.
    """
    try:
        await checked_addresses(policy, host, port, resolver=resolver)
    except Denied as error:
        # Without the address: that is the network's own affair, and whoever asks may be anybody.
        raise Denied(f"{host} leads to an address that is not allowed.", mend=error.mend) from error
    async with guarding_proxy(policy, resolver=resolver) as url:
        yield url
