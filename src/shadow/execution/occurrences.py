"""Finding the one occurrence of a text in a file, literally, byte by byte. Pure."""

from shadow.core.errors import EmptySearch, IdenticalReplacement, LimitExceeded, Rejected, TextNotFound, TextNotUnique
from shadow.core.files import MAX_SEARCH_REPLACE_BYTES
from shadow.execution.path_text import show_path

LISTED_LINES = 50
_COUNTED = 100_000
_COMPARED_BYTES = 256 * 1024 * 1024


def check_texts(old: str, new: str) -> tuple[bytes, bytes]:
    """Both texts as the file has them. Raises: EmptySearch, IdenticalReplacement, Rejected."""
    wanted, replacement = _encode(old), _encode(new)
    if not wanted:
        raise EmptySearch("The text to replace is empty.", mend="Give the text as it stands in the file.")
    if wanted == replacement:
        raise IdenticalReplacement("The text and its replacement are the same: nothing would change.")
    return wanted, replacement


def check_size(size_bytes: int, path: str) -> None:
    """Raises: LimitExceeded."""
    if size_bytes > MAX_SEARCH_REPLACE_BYTES:
        raise LimitExceeded(
            f"{show_path(path)} has {size_bytes} bytes; at most {MAX_SEARCH_REPLACE_BYTES} can be searched.",
            mend="Use a command such as sed.",
        )


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
