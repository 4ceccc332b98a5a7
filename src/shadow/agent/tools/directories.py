"""What is in a directory."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.described import Arguments, DescribedTool
from shadow.agent.tools.shown import shown_path
from shadow.core.files import FileKind, FileStat

MAX_ENTRIES = 500
MAX_CHARS = 32 * 1024


class ListDirArguments(Arguments):
    path: str = Field(default=".", description="Relative to the workspace's root.")
    after: str | None = Field(default=None, description="Go on behind this entry.")


class ListDir(DescribedTool[ListDirArguments]):
    name = "list_dir"
    arguments = ListDirArguments
    changes = False
    bounds: ClassVar[Mapping[str, int]] = {"max_entries": MAX_ENTRIES, "max_chars": MAX_CHARS}

    async def call(self, arguments: ListDirArguments, bench: Bench, *, call_id: str) -> Answer:
        listing = await bench.executor.list_directory(arguments.path, after=arguments.after, limit=MAX_ENTRIES)
        if not listing.entries:
            return Answer(content=f"{shown_path(arguments.path)} has no {'more ' if arguments.after else ''}entries.")
        lines: list[str] = []
        after, room = listing.next_after, MAX_CHARS
        for entry in listing.entries:
            lines.append(_line(entry))
            room -= len(lines[-1])
            if room <= 0 and entry is not listing.entries[-1]:  # long names
                after = entry.path
                break
        if after is not None:
            lines.append(f"[There is more: go on with after={shown_path(after)}.]")
        return Answer(content="\n".join(lines))


def _line(entry: FileStat) -> str:
    name = shown_path(entry.path)
    match entry.kind:
        case FileKind.DIRECTORY:
            return f"{name}/"
        case FileKind.SYMLINK:
            return f"{name} -> {shown_path(entry.target or '')}"
        case FileKind.FILE:
            return f"{name}  {entry.size_bytes} bytes"
        case FileKind.OTHER:
            return f"{name}  (a pipe, a socket or a device)"
