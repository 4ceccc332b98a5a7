"""Globs and ignore files as a search obeys them: which files it looks at. No I/O.

A pattern is held against one path, not against what lies above it: whoever walks a tree does not enter what is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shadow.core.errors import Rejected

MAX_ALTERNATIVES = 1000
IGNORE_FILES = (".ignore", ".gitignore")
"""The first that says something about a path counts."""
_GLOB = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file."""

    negated: bool
    only_directories: bool
    tied: bool
    """Whether it is about the path from where it stands, not about a base name anywhere below."""
    expression: re.Pattern[str]

    def matches(self, path: str, *, is_directory: bool) -> bool:
        if self.only_directories and not is_directory:
            return False
        return self.expression.fullmatch(path if self.tied else path.rpartition("/")[2]) is not None


class Selection:
    """The globs of one query, relative to where it searches. Raises: Rejected."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._wanted = [_pattern(p) for glob in globs if not glob.startswith("!") for p in _expand(glob)]
        self._left_out = [_pattern(p) for glob in globs if glob.startswith("!") for p in _expand(glob[1:])]

    def takes(self, path: str) -> bool:
        names = path.split("/")
        for length in range(1, len(names) + 1):
            above = "/".join(names[:length])
            if any(p.matches(above, is_directory=length < len(names)) for p in self._left_out):
                return False
        return not self._wanted or any(p.matches(path, is_directory=False) for p in self._wanted)


class IgnoreRules:
    """The ignore files of one directory."""

    def __init__(self, contents: Sequence[bytes | None]) -> None:
        """``contents`` are those of ``IGNORE_FILES``."""
        self._files = [list(_patterns(content)) for content in contents if content is not None]

    def decide(self, path: str, *, is_directory: bool) -> bool | None:
        """Whether ``path``, relative to the directory, is ignored; ``None``: not said. In a file the last match counts."""
        for patterns in self._files:
            for pattern in reversed(patterns):
                if pattern.matches(path, is_directory=is_directory):
                    return not pattern.negated
        return None


def _patterns(content: bytes) -> Iterator[Pattern]:
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        text = re.sub(r"(?<!\\)[ \r]+$", "", line)
        if text.strip("/") and not text.startswith("#"):
            try:
                yield _pattern(text.removeprefix("!"), negated=text.startswith("!"))
            except Rejected:  # git takes it for one that matches nothing
                continue


def _pattern(glob: str, *, negated: bool = False) -> Pattern:
    """Raises: Rejected."""
    body = glob.removesuffix("/")
    pieces = [_translate(piece[0]) for piece in _GLOB.finditer(body.removeprefix("/"))]
    try:
        expression = re.compile("".join(pieces), re.DOTALL)
    except re.error as error:
        raise Rejected(f"The glob {glob[:80]!r} cannot be understood: {error}.") from error
    return Pattern(negated, glob.endswith("/"), "/" in body, expression)


def _translate(piece: str) -> str:
    """A piece of a glob, for Python."""
    match piece:
        case "**/":
            return "(?:[^/]+/)*"
        case "/**":
            return "/.+"
        case "?":
            return "[^/]"
        case _ if piece.startswith("*"):
            return "[^/]*"
        case _ if len(piece) > 1 and piece.startswith("["):
            inside = piece[1:-1]
            negation = "^" if inside[:1] in ("!", "^") else ""
            return f"(?!/)[{negation}{re.sub(r'[^-]', lambda c: re.escape(c[0]), inside[len(negation) :])}]"
        case _:
            return re.escape(piece[1:] if len(piece) > 1 else piece)


def _expand(glob: str) -> list[str]:
    """``a.{b,c}`` as ``a.b`` and ``a.c``, nested ones too. Raises: Rejected."""
    patterns, done = [glob], list[str]()
    while patterns:
        pattern = patterns.pop()
        braces = _BRACES.search(pattern)
        if braces is None:
            done.append(pattern)
        else:
            patterns += [pattern[: braces.start()] + part + pattern[braces.end() :] for part in braces[1].split(",")]
        if len(patterns) + len(done) > MAX_ALTERNATIVES:
            raise Rejected(f"The glob {glob[:80]!r} has too many alternatives.")
    for pattern in done:
        plain = re.sub(r"\\.", "", pattern)
        if "{" in plain or "}" in plain or re.search(r"\[[^\]]*$", plain):
            raise Rejected(f"The glob {glob[:80]!r} cannot be understood: a bracket or brace has no partner.")
    return done
