"""What egress has done: counters and events as values, and policies, counters and events as JSON. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import cast

from shadow.core.egress import EgressLimits, EgressPolicy, parse_rules


class EgressEventKind(StrEnum):
    FIRST_USE = "first_use"
    """The first connection to a host and port by a rule. What went over it is in the counters of the rule."""
    REFUSED = "refused"
    LIMIT = "limit"
    """A bound of ``EgressLimits`` was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressEvent:
    """``time``: seconds since 1970. ``host`` is what was asked for, cut, never an address that it resolved to."""

    kind: EgressEventKind
    time: float
    host: str
    port: int
    rule: str | None = None
    """By which rule; of a refusal the rule that would allow it, if one can."""
    reason: str = ""
    suppressed: int = 0
    """How many events before this one were dropped because there were too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleUse:
    connections: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressCounters:
    """Over the workspace's whole life; ``open`` is now. Bytes are those of both directions."""

    open: int = 0
    connections: int = 0
    refused: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    rules: Mapping[str, RuleUse] = field(default_factory=lambda: MappingProxyType({}))
    """By the text of the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressStatus:
    policy: EgressPolicy
    counters: EgressCounters
    events: Sequence[EgressEvent]
    """The newest, oldest first."""
    running: bool
    """Whether the proxy runs; without a rule it need not."""


def policy_to_json(policy: EgressPolicy) -> dict[str, object]:
    return {"rules": [str(rule) for rule in policy.rules], "limits": asdict(policy.limits)}


def policy_from_json(values: object) -> EgressPolicy:
    """Raises: ValueError, TypeError, KeyError, Rejected: for anything that ``policy_to_json`` does not write."""
    policy = _object(values)
    rules = policy["rules"]
    if not isinstance(rules, list):
        raise TypeError("'rules' is not a list")
    limits = {name: float(cast("float", value)) for name, value in _object(policy["limits"]).items()}
    known = {f.name: (limits[f.name] if f.name.endswith("_s") else int(limits[f.name])) for f in fields(EgressLimits)}
    return EgressPolicy(
        rules=parse_rules(str(rule) for rule in cast("list[object]", rules)),
        limits=EgressLimits(**known),  # type: ignore[arg-type]
    )


def counters_from_json(values: object) -> EgressCounters:
    """Raises: as ``policy_from_json``."""
    counters = _object(values)
    rules = {rule: RuleUse(**_numbers(use)) for rule, use in _object(counters.pop("rules", {})).items()}
    return EgressCounters(**_numbers(counters), rules=rules)


def event_from_json(values: object) -> EgressEvent:
    """Raises: as ``policy_from_json``."""
    event = _object(values)
    return EgressEvent(**(event | {"kind": EgressEventKind(str(event["kind"]))}))  # type: ignore[arg-type]


def _numbers(values: object) -> dict[str, int]:
    return {name: int(cast("int", value)) for name, value in _object(values).items()}


def _object(values: object) -> dict[str, object]:
    if not isinstance(values, dict):
        raise TypeError("not an object")
    return dict(cast("dict[str, object]", values))
