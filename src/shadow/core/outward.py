"""Where users of a server may lead it: to every public host, and to what its operator's rules name. No I/O.

The one rule for repositories, their submodules, large files and redirects, and for base URLs of providers. What a name stands
for is judged where it is connected to (``egress/guard.py``).
"""

from collections.abc import Iterable, Sequence

from shadow.core.egress import EgressLimits, EgressPolicy, EgressRule, Refused, decide, parse_rules
from shadow.core.errors import Denied


def outward_policy(
    rules: Sequence[EgressRule], *, named: Iterable[str] = (), limits: EgressLimits | None = None
) -> EgressPolicy:
    """``rules``: the operator's. ``named``: further ones, in words, for hosts that somebody trusted has named."""
    return EgressPolicy(rules=(*parse_rules(["*:*", *named]), *rules), limits=limits or EgressLimits())


def check_host(policy: EgressPolicy, host: str, port: int, *, setting: str) -> None:
    """Before anything is resolved. ``setting``: which has the operator's rules.

    Raises: Denied: an address that is not public, or what a resolver may take for one.
    """
    judged = decide(policy, host=host, port=port, method=None, addresses=None)
    if isinstance(judged, Refused):
        raise Denied(
            f"The host {host} is not allowed: {judged.reason}.",
            mend=f"Whoever runs the server can allow it: {setting}={judged.missing}." if judged.missing else None,
        )
