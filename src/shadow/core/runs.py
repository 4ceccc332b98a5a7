"""The runs of a task, as its log tells of them. No I/O, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from shadow.core.conversation import Usage
from shadow.core.events import Recorded, RolledBack, RunFinished, RunStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    seq: int
    """Of the event that began it: what tells it from one of the same number that was rolled back."""
    run: int
    message: str
    started_at: float
    counts: bool = True
    """Whether it belongs to the conversation as it stands; else it was rolled back."""
    finished_at: float | None = None
    """This and what follows: ``None`` while it goes on."""
    status: str | None = None
    summary: str | None = None
    code: str | None = None
    undelivered: str | None = None
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    took_ms: float | None = None


def runs_of(recorded: Sequence[Recorded]) -> list[Run]:
    """``recorded``: the beginnings, ends and rollbacks of a log, from any event on; others are passed over."""
    found: list[Run] = []
    for one in recorded:
        match one.event:
            case RunStarted(run=number, message=message):
                found.append(Run(seq=one.seq, run=number, message=message.text, started_at=one.at))
            case RunFinished() as end if found and found[-1].run == end.run and found[-1].finished_at is None:
                found[-1] = replace(
                    found[-1],
                    finished_at=one.at,
                    status=end.status,
                    summary=end.summary,
                    code=end.code,
                    undelivered=end.undelivered,
                    usage=end.usage,
                    cost_usd=None if end.cost_usd is None else Decimal(end.cost_usd),
                    took_ms=end.took_ms,
                )
            case _:
                pass
    gone = _rolled_back(recorded)
    return [replace(run, counts=not any(first <= run.seq <= last for first, last in gone)) for run in found]


def _rolled_back(recorded: Sequence[Recorded]) -> list[tuple[int, int]]:
    """First and last event of each stretch that does not count: the way back from the end, over each rollback to where it led.

    What an older rollback took back counts again where a younger one led into it.
    """
    gone: list[tuple[int, int]] = []
    at = recorded[-1].seq if recorded else 0
    for one in reversed(recorded):
        if isinstance(one.event, RolledBack) and one.seq <= at:
            gone.append((one.event.to_seq + 1, one.seq))
            at = one.event.to_seq
    return gone
