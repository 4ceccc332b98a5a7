"""Search in a tree in memory: by content with Python's regular expressions, by name with the fuzzy score of all executors."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shadow.core.errors import NotAFile, Rejected
from shadow.core.search import FileMatch, FileSearchResult, GrepLine, GrepQuery, GrepResult
from shadow.execution.fuzzy import rank
from shadow.execution.mock.globs import IGNORE_FILES, IgnoreRules, Selection
from shadow.execution.mock.tree import Directory, File, Tree
from shadow.execution.path_text import show_path
from shadow.execution.queries import check_file_query, check_query

_NOT_RIPGREPS = re.compile(
    r"""(?x)
      \(\?(?:[=!>\#(]|<[=!]|P[=>])     # looking around, atomic groups, comments, conditions, references by name
    | \\[1-9ZpPxuUNQE]                 # back references; classes and escapes that the two write differently
    | \\[zhHRXK]
    | \[\[:                            # named classes
    | \(\?<[^=!]                       # groups are named (?P<name>…) in both
    """
)
"""What Python reads otherwise than ripgrep, or only one of them knows."""


def grep(tree: Tree, query: GrepQuery, *, clock: Callable[[], float]) -> GrepResult:
    """Raises: Rejected, also for a pattern that Python would read otherwise than ripgrep; NotFound, NotAFile, …"""
    check_query(query)
    pattern = _compile(query)
    selection = Selection(query.globs)
    node, place = tree.find(query.path)
    found = _Found(query)
    if isinstance(node, File):
        found.search(pattern, place.path, node.content, binary=True)
        return found.result()
    if not isinstance(node, Directory):
        raise NotAFile(f"{show_path(query.path)} is neither a directory nor a regular file.")
    prefix = "" if place.is_root else place.path + "/"
    until = clock() + query.timeout_s
    for path, file in _files(tree, prefix, node, include_ignored=query.include_ignored):
        if clock() > until:
            found.truncated = "time"
        if found.truncated:
            break
        if selection.takes(path):
            found.search(pattern, prefix + path, file.content)
    return found.result()


def search_files(tree: Tree, query: str, *, path: str, limit: int) -> FileSearchResult:
    check_file_query(query, limit=limit)
    directory, where = tree.directory(path)
    prefix = "" if where == "." else where + "/"
    names = [name for name, _ in _files(tree, prefix, directory, include_ignored=False)]
    best, count = rank(query, names, limit=limit)
    return FileSearchResult(
        matches=tuple(FileMatch(path=prefix + name, score=score) for score, name in best),
        searched=len(names),
        truncated=count > limit,
    )


def _compile(query: GrepQuery) -> re.Pattern[str]:
    flags = re.IGNORECASE if query.ignore_case else re.NOFLAG
    if query.literal:
        return re.compile(re.escape(query.pattern), flags)
    other = _NOT_RIPGREPS.search(re.sub(r"\\\\", "", query.pattern))
    if other is not None:
        raise Rejected(
            f"The mock's grep does not know {other[0]!r}: Python and ripgrep do not read it alike.",
            mend="Write the pattern with what both know.",
        )
    try:
        return re.compile(query.pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise Rejected(f"The pattern is not a regular expression: {error}.", mend="Correct the pattern.") from error


def _files(tree: Tree, prefix: str, directory: Directory, *, include_ignored: bool) -> Iterator[tuple[str, File]]:
    """Regular files below ``directory`` by their paths from it; no ``.git``, and nothing that ignore files name."""
    rules: list[tuple[int, IgnoreRules]] = []  # with how much of a path lies above where the rules are
    if not include_ignored:
        above, walked = tree.root, ""
        for name in prefix.split("/")[:-1]:
            rules.append((len(walked), _rules(above)))
            child = above.entries[name]
            assert isinstance(child, Directory)
            above, walked = child, f"{walked}{name}/"
    levels = [(prefix, iter(sorted(directory.entries.items())))]
    rules.append((len(prefix), _rules(directory)))
    while levels:
        where, entries = levels[-1]
        following = next(entries, None)
        if following is None:
            levels.pop()
            rules.pop()
            continue
        name, node = following
        if isinstance(node, Directory):
            inside = f"{where}{name}/"
            if name != ".git" and (include_ignored or not _is_ignored(rules, where + name, is_directory=True)):
                levels.append((inside, iter(sorted(node.entries.items()))))
                rules.append((len(inside), _rules(node)))
        elif isinstance(node, File) and (include_ignored or not _is_ignored(rules, where + name, is_directory=False)):
            yield (where + name)[len(prefix) :], node


def _rules(directory: Directory) -> IgnoreRules:
    files = (directory.entries.get(name) for name in IGNORE_FILES)
    return IgnoreRules([file.content if isinstance(file, File) else None for file in files])


def _is_ignored(rules: list[tuple[int, IgnoreRules]], path: str, *, is_directory: bool) -> bool:
    """The nearest ignore file that says something counts."""
    for above, rule in reversed(rules):
        said = rule.decide(path[above:], is_directory=is_directory)
        if said is not None:
            return said
    return False


@dataclass(slots=True)
class _Found:
    """Takes lines up to the bounds of the query."""

    query: GrepQuery
    truncated: str | None = None
    _lines: list[GrepLine] = field(default_factory=list[GrepLine])
    _matches: int = 0
    _bytes: int = 0

    def search(self, pattern: re.Pattern[str], path: str, content: bytes, *, binary: bool = False) -> None:
        """A file with NUL in it is not text: it is passed over unless it was named itself."""
        if not binary and b"\0" in content:
            return
        lines = content.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        matching = [n for n, line in enumerate(lines) if pattern.search(line.decode("utf-8", "surrogateescape"))]
        wanted = set(matching)
        shown = 0  # up to which line
        for match in matching:
            for number in range(
                max(shown, match - self.query.context), min(len(lines), match + self.query.context + 1)
            ):
                if self.truncated:
                    return
                self._take(path, number, lines[number], is_match=number in wanted)
                shown = number + 1

    def result(self) -> GrepResult:
        lines = sorted(self._lines, key=lambda line: (line.path.split("/"), line.number))
        return GrepResult(lines=tuple(lines), truncated=self.truncated)

    def _take(self, path: str, number: int, line: bytes, *, is_match: bool) -> None:
        if is_match and self._matches == self.query.max_matches:
            self.truncated = "matches"
            return
        line = line.removesuffix(b"\r")
        text = line[: self.query.max_line_bytes]
        if self._bytes + len(text) > self.query.max_bytes:
            self.truncated = "bytes"
            return
        self._matches += is_match
        self._bytes += len(text)
        self._lines.append(
            GrepLine(path=path, number=number + 1, text=text, is_match=is_match, cut=len(text) < len(line))
        )
