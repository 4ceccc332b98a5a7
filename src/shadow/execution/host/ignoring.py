"""The rules of ``.gitignore`` files as git reads them: parsing, and what one file says of a path. No I/O.

Matching takes time that is bounded by length of pattern times length of path, whatever a hostile pattern holds: what a star
has taken is never tried again unless it is the last of its part.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
_SPECIAL = re.compile(rb"[*?\[\\]")
_STAR = b"[^/]*"
_DIRECTORIES = b"(?:[^/]*/)*"
_BYTES = [bytes((number,)) for number in range(256)]


@dataclass(frozen=True, slots=True)
class Pattern:
    regex: re.Pattern[bytes]
    anchored: bool
    """Whether it is for the path from the file's directory on; else for the last name alone."""
    negated: bool
    only_directories: bool


def parse_patterns(content: bytes) -> tuple[Pattern, ...]:
    patterns: list[Pattern] = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        pattern = _parse(line)
        if pattern is not None:
            patterns.append(pattern)
    return tuple(patterns)


def decide(patterns: Sequence[Pattern], path: bytes, *, is_directory: bool) -> bool | None:
    """Whether one file's patterns ignore ``path``, relative to the file's directory; ``None`` where they do not say.

    No directory above it may be ignored: in those nothing can be taken back.
    """
    name = path.rpartition(b"/")[2]
    for pattern in reversed(patterns):
        if pattern.only_directories and not is_directory:
            continue
        if pattern.regex.fullmatch(path if pattern.anchored else name):
            return not pattern.negated
    return None


def _parse(line: bytes) -> Pattern | None:
    line = _without_trailing_spaces(line.removesuffix(b"\r").split(b"\0", 1)[0])
    if not line or line.startswith(b"#"):
        return None
    negated = line.startswith(b"!")
    glob = line[negated:]
    only_directories = glob.endswith(b"/")
    glob = glob[: len(glob) - only_directories]
    anchored = b"/" in glob
    expression = _translate(glob.removeprefix(b"/"))
    if expression is None:
        return None  # such a pattern matches nothing
    return Pattern(re.compile(expression, re.DOTALL), anchored, negated, only_directories)


def _without_trailing_spaces(line: bytes) -> bytes:
    end = len(line.rstrip(b" "))
    if end == len(line):
        return line
    backslashes = end - len(line[:end].rstrip(b"\\"))
    return line[: end + backslashes % 2]


def _translate(glob: bytes) -> bytes | None:
    """The regular expression; ``None`` where the pattern is malformed."""
    groups: list[list[list[bytes]]] = [[[b""]]]
    """Parted by ``**/``, then by ``/``, then by ``*``."""
    at = 0
    while at < len(glob):
        char = glob[at : at + 1]
        if char == b"*":
            end = at + len(glob[at:]) - len(glob[at:].lstrip(b"*"))
            # After a first part without anything special ``**`` begins anew: git has compared and cut that off by then.
            begins = glob[at - 1 : at] == b"/" or not _SPECIAL.search(glob[:at])
            if end - at > 1 and begins and end == len(glob):
                return _join(groups) + b".*"
            if end - at > 1 and begins and glob[end : end + 1] == b"/":
                groups.append([[b""]])
                end += 1
            elif end - at > 1 and begins and glob[end : end + 2] == b"\\/":
                groups.append([[b"", b""]])  # one directory at least
            else:
                groups[-1][-1].append(b"")
            at = end
        elif char == b"/":
            groups[-1].append([b""])
            at += 1
        else:
            token = _token(glob, at)
            if token is None:
                return None
            groups[-1][-1][-1] += token[0]
            at = token[1]
    return _join(groups)


def _join(groups: list[list[list[bytes]]]) -> bytes:
    parts = [b"/".join(map(_join_segment, group)) for group in groups]
    if len(parts) == 1:
        return parts[0]
    middle = b"".join(b"(?>" + _DIRECTORIES + b"?" + part + b")" for part in parts[1:-1])
    return parts[0] + middle + _DIRECTORIES + parts[-1]


def _join_segment(chunks: list[bytes]) -> bytes:
    if len(chunks) == 1:
        return chunks[0]
    middle = b"".join(b"(?>" + _STAR + b"?" + chunk + b")" for chunk in chunks[1:-1])
    return chunks[0] + middle + _STAR + chunks[-1]


def _token(glob: bytes, at: int) -> tuple[bytes, int] | None:
    """One character's worth of expression, and where it ends in ``glob``."""
    char = glob[at : at + 1]
    if char == b"?":
        return b"[^/]", at + 1
    if char == b"[":
        return _bracket(glob, at + 1)
    if char == b"\\":
        at += 1
        char = glob[at : at + 1]
        if not char:
            return None
    return re.escape(char), at + 1


def _bracket(glob: bytes, at: int) -> tuple[bytes, int] | None:
    negated = glob[at : at + 1] in (b"!", b"^")
    at += negated
    parts: list[bytes] = []
    previous = b""
    while True:
        char = glob[at : at + 1]
        if char == b"-" and previous and glob[at + 1 : at + 2] not in (b"", b"]"):
            at += 1
            at += glob[at : at + 1] == b"\\"
            last = glob[at : at + 1]
            if not last:
                return None
            if previous <= last:
                parts.append(re.escape(previous) + b"-" + re.escape(last))
            previous = b""
        elif char == b"[" and glob[at + 1 : at + 2] == b":" and (end := glob.find(b"]", at + 2)) != at + 2:
            if end < 0:
                return None
            if glob[end - 1 : end] == b":" and end - 1 >= at + 2:
                members = _CLASSES.get(glob[at + 2 : end - 1])
                if members is None:
                    return None
                parts.append(members)
                previous, at = b"", end
            else:
                parts.append(rb"\[")
                previous = b"["
        else:
            at += char == b"\\"
            previous = glob[at : at + 1]
            if not previous:
                return None
            parts.append(re.escape(previous))
        at += 1
        if glob[at : at + 1] == b"]":
            break
    members = re.compile(b"[" + b"".join(parts) + b"]", re.DOTALL) if parts else None
    chosen = [re.escape(b) for b in _BYTES if b != b"/" and bool(members and members.fullmatch(b)) != negated]
    return (b"[" + b"".join(chosen) + b"]" if chosen else b"(?!)"), at + 1
