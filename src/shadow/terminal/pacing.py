"""When a reader of a terminal gets what: at once, gathered, or skipped ahead. No I/O, no clock."""

from dataclasses import dataclass

FRAME_S = 1 / 60
FULL_BYTES = 256 * 1024
"""So much is sent without waiting for the next frame; no piece is larger."""
KEPT_AFTER_SKIP_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Send:
    to: int


@dataclass(frozen=True, slots=True)
class Skip:
    """The reader fell behind: what lies before ``to`` is left out."""

    to: int


@dataclass(frozen=True, slots=True)
class Hold:
    """There is nothing to send before ``until``; ``None``: before something is written."""

    until: float | None


class Pace:
    """One reader, who has got everything before ``sent``. Times are seconds of any clock that never goes back."""

    def __init__(self, sent: int, *, end: int, lag_bytes: int | None) -> None:
        """``end``: what had been written when the reader came, which it may take its time for."""
        self.sent = sent
        self._caught_up_to = end
        self._lag_bytes = lag_bytes
        self._last_at: float | None = None

    def next(self, *, end: int, now: float, final: bool = False) -> Send | Skip | Hold:
        """``end`` is how much has been written, ``final`` that no more will come."""
        behind = end - max(self.sent, self._caught_up_to)
        if self._lag_bytes is not None and behind > self._lag_bytes:
            return Skip(end - min(KEPT_AFTER_SKIP_BYTES, self._lag_bytes))
        waiting = end - self.sent
        if not waiting:
            return Hold(None)
        due = now if self._last_at is None or final else self._last_at + FRAME_S
        if now < due and waiting < FULL_BYTES:
            return Hold(due)
        return Send(self.sent + min(waiting, FULL_BYTES))

    def sent_up_to(self, offset: int, *, now: float) -> None:
        self.sent = offset
        self._last_at = now

    def skipped_to(self, offset: int) -> None:
        self.sent = max(self.sent, offset)
