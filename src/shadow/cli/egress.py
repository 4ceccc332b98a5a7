"""``shadow workspace egress``."""

import time
from collections.abc import Sequence
from dataclasses import asdict

from shadow.cli.opening import find
from shadow.cli.outcome import DONE, print_json, say
from shadow.cli.tables import print_table
from shadow.cli.text import size, span
from shadow.core.egress import EgressPolicy, EgressRule, parse_rules
from shadow.core.egress_status import EgressEvent, EgressStatus, policy_to_json
from shadow.core.errors import NotFound
from shadow.terminal.neutral import printable


async def egress(reference: str, *, allow: Sequence[str], remove: Sequence[str], nothing: bool, as_json: bool) -> int:
    wanted, unwanted = parse_rules(allow), parse_rules(remove)
    manager, found = await find(reference)
    status = await manager.egress(found.id)
    if wanted or unwanted or nothing:
        rules = _changed(() if nothing else status.policy.rules, wanted=wanted, unwanted=unwanted)
        await manager.set_egress(found.id, EgressPolicy(rules=rules, limits=status.policy.limits))
        status = await manager.egress(found.id)
    if as_json:
        document = policy_to_json(status.policy) | {
            "counters": asdict(status.counters),
            "events": [asdict(event) for event in status.events],
            "running": status.running,
        }
        print_json({"egress": document})
    else:
        _print(status)
    return DONE


def _changed(
    rules: Sequence[EgressRule], *, wanted: Sequence[EgressRule], unwanted: Sequence[EgressRule]
) -> tuple[EgressRule, ...]:
    """Raises: NotFound: a rule to remove is not there."""
    for rule in unwanted:
        if rule not in rules:
            raise NotFound(f"There is no rule {rule}.", mend=f"There are: {', '.join(map(str, rules)) or 'none'}.")
    return tuple(dict.fromkeys((*(rule for rule in rules if rule not in unwanted), *wanted)))


def _print(status: EgressStatus) -> None:
    counters = status.counters
    if not status.policy.rules:
        say("It may reach no host. `--allow RULE` allows one.")
    else:
        uses = [(rule, counters.rules.get(str(rule))) for rule in status.policy.rules]
        rows = [(str(rule), str(use.connections if use else 0), size(use.bytes if use else 0)) for rule, use in uses]
        print_table(("RULE", "CONNECTIONS", "BYTES"), rows)
    print(
        f"\n{counters.connections} connections, {counters.open} of them open, {counters.refused} refused, "
        f"{size(counters.bytes_out)} out, {size(counters.bytes_in)} in"
    )
    if status.events:
        print()
        now = time.time()
        print_table(("WHEN", "WHAT", "HOST", "WHY"), [_row(event, now) for event in status.events[-20:]])


def _row(event: EgressEvent, now: float) -> tuple[str, str, str, str]:
    why = event.reason or f"rule {event.rule}"
    dropped = f" ({event.suppressed} more before)" if event.suppressed else ""
    host = f"{event.host}:{event.port}" if event.host else ""
    return f"{span(now - event.time)} ago", event.kind.value + dropped, printable(host), why
