"""What the proxy counts and tells: bounded in memory, in rate and on disk."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict

from shadow.core.egress import EgressRule
from shadow.core.egress_status import EgressCounters, EgressEvent, EgressEventKind, RuleUse, counters_from_json

MAX_EVENTS_BYTES = 512 * 1024
MAX_COUNTED_RULES = 2000
_BURST = 100
_EVENTS_PER_S = 10.0
_MAX_FIRST_USES = 5000
_SHOWN_HOST = 253


class Book:
    """Events are appended to one file as JSON lines and cut to the newest half when it is full; counters lie in another.

    ``None`` for a file: kept nowhere. Both files were opened by somebody who may; this process may no longer be allowed to.
    """

    def __init__(
        self, *, clock: Callable[[], float], events_fd: int | None = None, counters_fd: int | None = None
    ) -> None:
        """``clock``: seconds since 1970."""
        self._clock = clock
        self._events_fd = events_fd
        self._counters_fd = counters_fd
        self._first_uses: set[tuple[str, str, int]] = set()
        self._budget = float(_BURST)
        self._budget_at = clock()
        self._suppressed = 0
        self.open = 0
        earlier = _read_counters(counters_fd)
        self.connections = earlier.connections
        self.refused = earlier.refused
        self.bytes_out = earlier.bytes_out
        self.bytes_in = earlier.bytes_in
        self._rules = {rule: [use.connections, use.bytes] for rule, use in earlier.rules.items()}

    @property
    def total_bytes(self) -> int:
        return self.bytes_in + self.bytes_out

    def counters(self) -> EgressCounters:
        rules = {rule: RuleUse(connections=uses, bytes=count) for rule, (uses, count) in self._rules.items()}
        return EgressCounters(
            open=self.open,
            connections=self.connections,
            refused=self.refused,
            bytes_out=self.bytes_out,
            bytes_in=self.bytes_in,
            rules=rules,
        )

    def connected(self, rule: EgressRule, host: str, port: int) -> None:
        self.connections += 1
        name = str(rule)
        if name in self._rules or len(self._rules) < MAX_COUNTED_RULES:
            self._rules.setdefault(name, [0, 0])[0] += 1
        use = (name, host, port)
        if use not in self._first_uses and len(self._first_uses) < _MAX_FIRST_USES:
            self._first_uses.add(use)
            self._tell(EgressEventKind.FIRST_USE, host, port, rule=name)

    def ended(self, rule: EgressRule, count: int) -> None:
        if str(rule) in self._rules:
            self._rules[str(rule)][1] += count
        self.save()

    def refuse(self, host: str, port: int, *, reason: str, missing: str | None) -> None:
        self.refused += 1
        self._tell(EgressEventKind.REFUSED, host, port, rule=missing, reason=reason)

    def limit(self, host: str, port: int, *, reason: str) -> None:
        self._tell(EgressEventKind.LIMIT, host, port, reason=reason)

    def save(self) -> None:
        """One write, so that a reader sees the old or the new; what is shorter is padded."""
        if self._counters_fd is not None:
            data = json.dumps(asdict(self.counters())).encode()
            length = os.fstat(self._counters_fd).st_size
            os.pwrite(self._counters_fd, data.ljust(length - 1) + b"\n", 0)

    def _tell(self, kind: EgressEventKind, host: str, port: int, *, rule: str | None = None, reason: str = "") -> None:
        now = self._clock()
        self._budget = min(float(_BURST), self._budget + max(0.0, now - self._budget_at) * _EVENTS_PER_S)
        self._budget_at = now
        if self._budget < 1:
            self._suppressed += 1
            return
        self._budget -= 1
        event = EgressEvent(
            kind=kind,
            time=now,
            host=host[:_SHOWN_HOST],
            port=port,
            rule=rule,
            reason=reason,
            suppressed=self._suppressed,
        )
        self._suppressed = 0
        if self._events_fd is not None:
            _append(self._events_fd, json.dumps(asdict(event)).encode() + b"\n")


def _append(fd: int, line: bytes) -> None:
    size = os.fstat(fd).st_size
    if size + len(line) > MAX_EVENTS_BYTES:
        kept = os.pread(fd, MAX_EVENTS_BYTES // 2, max(0, size - MAX_EVENTS_BYTES // 2))
        line = kept.partition(b"\n")[2] + line
        os.ftruncate(fd, 0)
    os.write(fd, line)


def _read_counters(fd: int | None) -> EgressCounters:
    """Those of an earlier proxy; none where the file is new, or was cut short by a crash of the host."""
    try:
        return EgressCounters() if fd is None else counters_from_json(json.loads(os.pread(fd, 4 * 1024 * 1024, 0)))
    except (ValueError, TypeError):
        return EgressCounters()
