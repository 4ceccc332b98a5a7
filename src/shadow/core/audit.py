"""The record of who changed what: entries that are each bound to the one before by a hash. No I/O, no clock.

An operation has two entries: that it was begun, before anything is done, and how it ended, before the caller is told. One that
was refused has only the second; one without it was cut off, and nobody knows what came of it.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from enum import StrEnum

FIRST_HASH = "0" * 64
"""What the first entry is bound to."""
MAX_TEXT_CHARS = 500
PRUNED = "PRUNE"
"""In the place of a method, of the entry that puts on record what was removed; ``object`` is the ``AuditHead`` up to which."""


class AuditPhase(StrEnum):
    BEGUN = "begun"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditContent:
    request: str
    """Ties the two entries of an operation together."""
    phase: str
    """An ``AuditPhase``, or what somebody made of it."""
    user_id: str | None
    """``None``: nobody had shown who they are, as at a login."""
    credential_id: str | None
    method: str
    route: str
    """Its template."""
    object: str
    """Ids that the address names, and of what was made."""
    source: str
    """The address that it came from."""
    status: int | None = None
    """Of HTTP. ``None``: not yet, or the caller was gone before there was one."""
    code: str | None = None
    """The error's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    seq: int
    """From 1, without gaps."""
    at: float
    """Seconds since 1970, by the database's clock."""
    content: AuditContent
    previous: str
    """The hash of the entry before."""
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """Where the record ends. Whoever keeps one elsewhere can tell later that nothing before it was changed."""

    seq: int = 0
    hash: str = FIRST_HASH

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


def pruned(start: AuditHead, *, request: str) -> AuditContent:
    """That everything up to ``start`` was removed. ``request``: whose doing it was, the id of a job."""
    return AuditContent(
        request=request,
        phase=AuditPhase.ENDED.value,
        user_id=None,
        credential_id=None,
        method=PRUNED,
        route="/v1/audit",
        object=str(start),
        source="",
    )


def sealed(content: AuditContent, *, after: AuditHead, at: float) -> AuditEntry:
    seq = after.seq + 1
    return AuditEntry(seq=seq, at=at, content=content, previous=after.hash, hash=_hash(after.hash, seq, at, content))


def fault(entry: AuditEntry, *, after: AuditHead) -> str | None:
    """What shows that ``entry`` is not what was once written behind ``after``."""
    if entry.seq != after.seq + 1:
        return f"what follows {after.seq} is {entry.seq}: entries are missing, or in another order"
    if entry.previous != after.hash:
        return "it is not bound to the entry before it"
    if entry.hash != _hash(entry.previous, entry.seq, entry.at, entry.content):
        return "its hash is not that of its content"
    return None


def _hash(previous: str, seq: int, at: float, content: AuditContent) -> str:
    values = {field.name: getattr(content, field.name) for field in fields(content)}
    canonical = json.dumps({"seq": seq, "at": at, **values}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{canonical}".encode()).hexdigest()
