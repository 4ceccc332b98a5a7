"""Reading, writing and removing single files."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.described import Arguments, DescribedTool
from shadow.agent.tools.shown import shown_path, shown_text
from shadow.core.errors import EmptySearch, IdenticalReplacement, Rejected, TextNotFound, TextNotUnique
from shadow.core.files import FileLines
from shadow.execution.interface import ToolExecutor

MAX_LINES = 2000
MAX_LINE_CHARS = 2000
MAX_PAGE_BYTES = 64 * 1024
BINARY_LOOK_BYTES = 8192
NEAR_LOOK_BYTES = 4 * 1024 * 1024
MAX_NEAR_LINES = 10

PATH = "Relative to the workspace's root."


class ReadFileArguments(Arguments):
    path: str = Field(description=PATH)
    first_line: int = Field(default=1, ge=1, description="Counted from 1.")
    max_lines: int = Field(default=MAX_LINES, ge=1, le=MAX_LINES)


class ReadFile(DescribedTool[ReadFileArguments]):
    name = "read_file"
    arguments = ReadFileArguments
    changes = False
    bounds: ClassVar[Mapping[str, int]] = {
        "max_lines": MAX_LINES,
        "max_page_bytes": MAX_PAGE_BYTES,
        "max_line_chars": MAX_LINE_CHARS,
    }

    async def call(self, arguments: ReadFileArguments, bench: Bench, *, call_id: str) -> Answer:
        first = arguments.first_line
        page = await bench.executor.read_lines(
            arguments.path, first=first, last=first + arguments.max_lines - 1, limit_bytes=MAX_PAGE_BYTES
        )
        name = shown_path(page.path)
        if b"\0" in page.content[:BINARY_LOOK_BYTES]:
            return await _binary(bench.executor, arguments.path, name)
        if not page.total:
            return Answer(content=f"{name} is empty.")
        if first > page.total:
            return Answer(content=f"{name} has only {page.total} lines; first_line was {first}.", is_error=True)
        return Answer(content=_numbered(page, name))


async def _binary(executor: ToolExecutor, path: str, name: str) -> Answer:
    start = await executor.read_file(path, limit_bytes=16)
    return Answer(
        content=f"{name} is binary: {start.size_bytes} bytes, beginning with {start.content.hex(' ')}. "
        "Look at it with run_terminal_cmd: file, xxd, or iconv where it is text in UTF-16.",
        is_error=True,
    )


def _numbered(page: FileLines, name: str) -> str:
    """A page whose last line was cut in the middle ends before it, unless it is longer than any line is shown."""
    lines = page.content.removesuffix(b"\n").split(b"\n")
    cut_short = page.truncated and not page.content.endswith(b"\n")
    if cut_short and len(lines) > 1 and len(lines[-1]) <= 4 * MAX_LINE_CHARS:
        lines.pop()
        cut_short = False
    last = page.first + len(lines) - 1
    of_crlf = sum(line.endswith(b"\r") for line in lines)
    overlong: list[int] = []
    shown: list[str] = []
    for number, line in enumerate(lines, page.first):
        text = shown_text(line.removesuffix(b"\r") if of_crlf == len(lines) else line)
        if len(text) > MAX_LINE_CHARS or (cut_short and number == last):
            overlong.append(number)
            text = f"{text[:MAX_LINE_CHARS]} … [cut]"
        shown.append(f"{number}\t{text}")
    where = f"{name}, lines {page.first} to {last} of {page.total}"
    notes = ["CRLF line ends"] if of_crlf and of_crlf == len(lines) else []
    if "\ufffd" in "".join(shown):
        notes.append("� stands for bytes that are not UTF-8")
    head = f"{where} ({'; '.join(notes)}):" if notes else f"{where}:"
    tail: list[str] = []
    if overlong:
        some = ", ".join(map(str, overlong[:10])) + (", …" if len(overlong) > 10 else "")
        tail.append(
            f"[Lines cut after {MAX_LINE_CHARS} characters: {some}. More of one: run_terminal_cmd with "
            f"sed -n {overlong[0]}p FILE | cut -c {MAX_LINE_CHARS + 1}-{2 * MAX_LINE_CHARS}]"
        )
    if last < page.total:
        tail.append(f"[There is more: go on with first_line={last + 1}.]")
    return "\n".join([head, *shown, *tail])


class EditFileArguments(Arguments):
    path: str = Field(description=PATH)
    content: str = Field(description="The whole new content.")


class EditFile(DescribedTool[EditFileArguments]):
    name = "edit_file"
    arguments = EditFileArguments

    async def call(self, arguments: EditFileArguments, bench: Bench, *, call_id: str) -> Answer:
        try:
            content = arguments.content.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise Rejected("The content holds half a character.", mend="Write it again as whole characters.") from error
        written = await bench.executor.write_file(arguments.path, content, operation=bench.operation(call_id))
        lines = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
        return Answer(content=f"Wrote {shown_path(written.path)}: {lines} lines, {len(content)} bytes.")


class SearchReplaceArguments(Arguments):
    path: str = Field(description=PATH)
    old: str = Field(description="The text as it stands in the file, without line numbers; it must occur once.")
    new: str = Field(description="What to put in its place.")


class SearchReplace(DescribedTool[SearchReplaceArguments]):
    name = "search_replace"
    arguments = SearchReplaceArguments

    async def call(self, arguments: SearchReplaceArguments, bench: Bench, *, call_id: str) -> Answer:
        try:
            done = await bench.executor.search_replace(
                arguments.path, old=arguments.old, new=arguments.new, operation=bench.operation(call_id)
            )
        except EmptySearch as error:
            return _refused(f"{error.message} Put the text that is there now into `old`; edit_file writes a new file.")
        except IdenticalReplacement as error:
            return _refused(f"{error.message} Put the text that you want into `new`.")
        except TextNotUnique as error:
            return _refused(f"{error.message} Put more of the lines around the one that you mean into `old` and `new`.")
        except TextNotFound as error:
            return _refused(f"{error} {await _near(bench.executor, arguments)}".strip())
        before, after = arguments.old.count("\n"), arguments.new.count("\n")
        return Answer(
            content=f"Replaced {_lines(done.line, before)} of {shown_path(done.path)}; now {_lines(done.line, after)}."
        )


def _refused(content: str) -> Answer:
    return Answer(content=f"Nothing was changed. {content}", is_error=True)


def _lines(first: int, breaks: int) -> str:
    return f"lines {first} to {first + breaks}" if breaks else f"line {first}"


async def _near(executor: ToolExecutor, arguments: SearchReplaceArguments) -> str:
    """Where the first line that was looked for stands, white space aside."""
    wanted = next((line.strip() for line in arguments.old.splitlines() if line.strip()), "")
    if not wanted:
        return ""
    sought = wanted.encode("utf-8", "replace")
    content = (await executor.read_file(arguments.path, limit_bytes=NEAR_LOOK_BYTES)).content
    found = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip() == sought]
    if not found:
        return "Its first line is nowhere in the file."
    some = ", ".join(map(str, found[:MAX_NEAR_LINES])) + (", …" if len(found) > MAX_NEAR_LINES else "")
    return f"Its first line stands on line {some}, perhaps with other white space; what follows there differs."


class DeleteFileArguments(Arguments):
    path: str = Field(description=PATH)


class DeleteFile(DescribedTool[DeleteFileArguments]):
    name = "delete_file"
    arguments = DeleteFileArguments

    async def call(self, arguments: DeleteFileArguments, bench: Bench, *, call_id: str) -> Answer:
        await bench.executor.delete(arguments.path, operation=bench.operation(call_id))
        return Answer(content=f"Deleted {shown_path(arguments.path)}.")
