"""Finding text in files, and files by their names."""

from collections.abc import Mapping
from itertools import groupby
from typing import ClassVar

from pydantic import Field

from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.described import Arguments, DescribedTool
from shadow.agent.tools.shown import shown_path, shown_text
from shadow.core.search import GrepLine, GrepQuery, GrepResult

MAX_MATCHES = 200
MAX_CONTEXT = 10
MAX_TEXT_BYTES = 32 * 1024
MAX_LINE_BYTES = 500
MAX_FILES = 200
MAX_ERRORS = 5
MAX_ERROR_CHARS = 200
GREP_TIMEOUT_S = 30


class GrepSearchArguments(Arguments):
    pattern: str = Field(description="A regular expression in ripgrep's syntax, for one line.")
    path: str = Field(default=".", description="A file or a directory.")
    literal: bool = Field(default=False, description="Take the pattern as plain text.")
    ignore_case: bool = False
    globs: tuple[str, ...] = Field(default=(), max_length=20, description="As *.py; with a leading ! left out.")
    include_ignored: bool = Field(default=False, description="Also what .gitignore leaves out.")
    context: int = Field(default=0, ge=0, le=MAX_CONTEXT, description="Lines around each match.")


class GrepSearch(DescribedTool[GrepSearchArguments]):
    name = "grep_search"
    arguments = GrepSearchArguments
    changes = False
    bounds: ClassVar[Mapping[str, int]] = {
        "max_matches": MAX_MATCHES,
        "max_text_bytes": MAX_TEXT_BYTES,
        "max_line_bytes": MAX_LINE_BYTES,
    }

    async def call(self, arguments: GrepSearchArguments, bench: Bench, *, call_id: str) -> Answer:
        query = GrepQuery(
            pattern=arguments.pattern,
            path=arguments.path,
            literal=arguments.literal,
            ignore_case=arguments.ignore_case,
            globs=arguments.globs,
            include_ignored=arguments.include_ignored,
            context=arguments.context,
            max_matches=MAX_MATCHES,
            max_bytes=MAX_TEXT_BYTES,
            max_line_bytes=MAX_LINE_BYTES,
            timeout_s=GREP_TIMEOUT_S,
        )
        return Answer(content=_found(await bench.executor.grep(query)))


_TRUNCATED = {
    "matches": f"[Stopped after {MAX_MATCHES} matches",
    "bytes": f"[Stopped after {MAX_TEXT_BYTES} bytes",
    "time": f"[Stopped after {GREP_TIMEOUT_S} s",
}


def _found(result: GrepResult) -> str:
    shown: list[str] = []
    room = MAX_TEXT_BYTES
    for path, lines in groupby(result.lines, key=lambda line: line.path):
        shown.append(shown_path(path))
        room -= len(shown[-1])
        shown += [_line(line) for line in lines]
        if room <= 0:  # many files with long names
            shown.append(f"{_TRUNCATED['bytes']} of names: narrow the search by path, globs or pattern.]")
            break
    if not shown:
        shown.append("No line matches.")
    if result.truncated is not None:
        why = _TRUNCATED.get(result.truncated, "[Stopped early")
        shown.append(f"{why}; there may be more: narrow the search by path, globs or pattern.]")
    if result.errors:
        some = "; ".join(shown_path(error[:MAX_ERROR_CHARS]) for error in result.errors[:MAX_ERRORS])
        shown.append(f"[{len(result.errors)} files or directories could not be read: {some}]")
    return "\n".join(shown)


def _line(line: GrepLine) -> str:
    mark = ":" if line.is_match else "-"
    return f"{line.number}{mark} {shown_text(line.text)}{' … [cut]' if line.cut else ''}"


class FileSearchArguments(Arguments):
    query: str = Field(description="Characters of the path, in order; empty for every path.")
    path: str = Field(default=".", description="The directory to search in.")


class FileSearch(DescribedTool[FileSearchArguments]):
    name = "file_search"
    arguments = FileSearchArguments
    changes = False
    bounds: ClassVar[Mapping[str, int]] = {"max_files": MAX_FILES, "max_text_bytes": MAX_TEXT_BYTES}

    async def call(self, arguments: FileSearchArguments, bench: Bench, *, call_id: str) -> Answer:
        result = await bench.executor.search_files(arguments.query, path=arguments.path, limit=MAX_FILES)
        if not result.matches:
            return Answer(content=f"None of {result.searched} paths matches. list_dir shows ignored files too.")
        lines: list[str] = []
        room = MAX_TEXT_BYTES
        for match in result.matches:
            lines.append(shown_path(match.path))
            room -= len(lines[-1])
            if room <= 0:  # long names
                break
        if result.truncated or len(lines) < len(result.matches):
            lines.append("[There are more: give more of the name, or a path.]")
        return Answer(content="\n".join(lines))
