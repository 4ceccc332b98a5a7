"""The one tree of errors: what failed, whether a repeat is safe, and what to do.

ShadowError
├── NotFound            what was named is not there
│   ├── NotARepository      no git work tree
│   └── RevisionNotFound
├── Conflict            the state forbids it (exists already, older epoch, not empty, …)
│   ├── KeyReused           the idempotency key of something else
│   ├── UnbornHead, NothingToCommit, LocalChanges, GitInProgress
│   └── GitFailed           git refused for a reason of its own
├── Rejected            the request can never succeed as it is (bad path, bad pattern, …)
│   ├── PathRefused         leads out of the workspace
│   ├── NotAFile, NotADirectory
│   ├── EmptySearch, IdenticalReplacement, TextNotFound, TextNotUnique
│   └── SettingsRefused
├── Denied              not allowed for this caller, or by the operating system
│   └── Unauthenticated     nobody knows who asks
├── LimitExceeded       a bound was reached (too large, disk full, too many)
├── Unsupported         the implementation does not claim this capability
├── Unavailable         not sent, or surely not done: a repeat is safe
├── OutcomeUnknown      sent, no answer: ask before repeating
└── Broken              a fault of Shadow itself

Each class has a stable ``code``. ``details`` holds JSON values only; ``mend`` says what the reader can do.
"""

from collections.abc import Mapping
from typing import ClassVar

type_by_code: dict[str, "type[ShadowError]"] = {}


class ShadowError(Exception):
    """Base of every error that Shadow raises on purpose."""

    code: ClassVar[str] = "error"
    repeat_is_safe: ClassVar[bool] = False

    def __init__(self, message: str, *, mend: str | None = None, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.details: dict[str, object] = dict(details or {})

    def __init_subclass__(cls) -> None:
        if cls.code in type_by_code:
            raise TypeError(f"two errors share the code {cls.code!r}")
        type_by_code[cls.code] = cls

    def __str__(self) -> str:
        return f"{self.message} {self.mend}" if self.mend else self.message


class NotFound(ShadowError):
    code = "not_found"


class NotARepository(NotFound):
    """No directory at or above the one that was named, within the workspace, is a git work tree."""

    code = "not_a_repository"


class RevisionNotFound(NotFound):
    code = "revision_not_found"


class Conflict(ShadowError):
    code = "conflict"


class UnbornHead(Conflict):
    """HEAD's branch has no commit yet."""

    code = "unborn_head"


class NothingToCommit(Conflict):
    code = "nothing_to_commit"


class LocalChanges(Conflict):
    """``details["paths"]``: the first files whose changes would be overwritten, as git shows them."""

    code = "local_changes"


class GitInProgress(Conflict):
    """``details["in_progress"]``: what has to be ended first: ``merge``, ``rebase``, …"""

    code = "git_in_progress"


class GitFailed(Conflict):
    """``details["stderr"]``: the beginning of what git said."""

    code = "git_failed"


class AlreadyExists(Conflict):
    code = "already_exists"


class KeyReused(Conflict):
    """Something else was created under this idempotency key before."""

    code = "key_reused"


class StaleEpoch(Conflict):
    """The caller was fenced off: somebody with a newer epoch has taken over."""

    code = "stale_epoch"


class Rejected(ShadowError):
    code = "rejected"


class PathRefused(Rejected):
    """The path leads out of the workspace, or cannot be a path at all."""

    code = "path_refused"


class NotAFile(Rejected):
    code = "not_a_file"


class NotADirectory(Rejected):
    code = "not_a_directory"


class EmptySearch(Rejected):
    code = "empty_search"


class IdenticalReplacement(Rejected):
    code = "identical_replacement"


class TextNotFound(Rejected):
    code = "text_not_found"


class TextNotUnique(Rejected):
    """``details["lines"]``: the 1-based numbers of the lines where each occurrence starts."""

    code = "text_not_unique"


class SettingsRefused(Rejected):
    code = "settings_refused"


class Denied(ShadowError):
    code = "denied"


class Unauthenticated(Denied):
    """No valid credential came with the request."""

    code = "unauthenticated"


class LimitExceeded(ShadowError):
    code = "limit_exceeded"


class Unsupported(ShadowError):
    """``details["capability"]``: the name of the lacking capability."""

    code = "unsupported"


class Unavailable(ShadowError):
    code = "unavailable"
    repeat_is_safe = True


class OutcomeUnknown(ShadowError):
    code = "outcome_unknown"


class Broken(ShadowError):
    code = "broken"


def error_from_code(code: str, message: str, *, mend: str | None, details: Mapping[str, object]) -> ShadowError:
    """The error that a peer described; a code from a newer peer becomes a plain ``ShadowError``."""
    return type_by_code.get(code, ShadowError)(message, mend=mend, details=details)
