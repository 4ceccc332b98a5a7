"""Hosts and addresses: what a connection may be asked for, and what kind of address that is. No I/O."""

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOST_LENGTH = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class AddressKind(StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"
    """Of an organisation's own network: RFC 1918, shared (CGNAT), unique local, site local."""
    RESERVED = "reserved"
    """Set aside for documentation, benchmarks, protocols, tunnels, or not given out at all."""
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    """Also where clouds serve the credentials of their machines."""
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    """What means this host, or every host: no address of anybody."""


_V4 = [
    (IPv4Network(network), kind)
    for kind, networks in {
        AddressKind.UNSPECIFIED: ("0.0.0.0/8", "255.255.255.255/32"),
        AddressKind.LOOPBACK: ("127.0.0.0/8",),
        AddressKind.LINK_LOCAL: ("169.254.0.0/16",),
        AddressKind.PRIVATE: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        AddressKind.MULTICAST: ("224.0.0.0/4",),
        AddressKind.RESERVED: (
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
            *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        ),
    }.items()
    for network in networks
]
_V6 = [
    (IPv6Network(network), kind)
    for kind, networks in {
        AddressKind.UNSPECIFIED: ("::/128",),
        AddressKind.LOOPBACK: ("::1/128",),
        AddressKind.LINK_LOCAL: ("fe80::/10",),
        AddressKind.PRIVATE: ("fc00::/7", "fec0::/10"),
        AddressKind.MULTICAST: ("ff00::/8",),
        AddressKind.RESERVED: ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48"),
    }.items()
    for network in networks
]
_V6_GIVEN_OUT = IPv6Network("2000::/3")
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address only wraps: mapped, NAT64, 6to4 or Teredo (its client)."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def kind_of(address: Address) -> AddressKind:
    """The kind, of a wrapped address that of what is in it, unless that is public and the wrapping is not."""
    inner = embedded(address)
    if inner is not None:
        kind = kind_of(inner)
        tunnel = kind is AddressKind.PUBLIC and isinstance(address, IPv6Address) and address in _V6_GIVEN_OUT
        return AddressKind.RESERVED if tunnel else kind
    for network, kind in _V4 if isinstance(address, IPv4Address) else _V6:
        if address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _V6_GIVEN_OUT:
        return AddressKind.RESERVED
    return AddressKind.PUBLIC


def lies_in_one_kind(network: Network) -> bool:
    """Whether a network that is not public lies in one block of the tables, so that naming it means that block."""
    if network.prefixlen == network.max_prefixlen:
        return True
    if isinstance(network, IPv4Network):
        return any(network.subnet_of(block) for block, _ in _V4)
    return any(network.subnet_of(block) for block, _ in _V6)


def host_address(host: str) -> Address | None:
    """The address that ``host`` is a literal of; ``None`` where it is a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def is_canonical_name(host: str) -> bool:
    """Whether ``host`` is a lower-case DNS name that no resolver takes for an address.

    Resolvers read ``127.1``, ``0x7f.1``, ``2130706433`` as addresses: like browsers, whatever ends in a number is none.
    """
    labels = host.split(".")
    return (
        len(host) <= MAX_HOST_LENGTH
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def is_canonical_host(host: str) -> bool:
    """A canonical name, or an address literal (IPv6 without brackets and without a zone)."""
    return host_address(host) is not None or is_canonical_name(host)
