"""From where a request comes: the peer, or who the peer says, where it is a proxy of ours. No I/O."""

import ipaddress
from collections.abc import Sequence

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS = 20
LOCAL = "local"
"""A peer without an address: on a unix socket."""


def source_of(scope: Scope, proxies: Sequence[Network]) -> str:
    """The address of the last one on the way that is none of ``proxies``.

    Each proxy adds to the end of ``X-Forwarded-For`` whom it was asked by: what a caller writes there itself stands further left
    than what can be believed.
    """
    peer = scope.get("client")
    address = _address(peer[0]) if peer else None
    if address is None:
        return LOCAL
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    hops = ",".join(given).rsplit(",", MAX_HOPS)[-MAX_HOPS:] if given else []
    while hops and _is_one_of(address, proxies):
        before = _address(hops.pop().strip())
        if before is None:
            break
        address = before
    return str(address)


def neighbourhood(source: str) -> str:
    """What one customer of a provider has: an address of IPv4, a /64 of IPv6."""
    address = _address(source)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return source


def _is_one_of(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    host = text.partition("%")[0].removeprefix("[").partition("]")[0] if ":" in text else text
    if host.count(":") == 1:  # IPv4 with a port, as some proxies write it
        host = host.partition(":")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
