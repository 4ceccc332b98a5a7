"""Reading tar archives that need not be honest: fed in pieces of any size, strict, with bounded memory; no I/O.

Takes what pax, ustar, GNU and seventh-edition tars write of files, directories, symlinks and hard links. Whatever two readers
could understand differently is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from shadow.core.errors import LimitExceeded, PathRefused, Rejected
from shadow.execution.host.paths import decode_path, show_path
from shadow.execution.path_text import MAX_PATH_BYTES

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 256 * 1024
"""Of an entry's extended header: two paths, and attributes that are skipped."""

_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_NO_BLOCK = bytes(BLOCK_BYTES)
_OF_ONE_ENTRY = frozenset({b"path", b"linkpath", b"size"})


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard_link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    kind: EntryKind
    names: tuple[bytes, ...]
    """The way from the top of the archive; nothing for the top itself."""
    mode: int
    """Permission bits, without setuid, setgid and sticky."""
    size_bytes: int
    """How much content follows."""
    target: bytes
    """What a link holds."""

    @property
    def path(self) -> str:
        return decode_path(b"/".join(self.names))


_KINDS = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"1": EntryKind.HARD_LINK,
    b"2": EntryKind.SYMLINK,
    b"5": EntryKind.DIRECTORY,
}
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_EXTENSIONS = (b"x", b"g", b"L", b"K")


def split_name(path: bytes) -> tuple[bytes, ...]:
    """The names on the way from the top of the archive. Raises: PathRefused: where it leads anywhere else."""
    shown = show_path(decode_path(path[:MAX_PATH_BYTES]))
    if len(path) > MAX_PATH_BYTES:
        raise PathRefused(f"The archive names a path that is longer than {MAX_PATH_BYTES} bytes: {shown}….")
    if not path or b"\0" in path:
        raise PathRefused(f"The archive names {shown}, which cannot be a path.")
    if path.startswith(b"/"):
        raise PathRefused(f"The archive names {shown}, which is absolute.")
    names = tuple(name for name in path.split(b"/") if name not in (b"", b"."))
    if b".." in names:
        raise PathRefused(f"The archive names {shown}, which leads out.")
    return names


class TarReader:
    """``feed`` gives entries, and after a file's entry its content in pieces. Raises: Rejected, LimitExceeded."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._fed = 0
        self._at = 0
        """Where in the archive the block that is looked at begins."""
        self._content = 0
        """How much content of the current file is still to come, and how much filling after it."""
        self._filling = 0
        self._wanted = BLOCK_BYTES
        self._gathered = bytearray()
        self._extension: tuple[bytes, int] | None = None
        """Kind and size of the extended header that is gathered."""
        self._told: dict[bytes, bytes] = {}
        """What extended headers say of the next entry."""
        self._zero_blocks = 0

    def feed(self, data: bytes) -> Iterator[Entry | memoryview]:
        self._fed += len(data)
        if self._fed > self._max_bytes:
            raise LimitExceeded(f"The archive has more than {self._max_bytes} bytes.")
        view = memoryview(data)
        while view:
            if self._content:
                piece = view[: self._content]
                view = view[len(piece) :]
                self._content -= len(piece)
                yield piece
            elif self._filling:
                count = min(self._filling, len(view))
                view = view[count:]
                self._filling -= count
            else:
                part = view[: self._wanted - len(self._gathered)]
                view = view[len(part) :]
                self._gathered += part
                if len(self._gathered) == self._wanted:
                    self._at = self._fed - len(view) - self._wanted
                    gathered, self._gathered, self._wanted = bytes(self._gathered), bytearray(), BLOCK_BYTES
                    entry = self._block(gathered)
                    if entry is not None:
                        yield entry

    def finish(self) -> None:
        """Raises: Rejected: the archive is not whole."""
        if self._zero_blocks < 2:
            self._at = self._fed
            raise self._refusal("it ends before its end is marked")

    def _refusal(self, reason: str) -> Rejected:
        return Rejected(
            f"The archive cannot be taken: {reason} (at byte {self._at}).",
            mend="Make it with 'tar --format=pax', without --sparse.",
            details={"offset": self._at},
        )

    def _block(self, block: bytes) -> Entry | None:
        if self._extension is not None:
            kind, size = self._extension
            self._extension = None
            self._extend(kind, block[:size])
            return None
        if block == _NO_BLOCK:
            if self._told:
                raise self._refusal("an extended header belongs to no entry")
            self._zero_blocks += 1
            return None
        if self._zero_blocks:
            raise self._refusal("something follows its end")
        return self._header(block)

    def _header(self, block: bytes) -> Entry | None:
        if self._number(block[148:156], "checksum") != sum(block) - sum(block[148:156]) + 8 * 32:
            raise self._refusal("a header's checksum is wrong")
        size = self._number(block[124:136], "size")
        type_ = block[156:157]
        if type_ in _EXTENSIONS:
            if size > MAX_EXTENSION_BYTES:
                raise LimitExceeded(f"A header of the archive has {size} bytes; at most {MAX_EXTENSION_BYTES} fit.")
            self._extension = (type_, size)
            self._wanted = _padded(size)
            if not size:
                raise self._refusal("an extended header is empty")
            return None
        return self._entry(block, type_, size)

    def _extend(self, type_: bytes, body: bytes) -> None:
        if type_ in (b"L", b"K"):
            told = {b"path" if type_ == b"L" else b"linkpath": body.split(b"\0", 1)[0]}
        else:
            told = self._records(body)
            if any(key.startswith(b"GNU.sparse.") for key in told):
                raise self._refusal("it holds a sparse file")
            told = {key: value for key, value in told.items() if key in _OF_ONE_ENTRY}
            if type_ == b"g":
                if told:
                    raise self._refusal("a global header says what can only be said of one entry")
                return
        if told.keys() & self._told.keys():
            raise self._refusal("two extended headers say the same of one entry")
        self._told |= told

    def _records(self, body: bytes) -> dict[bytes, bytes]:
        """``LENGTH KEY=VALUE`` lines, where LENGTH counts all of it."""
        records: dict[bytes, bytes] = {}
        start = 0
        while start < len(body):
            match = _RECORD_LENGTH.match(body, start)
            end = start + int(match[1]) if match else 0
            key, equals, value = body[match.end() : end - 1].partition(b"=") if match else (b"", b"", b"")
            if not equals or not key or end > len(body) or body[end - 1 : end] != b"\n" or key in records:
                raise self._refusal("an extended header cannot be understood")
            records[key] = value
            start = end
        return records

    def _entry(self, block: bytes, type_: bytes, size: int) -> Entry:
        told, self._told = self._told, {}
        path = told.get(b"path", self._own_path(block))
        if type_ in _REFUSED:
            raise self._refusal(f"{show_path(decode_path(path[:MAX_PATH_BYTES]))} is {_REFUSED[type_]}")
        kind = _KINDS.get(type_)
        if kind is None:
            raise self._refusal(f"an entry is of the unknown type {type_!r}")
        if type_ == b"\0" and path.endswith(b"/"):
            kind = EntryKind.DIRECTORY  # so tars said it before there was a type for it
        if b"size" in told:
            if not (told[b"size"].isdigit() and len(told[b"size"]) <= 20):
                raise self._refusal("a size is no number")
            size = int(told[b"size"])
        if size and kind is not EntryKind.FILE:
            raise self._refusal("an entry that is no file has content")
        if self._at + BLOCK_BYTES + size > self._max_bytes:
            raise LimitExceeded(f"The archive announces a file of {size} bytes: more than {self._max_bytes} in all.")
        names = split_name(path)
        if kind is not EntryKind.DIRECTORY and (not names or path.endswith((b"/", b"/."))):
            raise self._refusal(f"{show_path(decode_path(path))} names a directory and is none")
        target = told.get(b"linkpath", _text(block[157:257]))
        if kind is EntryKind.SYMLINK and (not 0 < len(target) <= MAX_PATH_BYTES or b"\0" in target):
            raise self._refusal("a symlink holds what cannot be a path")
        self._content, self._filling = size, _padded(size) - size
        mode = self._number(block[100:108], "mode") & 0o777
        return Entry(kind=kind, names=names, mode=mode, size_bytes=size, target=target)

    def _own_path(self, block: bytes) -> bytes:
        name = _text(block[:100])
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
        return prefix + b"/" + name if prefix else name

    def _number(self, field: bytes, what: str) -> int:
        """In octal digits, or, where its first bit is set, in base 256."""
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        match = _OCTAL.fullmatch(field)
        if match is None:
            raise self._refusal(f"a header's {what} is no number")
        return int(match[1] or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
