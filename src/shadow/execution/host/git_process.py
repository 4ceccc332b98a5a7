"""Running git: what of a repository's settings it must not obey, bounded output, a deadline, and no process left at the end.

git runs as a hidden command of the holder: below a subreaper, so that a hung filter's whole tree can be ended, and so that a
commit that is under way comes to its end where the sidecar dies. Knows nothing of what the output means.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shadow.core.commands import Channel, Command, CommandSpec, Exited, Gap, Overflow, StdinMode
from shadow.core.errors import Broken, Conflict, LimitExceeded, NotFound, ShadowError, Unsupported
from shadow.execution.host.commands import HostCommands
from shadow.execution.streams import closing

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
MAX_STDERR_BYTES = 16 * 1024
LOG_LIMIT_BYTES = 4 * 1024 * 1024
GRACE_S = 1.0
"""After SIGTERM git removes its lock files."""
BACKSTOP_S = 10.0
"""How long after our own deadline the holder ends a git whose sidecar is gone."""

SETTINGS: Mapping[str, str] = {
    # Programs
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "",  # "false" would be the name of a program to git before 2.36
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "false",
    "core.alternateRefsCommand": "",
    "credential.helper": "",
    "gpg.program": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "log.showSignature": "false",
    "diff.external": "",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # What is read and written
    "core.bare": "false",
    "core.excludesFile": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.splitIndex": "false",
    "core.safecrlf": "false",
    "commit.template": "/dev/null",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "user.useConfigOnly": "true",
    "checkout.guess": "false",
    # How it is shown
    "color.ui": "false",
    "core.quotePath": "false",
    "diff.orderFile": "/dev/null",
    "diff.renames": "true",
    "diff.renameLimit": "1000",
    "diff.ignoreSubmodules": "dirty",  # no git is run in them
    "diff.submodule": "short",
    "diff.suppressBlankEmpty": "false",
    "diff.interHunkContext": "0",
    "status.renames": "true",
    "status.showStash": "false",
    "status.submoduleSummary": "false",
    "log.mailmap": "false",
}
"""On git's command line, where no configuration file outranks them."""

ENVIRONMENT: Mapping[str, str] = {
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null",
    # A partial clone would fetch what it lacks, by whatever its remote names.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "GIT_OPTIONAL_LOCKS": "0",
}

# Only these of the workspace's own variables reach git: none of its GIT_… do, whatever they are called.
_CLEAN = 'exec env -i HOME="$HOME" PATH="$PATH" TMPDIR="${TMPDIR:-/tmp}" "$@"'
_NO_PROGRAM = 127
_MEND = "Install git (the package 'git') where the workspace runs."


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOutput:
    code: int
    """-1 where it was ended by a signal, or by us because there was too much output."""
    stdout: bytes
    stderr: bytes
    """Its first 16 KiB."""
    truncated: bool
    """Whether stdout was cut at the limit; then git was ended."""


class Deadline:
    """The end of a call, however many runs of git it takes."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.at = asyncio.get_running_loop().time() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.001, self.at - asyncio.get_running_loop().time())

    def over(self) -> LimitExceeded:
        return LimitExceeded(
            f"git did not finish within {self.timeout_s:g} s and was ended, with everything it had started.",
            mend="Allow it more time, or look whether a content filter of the repository hangs.",
            details={"limit": "time", "timeout_s": self.timeout_s},
        )


class GitRunner:
    """Runs git in directories below the root. ``program`` is looked up in the workspace's own ``PATH``."""

    def __init__(self, commands: HostCommands, *, program: str = "git") -> None:
        self._commands = commands
        self._program = program

    async def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        deadline: Deadline,
        stdin: bytes = b"",
        limit_bytes: int = MAX_OUTPUT_BYTES,
        script: Sequence[str] = (),
    ) -> GitOutput:
        """``script``: a constant of the shell's language that runs git as ``"$@"``, and what comes before that: several steps for
        the price of one. Raises: LimitExceeded (time), Unsupported, NotFound (``cwd``).
        """
        try:
            async with asyncio.timeout_at(deadline.at):
                spec = self._spec(arguments, script, cwd=cwd, env=env, with_stdin=bool(stdin), deadline=deadline)
                async with self._started(spec) as command:
                    feeding = asyncio.create_task(self._feed(command, stdin)) if stdin else None
                    try:
                        return await self._collect(command, limit_bytes=limit_bytes)
                    finally:
                        if feeding is not None:
                            feeding.cancel()
                            with suppress(asyncio.CancelledError):
                                await feeding
        except TimeoutError:
            raise deadline.over() from None

    def _spec(
        self,
        arguments: Sequence[str],
        script: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        with_stdin: bool,
        deadline: Deadline,
    ) -> CommandSpec:
        shell = ("sh", "-c", script[0], "sh", *script[1:]) if script else ()
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **env}.items()]
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return CommandSpec(
            argv=("sh", "-c", _CLEAN, "sh", *variables, *shell, self._program, "--no-pager", *settings, *arguments),
            cwd=cwd,
            stdin=StdinMode.OPEN if with_stdin else StdinMode.CLOSED,
            timeout_s=deadline.left_s + BACKSTOP_S,
            log_limit_bytes=LOG_LIMIT_BYTES,
            overflow=Overflow.WAIT,
        )

    @asynccontextmanager
    async def _started(self, spec: CommandSpec) -> AsyncGenerator[Command]:
        starting = asyncio.ensure_future(self._commands.start_hidden(spec))
        try:
            command = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(ShadowError):  # it did not start: nothing is left
                await self._commands.forget((await starting).id, grace_s=0.0)
            raise
        try:
            yield command
        finally:
            # Also where it has ended: a filter may have left something that runs on.
            ending = asyncio.ensure_future(self._commands.forget(command.id, grace_s=GRACE_S))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending
                raise

    async def _feed(self, command: Command, data: bytes) -> None:
        with suppress(Conflict, NotFound):  # git ended without reading all of it: its exit code says why
            await self._commands.write_stdin(command.id, data, offset=None, close=True)

    async def _collect(self, command: Command, *, limit_bytes: int) -> GitOutput:
        kept = {Channel.STDOUT: bytearray(), Channel.STDERR: bytearray()}
        limits = {Channel.STDOUT: limit_bytes, Channel.STDERR: MAX_STDERR_BYTES}
        truncated = False
        async with closing(self._commands.read_output(command.id, after=0, follow=True)) as output:
            async for piece in output:
                if isinstance(piece, Gap):
                    raise Broken("The output of git was lost before it was read.")
                room = limits[piece.channel] - len(kept[piece.channel])
                kept[piece.channel] += piece.data[:room]
                if piece.channel is Channel.STDOUT and len(piece.data) > room:
                    truncated = True
                    break
        code = -1
        if not truncated:
            ending = (await self._commands.wait(command.id, timeout_s=None)).ending
            code = ending.code if isinstance(ending, Exited) else -1
            if code == _NO_PROGRAM and kept[Channel.STDERR].startswith((b"env:", b"sh:")):
                raise Unsupported("git is not installed in the workspace.", mend=_MEND, details={"capability": "git"})
        return GitOutput(
            code=code,
            stdout=bytes(kept[Channel.STDOUT]),
            stderr=bytes(kept[Channel.STDERR]),
            truncated=truncated,
        )


def encode_list(paths: Sequence[str]) -> bytes:
    """For ``--pathspec-from-file=- --pathspec-file-nul``."""
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
