"""What the operating system's errors mean to a caller: the one table from errno to Shadow's errors."""

import errno
import os

from shadow.core.errors import (
    AlreadyExists,
    Broken,
    Conflict,
    Denied,
    LimitExceeded,
    NotADirectory,
    NotAFile,
    NotFound,
    PathRefused,
    Rejected,
    ShadowError,
    Unsupported,
)

_TABLE: dict[int, tuple[type[ShadowError], str, str | None]] = {
    errno.ENOENT: (NotFound, "is not there", None),
    errno.ENOTDIR: (NotADirectory, "is not a directory, or lies below a file", None),
    errno.EISDIR: (NotAFile, "is a directory", None),
    errno.ENXIO: (NotAFile, "is a socket or a device", None),
    errno.EEXIST: (AlreadyExists, "exists already", None),
    errno.ENOTEMPTY: (Conflict, "is not empty", "Delete it recursively."),
    errno.EBUSY: (Conflict, "is in use", None),
    errno.ETXTBSY: (Conflict, "is a program that runs", None),
    errno.EACCES: (Denied, "may not be accessed", "Look at the permissions of it and of the directories above."),
    errno.EPERM: (Denied, "may not be changed", None),
    errno.EROFS: (Denied, "lies on a read-only file system", None),
    errno.ENOSPC: (LimitExceeded, "does not fit: the disk is full", "Delete what is not needed."),
    errno.EDQUOT: (LimitExceeded, "does not fit: the disk quota is used up", "Delete what is not needed."),
    errno.EFBIG: (LimitExceeded, "would be larger than a file may be", None),
    errno.EMLINK: (LimitExceeded, "would exceed the number of links that a directory may hold", None),
    errno.EMFILE: (LimitExceeded, "could not be opened: too many files are open", "Try again when less is going on."),
    errno.ENFILE: (LimitExceeded, "could not be opened: too many files are open", "Try again when less is going on."),
    errno.ENOMEM: (LimitExceeded, "could not be handled: memory is short", None),
    errno.ENAMETOOLONG: (PathRefused, "has a name that is too long", None),
    errno.EILSEQ: (PathRefused, "has a name that this file system cannot hold", None),
    errno.ELOOP: (PathRefused, "goes through too many symbolic links", None),
    errno.EXDEV: (Rejected, "lies on another file system", "Copy it and delete the original."),
    errno.EINVAL: (Rejected, "cannot be handled so", None),
    errno.EOPNOTSUPP: (Unsupported, "lies on a file system that cannot do this", None),
}


def error_from_os(error: OSError, path: str) -> ShadowError:
    """The error that ``error``, met while working on ``path``, is to the caller."""
    shown = path.encode("utf-8", "backslashreplace").decode()
    kind, text, mend = _TABLE.get(error.errno or 0, (Broken, "", None))
    if kind is Broken:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return Broken(f"The operating system failed on {shown!r}: {reason}.", details={"path": shown})
    return kind(f"{shown!r} {text}.", mend=mend, details={"path": shown})
