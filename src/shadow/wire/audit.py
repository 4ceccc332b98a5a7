"""The record of operations, as messages of the server's API."""

from pydantic import Field

from shadow.core.audit import AuditContent, AuditEntry
from shadow.wire.message import Message

PAGE = 1000


class AuditEntryMessage(Message):
    """An operation has two: one before anything was done (`begun`) and one with how it ended (`ended`), alike in `request`.

    One that was refused has only the second; one without it was cut off, and nobody knows what came of it. The entry `PRUNE` says
    up to where (`object`, number and hash) older ones were removed."""

    seq: int
    at: float
    """Seconds since 1970, by the database's clock."""
    request: str
    """`X-Request-Id` of its answer."""
    phase: str
    user_id: str | None
    credential_id: str | None
    method: str
    route: str
    object: str
    """Ids that the address names, and of what was made."""
    source: str
    """The address that it came from; that of a proxy only where it is not configured as one."""
    status: int | None
    """`null` where the caller was gone before there was one."""
    code: str | None
    """The error's."""
    previous: str
    """The hash of the entry before."""
    hash: str

    @classmethod
    def from_entry(cls, entry: AuditEntry) -> "AuditEntryMessage":
        content = {name: getattr(entry.content, name) for name in entry.content.__dataclass_fields__}
        return cls(seq=entry.seq, at=entry.at, previous=entry.previous, hash=entry.hash, **content)

    def entry(self) -> AuditEntry:
        content = AuditContent(**{name: getattr(self, name) for name in AuditContent.__dataclass_fields__})
        return AuditEntry(seq=self.seq, at=self.at, content=content, previous=self.previous, hash=self.hash)


class AuditListMessage(Message):
    """The newest first."""

    entries: tuple[AuditEntryMessage, ...]
    next: int | None
    """`before` of the next page; `null`: there is none."""


class AuditQuery(Message):
    limit: int = Field(default=100, ge=1, le=PAGE)
    before: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """Only entries below this number."""
    user_id: str | None = Field(default=None, max_length=64, pattern=r"^[!-~]+$")
    object: str | None = Field(default=None, max_length=500)
    """Only of what begins with this: the id of a task, for example."""
    since: float | None = Field(default=None, ge=0)
    until: float | None = Field(default=None, ge=0)
