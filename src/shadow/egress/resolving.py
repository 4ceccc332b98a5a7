"""Names to addresses, once and only after the policy was asked; and the judgement of what came out."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from shadow.core.addresses import Address, host_address
from shadow.core.egress import Allowed, EgressPolicy, Refused, decide
from shadow.core.errors import Denied, Unavailable

Resolver = Callable[[str], Awaitable[Sequence[Address]]]
"""All addresses of a canonical name. Raises: OSError."""


async def resolve_by_system(host: str) -> Sequence[Address]:
    """Raises: OSError: the name does not exist, or no server answers."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A zone (fe80::1%eth0) says nothing about the kind of address; such an address is refused in any case.
    return tuple(dict.fromkeys(ip_address(str(address[0]).partition("%")[0]) for *_, address in found))


async def judged_addresses(
    policy: EgressPolicy, *, host: str, port: int, method: str | None, resolver: Resolver
) -> tuple[Allowed, Sequence[Address]] | Refused:
    """The rule that allows it and the addresses to connect to; nothing is resolved that no rule names.

    Raises: OSError, TimeoutError: of the resolver.
    """
    before = decide(policy, host=host, port=port, method=method, addresses=None)
    if isinstance(before, Refused):
        return before
    literal = host_address(host)
    if literal is not None:
        return before, (literal,)
    async with asyncio.timeout(policy.limits.connect_s):
        addresses = await resolver(host)
    after = decide(policy, host=host, port=port, method=method, addresses=addresses)
    return after if isinstance(after, Refused) else (after, addresses)


async def checked_addresses(
    policy: EgressPolicy, host: str, port: int, *, resolver: Resolver = resolve_by_system
) -> Sequence[Address]:
    """The addresses of ``host`` that may be connected to, for what does not go through a proxy (ssh): connect to one of
    them, and do not resolve again. Raises: Denied, Unavailable (it does not resolve).
    """
    try:
        judged = await judged_addresses(policy, host=host.lower(), port=port, method=None, resolver=resolver)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"The host {host} cannot be resolved: {error or 'no answer in time'}.") from error
    if isinstance(judged, Refused):
        raise Denied(
            f"The host {host} is not allowed: {judged.reason}.",
            mend=f"The egress rule {judged.missing} would allow it." if judged.missing else None,
        )
    return judged[1]
