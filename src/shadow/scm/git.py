"""Running git for the control plane: in directories that are ours, in an environment that is ours, always to an end.

Nothing here runs in a checkout. What git is told by configuration files of others is cut off: system and user configuration
(unless the user's own is wanted, to reach a remote), hooks, maintenance in the background, prompts, and every protocol but
those that the call names.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shadow.core.concurrency import task_group
from shadow.core.errors import LimitExceeded, Unsupported
from shadow.scm.failures import failure

MAX_STDERR_BYTES = 64 * 1024
MAX_STDOUT_BYTES = 64 * 1024 * 1024
QUICK_S = 120.0
SLOW_S = 3600.0
PIECE_BYTES = 256 * 1024

ALWAYS: Sequence[str] = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.askPass=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "push.gpgSign=false",
    "advice.detachedHead=false",
)

Progress = Callable[[str], None]
"""Told each line that git says of its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Whose rights git runs with."""

    prefix: Sequence[str] = ()
    """Words before git: what drops from root to somebody else."""

    @staticmethod
    def as_owner_of(path: Path) -> "Runner":
        """As root, with the rights of the owner; otherwise with our own. Raises: OSError."""
        owner = path.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return Runner()
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise Unsupported(
                f"{path} belongs to another user (uid {owner.st_uid}), and setpriv is not there to act as that user.",
                mend="Install util-linux, or run Shadow as the owner.",
            )
        ids = (f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--no-new-privs")
        return Runner(prefix=(setpriv, *ids, "--"))


AUTHORITIES = ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that say whose certificates count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of git, or of what git would call."""

    program: str = "git"
    arguments: Sequence[str]
    directory: Path | None = None
    """The repository (``GIT_DIR``); ``None`` where the call names none."""
    config: Sequence[str] = field(default=(), repr=False)
    """``name=value``; later ones win. The address of a proxy may hold a credential."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    protocols: Sequence[str] = ()
    """What it may speak to others; nothing by default."""
    users_config: bool = False
    """Read the configuration of the user who runs Shadow: proxies, certificates, credential helpers."""
    runner: Runner = field(default_factory=Runner)
    timeout_s: float = QUICK_S
    memory_bytes: int | None = None
    """Address space that git may take at most: for what somebody hostile can make it hold in memory."""
    pass_fds: Sequence[int] = ()
    about: str = "git"
    """What it is for, in messages: "Fetching https://…"."""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    stdout: bytes
    stderr: str


def environment(call: Call) -> dict[str, str]:
    """The whole environment of a call."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(call.protocols) or "none",
        "GIT_AUTHOR_NAME": "Shadow",
        "GIT_AUTHOR_EMAIL": "shadow@localhost",
        "GIT_COMMITTER_NAME": "Shadow",
        "GIT_COMMITTER_EMAIL": "shadow@localhost",
    }
    if call.users_config:
        kept = (
            "HOME",
            "XDG_CONFIG_HOME",
            "SSH_AUTH_SOCK",
            "USER",
            "LOGNAME",
            *AUTHORITIES,
        )
        env |= {name: os.environ[name] for name in kept if name in os.environ}
    else:
        env |= {"HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    if call.directory is not None:
        env["GIT_DIR"] = str(call.directory)
    settings = [*ALWAYS, *(f"protocol.{protocol}.allow=always" for protocol in call.protocols), *call.config]
    env["GIT_CONFIG_COUNT"] = str(len(settings))
    for index, setting in enumerate(settings):
        env[f"GIT_CONFIG_KEY_{index}"], _, env[f"GIT_CONFIG_VALUE_{index}"] = setting.partition("=")
    return env | dict(call.env)


async def git(
    call: Call,
    *,
    stdin: bytes | AsyncIterable[bytes] | int = b"",
    stdout: int | None = None,
    limit_bytes: int = MAX_STDOUT_BYTES,
    check: bool = True,
    progress: Progress | None = None,
) -> Done:
    """Run to the end. ``stdin`` and ``stdout`` may be descriptors, which stay the caller's.

    Raises: what ``failure`` makes of an exit code other than 0, where ``check``; Unavailable: not in time;
    LimitExceeded: more than ``limit_bytes`` of output.
    """
    given_fd = stdin if isinstance(stdin, int) else None
    try:
        process = await asyncio.create_subprocess_exec(
            *_limited(call),
            *call.runner.prefix,
            call.program,
            *call.arguments,
            stdin=asyncio.subprocess.PIPE if given_fd is None else given_fd,
            stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
            stderr=asyncio.subprocess.PIPE,
            env=environment(call),
            cwd="/",
            pass_fds=call.pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Unsupported("git is not installed.", mend="Install it, e.g. 'apt-get install git'.") from error
    try:
        async with asyncio.timeout(call.timeout_s), task_group() as tasks:
            out = tasks.create_task(_read(process.stdout, limit_bytes)) if process.stdout else None
            err = tasks.create_task(_read_errors(process.stderr, progress))
            if not isinstance(stdin, int):
                tasks.create_task(_feed(process.stdin, stdin))
            code = await process.wait()
    except TimeoutError as error:
        raise failure(call.about, f"no end after {call.timeout_s:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it left behind
        await process.wait()
    done = Done(code, out.result() if out else b"", err.result())
    if check and code != 0:
        raise failure(call.about, done.stderr or f"git ended with code {code}")
    return done


def _limited(call: Call) -> Sequence[str]:
    """Words before everything else that set the limit first: git's children would not have what is set while it runs."""
    return (
        ()
        if call.memory_bytes is None
        else ("/bin/sh", "-c", f'ulimit -v {call.memory_bytes // 1024} && exec "$@"', "sh")
    )


async def _read(stream: asyncio.StreamReader, limit_bytes: int) -> bytes:
    data = bytearray()
    while piece := await stream.read(PIECE_BYTES):
        data += piece
        if len(data) > limit_bytes:
            raise LimitExceeded(f"git had more to say than {limit_bytes} bytes.")
    return bytes(data)


async def _read_errors(stream: asyncio.StreamReader | None, progress: Progress | None) -> str:
    """The last part of it; progress lines are told and forgotten."""
    assert stream is not None
    kept = bytearray()
    while piece := await stream.read(PIECE_BYTES):
        kept += piece
        if progress is not None:
            for line in piece.replace(b"\r", b"\n").split(b"\n"):
                if b"%" in line:
                    progress(line.decode(errors="replace").strip())
        del kept[:-MAX_STDERR_BYTES]
    lines = [line.rstrip(b"\r").rsplit(b"\r", 1)[-1] for line in bytes(kept).split(b"\n")]
    return b"\n".join(lines).decode(errors="replace").strip()


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | AsyncIterable[bytes]) -> None:
    assert stream is not None
    try:
        if isinstance(data, bytes):
            stream.write(data)
            await stream.drain()
        else:
            async for piece in data:
                stream.write(piece)
                await stream.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it ended early; its exit code says why
    finally:
        stream.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await stream.wait_closed()
