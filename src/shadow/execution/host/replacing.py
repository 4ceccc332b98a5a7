"""Replacing the one occurrence of a text in a file, literally."""

import os

from shadow.core.errors import (
    EmptySearch,
    IdenticalReplacement,
    LimitExceeded,
    Rejected,
    TextNotFound,
    TextNotUnique,
)
from shadow.core.files import MAX_SEARCH_REPLACE_BYTES, Replacement
from shadow.execution.host.paths import MAX_SWAPS, WorkspacePaths, keeps_changing, show_path
from shadow.execution.host.reading import open_regular, read_at
from shadow.execution.host.writing import Draft, PathLocks, Swapped

LISTED_LINES = 50
_COUNTED = 100_000
_COMPARED_BYTES = 256 * 1024 * 1024


def search_replace(paths: WorkspacePaths, locks: PathLocks, path: str, *, old: str, new: str) -> Replacement:
    wanted, replacement = _encode(old), _encode(new)
    if not wanted:
        raise EmptySearch("The text to replace is empty.", mend="Give the text as it stands in the file.")
    if wanted == replacement:
        raise IdenticalReplacement("The text and its replacement are the same: nothing would change.")
    for _ in range(MAX_SWAPS):
        try:
            done = _replace_once(paths, locks, path, wanted, replacement)
        except Swapped:
            continue  # somebody wrote between our reading and our writing: begin with what is there now
        if done is not None:
            return done
    raise keeps_changing(path)


def _replace_once(
    paths: WorkspacePaths, locks: PathLocks, path: str, wanted: bytes, replacement: bytes
) -> Replacement | None:
    with paths.resolve(path) as place, locks.hold(place.path):
        fd = open_regular(place, path)
        if fd is None:
            return None
        try:
            expected = os.fstat(fd)
            if expected.st_size > MAX_SEARCH_REPLACE_BYTES:
                raise LimitExceeded(
                    f"{show_path(path)} has {expected.st_size} bytes; at most {MAX_SEARCH_REPLACE_BYTES} can be searched.",
                    mend="Use a command such as sed.",
                )
            content = read_at(fd, 0, expected.st_size)
        finally:
            os.close(fd)
        position = find_unique(content, wanted, path)
        draft = Draft(paths, locks, path, create_parents=False)
        try:
            draft.open()
            draft.write(memoryview(content)[:position])
            draft.write(replacement)
            draft.write(memoryview(content)[position + len(wanted) :])
            written = draft.commit(expected=expected)
        finally:
            draft.close()
    return Replacement(path=written.path, line=content.count(b"\n", 0, position) + 1, size_bytes=written.size_bytes)


def find_unique(content: bytes, wanted: bytes, path: str) -> int:
    """Where ``wanted`` is. Raises: TextNotFound, TextNotUnique."""
    position = content.find(wanted)
    if position < 0:
        raise TextNotFound(f"The text is not in {show_path(path)}.", mend=_not_found_mend(content, wanted))
    second = content.find(wanted, position + 1)
    if second >= 0:
        raise _not_unique(content, wanted, path)
    return position


def _not_unique(content: bytes, wanted: bytes, path: str) -> TextNotUnique:
    # Comparing is bounded: a long periodic text in a large file would take hours to count.
    most = min(_COUNTED, max(LISTED_LINES, _COMPARED_BYTES // len(wanted)))
    lines: list[int] = []
    count, line, counted_to = 0, 1, 0
    position = content.find(wanted)
    while position >= 0 and count < most:
        count += 1
        if len(lines) < LISTED_LINES:
            line += content.count(b"\n", counted_to, position)
            counted_to = position
            lines.append(line)
        position = content.find(wanted, position + 1)
    exact = position < 0
    shown = ", ".join(map(str, lines)) + ("" if count <= len(lines) and exact else ", …")
    return TextNotUnique(
        f"The text occurs {'' if exact else 'at least '}{count} times in {show_path(path)}: on lines {shown}.",
        mend="Give more of the lines around the one that is meant.",
        details={"lines": lines, "count": count, "count_is_exact": exact},
    )


def _not_found_mend(content: bytes, wanted: bytes) -> str:
    bare = wanted.replace(b"\r\n", b"\n")
    if b"\r\n" in wanted and bare in content:
        return "It is there with LF line ends: the file does not use CRLF."
    if b"\n" in bare and b"\r\n" in content:
        if bare.replace(b"\n", b"\r\n") in content:
            return "It is there with CRLF line ends: write them as \\r\\n in both texts."
        return "The file uses CRLF line ends (\\r\\n); the text must have them too. Read the file again and copy it exactly."
    return "Read the file again and copy the text exactly, with its white space."


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Rejected("The text holds characters that cannot be written as UTF-8.") from error
