"""Globs and ignore files as a search obeys them: which files it looks at. No I/O."""

import re
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from shadow.core.errors import Rejected

MAX_ALTERNATIVES = 1000
IGNORE_FILES = (".ignore", ".gitignore")
"""The first that says something about a path counts."""
_BRACES = re.compile(r"\{([^{}]*)\}")


class Selection:
    """The globs of one query, relative to where it searches. Raises: Rejected."""

    def __init__(self, globs: Sequence[str]) -> None:
        wanted = [glob for glob in globs if not glob.startswith("!")]
        self._wanted = _spec(wanted) if wanted else None
        self._left_out = _spec([glob[1:] for glob in globs if glob.startswith("!")])

    def takes(self, path: str) -> bool:
        if self._left_out.match_file(path):
            return False
        return self._wanted is None or self._wanted.match_file(path)


class IgnoreRules:
    """The ignore files of one directory."""

    def __init__(self, contents: Sequence[bytes | None]) -> None:
        """``contents`` are those of ``IGNORE_FILES``."""
        self._specs = [_ignore_spec(content) for content in contents if content is not None]

    def decide(self, path: str) -> bool | None:
        """Whether ``path`` (relative to the directory; one of a directory ends in a slash) is ignored; ``None``: not said."""
        for spec in self._specs:
            said = spec.check_file(path).include
            if said is not None:
                return said
        return None


def _ignore_spec(content: bytes) -> GitIgnoreSpec:
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    return GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    """git takes a line that is none for one that matches nothing."""
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _spec(globs: Sequence[str]) -> GitIgnoreSpec:
    expanded = [pattern for glob in globs for pattern in _expand(glob)]
    try:
        return GitIgnoreSpec.from_lines([f"\\{glob}" if glob.startswith(("#", "!")) else glob for glob in expanded])
    except ValueError as error:
        raise Rejected(f"A glob cannot be understood: {error}") from error


def _expand(glob: str) -> list[str]:
    """``a.{b,c}`` as ``a.b`` and ``a.c``, nested ones too."""
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
