"""Egress: which hosts a workspace may reach, as rules of one line each, and the decision. No I/O, no clock.

    pypi                        a preset: the rules of a package index or of a forge
    example.org                 that host, ports 443 and 80
    .example.org                that host and all below it
    *.example.org               only what is below it
    *                           every host with public addresses
    example.org:8443,9443       other ports; ``:*`` is every port
    example.org:80=GET,HEAD     only these methods, so only plain HTTP, where they are visible
    private:git.corp.example    that host also where it resolves to private or reserved addresses
    10.1.0.0/16:443, [::1]:80   addresses, asked for as literals; ``localhost`` names the loopback addresses

Names are compared before they are resolved, and every address of a name is judged. A private rule names one host, never a
wildcard. Loopback and link-local addresses are reached by no name but ``localhost``: a rule must name them. Multicast and
unspecified addresses are never reached.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from shadow.core.addresses import (
    Address,
    AddressKind,
    Network,
    host_address,
    is_canonical_host,
    is_canonical_name,
    kind_of,
    lies_in_one_kind,
)
from shadow.core.egress_presets import PRESETS
from shadow.core.errors import Rejected

DEFAULT_PORTS = (443, 80)
MAX_RULES = 500
_PRIVATE = "private:"
_METHOD = re.compile(r"[A-Z][A-Z0-9-]{0,30}")
_NEVER = (AddressKind.MULTICAST, AddressKind.UNSPECIFIED)
_ONLY_NAMED = (AddressKind.LOOPBACK, AddressKind.LINK_LOCAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One thing that is allowed. ``str`` gives its text, which ``parse_rule`` reads."""

    host: str
    """``name``, ``.name``, ``*.name``, ``*``, or the text of ``network``."""
    network: Network | None = None
    ports: tuple[int, ...] | None = DEFAULT_PORTS
    """``None``: every port."""
    methods: tuple[str, ...] | None = None
    """``None``: every method, and connections whose methods nobody sees."""
    private: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        ports = "" if self.ports == DEFAULT_PORTS else ":*" if self.ports is None else f":{_joined(self.ports)}"
        if not ports and _needs_port(self.host):
            ports = f":{_joined(DEFAULT_PORTS)}"
        methods = "" if self.methods is None else f"={_joined(self.methods)}"
        return f"{_PRIVATE if self.private else ''}{host}{ports}{methods}"

    def matches(self, host: str, port: int, method: str | None) -> bool:
        """``method``: ``None`` where nobody sees it (a tunnel)."""
        if self.ports is not None and port not in self.ports:
            return False
        if self.methods is not None and method not in self.methods:
            return False
        address = host_address(host)
        if address is not None:
            if self.network is None:
                return self.host == "*"
            return address.version == self.network.version and address in self.network
        if self.network is not None:
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and len(host) >= len(self.host)
        if self.host.startswith("."):
            return host == self.host[1:] or host.endswith(self.host)
        return self.host in (host, "*")

    @property
    def leads_inside(self) -> bool:
        """Whether it admits any address that is not public: of this host, or of the networks around it."""
        if self.network is not None:
            return lies_in_one_kind(self.network) and kind_of(self.network.network_address) is not AddressKind.PUBLIC
        return self.private or self.host == "localhost"

    def admits(self, host: str, kind: AddressKind) -> bool:
        """Whether an address of ``kind`` may be what ``host``, which matches, stands for."""
        if kind is AddressKind.PUBLIC:
            return True
        if kind in _NEVER:
            return False
        if self.network is not None:
            return lies_in_one_kind(self.network)
        if self.host == "localhost":
            return kind is AddressKind.LOOPBACK
        return self.private and kind not in _ONLY_NAMED


def _joined(values: Iterable[object]) -> str:
    return ",".join(str(value) for value in values)


def _needs_port(host: str) -> bool:
    """Whether a host on its own would read as the name of a preset."""
    return is_canonical_name(host) and "." not in host and host != "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """Bounds of one workspace's traffic."""

    connections: int = 128
    """At the same time."""
    total_bytes: int = 1024**4
    """Over the workspace's whole life, both directions."""
    header_bytes: int = 64 * 1024
    header_s: float = 15.0
    """For a request's head to arrive."""
    connect_s: float = 15.0
    """To resolve a name, and again to connect."""
    idle_s: float = 900.0
    """Without a byte in either direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """What may be reached: nothing, unless a rule allows it."""

    rules: tuple[EgressRule, ...] = ()
    limits: EgressLimits = field(default_factory=EgressLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    rule: EgressRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    reason: str
    """One line, of printable ASCII."""
    missing: str | None
    """The rule that would allow it; ``None`` where none can."""


def decide(
    policy: EgressPolicy, *, host: str, port: int, method: str | None, addresses: Sequence[Address] | None
) -> Allowed | Refused:
    """Whether ``host`` may be reached, and by which rule.

    ``method``: ``None`` for a tunnel. ``addresses``: all that the name resolves to; ``None``: not resolved yet, and the
    answer is whether it may be. A literal is its own address.
    """
    if not is_canonical_host(host) or not 0 < port < 65536:
        return Refused(reason="this is neither the canonical name of a host nor an address", missing=None)
    matching = [rule for rule in policy.rules if rule.matches(host, port, method)]
    literal = host_address(host)
    if literal is not None:
        addresses = (literal,)
    if not matching:
        return _no_rule(policy, host=host, port=port, method=method, literal=literal)
    if addresses is None:
        return Allowed(rule=matching[0])
    if not addresses:
        return Refused(reason=f"{host} has no address", missing=None)
    kinds = {address: kind_of(address) for address in addresses}
    for rule in matching:
        if all(rule.admits(host, kind) for kind in kinds.values()):
            return Allowed(rule=rule)
    unwelcome = [(address, kind) for address, kind in kinds.items() if kind is not AddressKind.PUBLIC]
    address, kind = next(
        ((address, kind) for address, kind in unwelcome if not any(rule.admits(host, kind) for rule in matching)),
        unwelcome[0],
    )
    if literal is not None:
        missing = None if kind in _NEVER else str(_rule_for(host, port))
        return Refused(reason=f"{host} is a {kind.value} address", missing=missing)
    missing = None if kind in (*_NEVER, *_ONLY_NAMED) else str(_rule_for(host, port, private=True))
    return Refused(reason=f"{host} resolves to a {kind.value} address ({address})", missing=missing)


def _no_rule(policy: EgressPolicy, *, host: str, port: int, method: str | None, literal: Address | None) -> Refused:
    missing = None
    if literal is None or kind_of(literal) not in _NEVER:
        missing = str(_rule_for(host, port))
    if any(rule.matches(host, port, allowed) for rule in policy.rules for allowed in rule.methods or ()):
        how = f"the method {method}" if method else "a tunnel"
        return Refused(reason=f"no rule allows {how} to {_authority(host, port)}", missing=missing)
    return Refused(reason=f"no rule allows {_authority(host, port)}", missing=missing)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _rule_for(host: str, port: int, *, private: bool = False) -> EgressRule:
    address = host_address(host)
    return EgressRule(
        host=host,
        network=None if address is None else ip_network(address),
        ports=DEFAULT_PORTS if port in DEFAULT_PORTS else (port,),
        private=private,
    )


# Text


def parse_rules(texts: Iterable[str]) -> tuple[EgressRule, ...]:
    """Rules and presets, in their order, each once. Raises: Rejected."""
    rules: dict[EgressRule, None] = {}
    for text in texts:
        for rule in PRESETS.get(text.strip(), (text,)):
            rules[parse_rule(rule)] = None
    if len(rules) > MAX_RULES:
        raise Rejected(f"There are {len(rules)} egress rules; {MAX_RULES} is the most.")
    return tuple(rules)


def parse_rule(text: str) -> EgressRule:
    """One rule, not a preset. Raises: Rejected: says what is wrong with it."""
    rest = text.strip()
    if "://" in rest:
        raise _bad(text, "it is an address of the web; write the host alone")
    private = rest.startswith(_PRIVATE)
    rest, equals, methods_text = rest.removeprefix(_PRIVATE).partition("=")
    host, colon, ports_text = _split_host(text, rest)
    host = host.lower()
    ports = _parse_ports(text, ports_text) if colon else DEFAULT_PORTS
    methods = _parse_methods(text, methods_text) if equals else None
    network = _parse_network(host)
    if network is None:
        _check_name(text, host, has_port=bool(colon))
    elif kind_of(network.network_address) in _NEVER and lies_in_one_kind(network):
        raise _bad(text, f"{network} is no address of anybody, so that nothing there can be reached")
    if private and (host.startswith((".", "*")) or network is not None):
        raise _bad(text, "'private:' goes with the exact name of one host")
    host = host if network is None else str(network.network_address) if network.num_addresses == 1 else str(network)
    return EgressRule(host=host, network=network, ports=ports, methods=methods, private=private)


def _split_host(text: str, rest: str) -> tuple[str, str, str]:
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith((":", "/"))):
            raise _bad(text, "the address in brackets does not end well")
        prefix, colon, ports = tail.partition(":")
        return host + prefix, colon, ports
    if rest.count(":") > 1:  # an IPv6 address without brackets, so without ports
        return rest, "", ""
    return rest.partition(":")


def _parse_ports(text: str, ports: str) -> tuple[int, ...] | None:
    if ports == "*":
        return None
    values: list[int] = []
    for port in ports.split(","):
        if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
            raise _bad(text, f"{port!r} is no port; write 1 to 65535, several parted by commas, or *")
        values.append(int(port))
    return tuple(dict.fromkeys(values))


def _parse_methods(text: str, methods: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(methods.split(",")))
    for method in values:
        if not _METHOD.fullmatch(method) or method == "CONNECT":
            raise _bad(text, f"{method!r} is no method of HTTP that could be seen; write such as GET,HEAD")
    return values


def _parse_network(host: str) -> Network | None:
    try:
        return ip_network(host) if "%" not in host else None
    except ValueError:
        return None


def _check_name(text: str, host: str, *, has_port: bool) -> None:
    if host == "*":
        return
    name = host.removeprefix("*").removeprefix(".") if host.startswith((".", "*.")) else host
    if not is_canonical_name(name):
        raise _bad(
            text, f"{host!r} is neither a name (ASCII, as in DNS; xn--… where needed), nor an address or network"
        )
    if _needs_port(host) and not has_port:
        known = ", ".join(sorted(PRESETS))
        raise _bad(text, f"there is no preset {name!r} (there are {known}); a host without a dot needs its port")


def _bad(text: str, reason: str) -> Rejected:
    return Rejected(
        f"{text[:200]!r} is not an egress rule: {reason}.",
        mend="Rules look like pypi, example.org, .example.org:8443, private:git.corp.example, 10.0.0.0/8:443.",
        details={"rule": text[:200]},
    )
