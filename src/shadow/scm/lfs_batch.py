"""Large files from a remote by git-lfs's batch API (its docs/api/batch.md): asked for by name and size, kept if they are that.

There is no git-lfs here: it reaches addresses of this host past any proxy. Over ssh ``git-lfs-authenticate`` names the place.
"""

import asyncio
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from shadow.core.concurrency import task_group
from shadow.core.errors import LimitExceeded, NotFound
from shadow.core.repositories import RemoteRepository, Scheme
from shadow.scm.access import Access
from shadow.scm.failures import RemoteUnreachable, UnsoundRepository
from shadow.scm.git import Progress, git
from shadow.scm.lfs_http import LfsHttp, Link, bad_answer, parse_link, status_error
from shadow.scm.pointers import Pointer

BATCH = 100
AT_ONCE = 4
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_SSH_ANSWER_BYTES = 64 * 1024
UNFINISHED = "lfs/tmp"
MAX_HEADERS = 50
MAX_HEADERS_BYTES = 16 * 1024
_TYPE = "application/vnd.git-lfs+json"
_OF_THE_HOP = re.compile(
    r"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-length|accept-encoding|range|proxy-.*",
    re.IGNORECASE,
)
"""Headers that a server may not choose for us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How slow the other side may be."""

    silence_s: float = 60.0
    answer_s: float = 120.0
    """For one answer of the batch API, and for ssh."""
    lowest_bytes_s: float = 1000.0
    """A download may take ``silence_s`` and what its size takes at this speed."""
    total_s: float = 3600.0


@dataclass(slots=True)
class _Fetch:
    http: LfsHttp
    mirror: Path
    patience: Patience
    total_bytes: int
    progress: Progress | None
    done_bytes: int = 0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


async def fetch(
    access: Access,
    pointers: Sequence[Pointer],
    *,
    mirror: Path,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> None:
    """Bring what ``pointers`` name into the store of ``mirror``; what is there already stays.

    Raises: NotFound: the other side does not have one; UnsoundRepository: it has something else, or answers nonsense;
    CredentialsWanted, RemoteUnreachable, TlsFailed, LimitExceeded; Denied: it leads where nothing may.
    """
    patience = patience or Patience()
    repository = access.remote
    assert repository is not None
    pointers = list(dict.fromkeys(pointers))
    unfinished = mirror / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # of a fetch that was killed
    unfinished.mkdir(mode=0o700, parents=True)
    try:
        async with asyncio.timeout(patience.total_s):
            server = await _find_server(access, repository, patience)
            async with LfsHttp.opened(access, repository, silence_s=patience.silence_s) as http:
                total_bytes = sum(pointer.size_bytes for pointer in pointers)
                fetching = _Fetch(http, mirror, patience, total_bytes, progress)
                for first in range(0, len(pointers), BATCH):
                    await _fetch_batch(fetching, server, pointers[first : first + BATCH])
    except TimeoutError as error:
        raise RemoteUnreachable(
            f"{access.call.about} (large files) did not end in time.", mend="Try again: what has come is kept."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


async def _find_server(access: Access, repository: RemoteRepository, patience: Patience) -> Link:
    if repository.scheme is not Scheme.SSH:
        base = repository.url.partition("?")[0].rstrip("/")
        return _batch_of(f"{base}{'' if base.endswith('.git') else '.git'}/info/lfs", {}, encrypted=False)
    destination, path = ssh_words(repository.url)
    port = ["-p", str(repository.port)] if repository.port != 22 else []
    # As git itself runs it: the user's own line of shell, and our words as its arguments.
    line = f'{access.call.env["GIT_SSH_COMMAND"]} "$@"'
    call = replace(
        access.call,
        program="sh",
        arguments=["-c", line, "ssh", *port, "--", destination, f"git-lfs-authenticate {path} download"],
        timeout_s=patience.answer_s,
        about=f"{access.call.about} (git-lfs-authenticate)",
    )
    try:
        answer = _object((await git(call, limit_bytes=MAX_SSH_ANSWER_BYTES)).stdout)
    except LimitExceeded as error:
        raise bad_answer(f"more than {MAX_SSH_ANSWER_BYTES} bytes by ssh") from error
    return _batch_of(answer.get("href"), _headers(answer.get("header")), encrypted=False)


def ssh_words(url: str) -> tuple[str, str]:
    """``USER@HOST`` and the path, fit for the shell of the other side."""
    if "://" in url:
        parts = urlsplit(url)
        path = unquote(parts.path)
        host = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
        return host, _shell_word(path.removeprefix("/") if path.startswith("/~") else path)
    found = re.fullmatch(r"((?:[^/:@]+@)?)(\[[^\]/]*\]|[^/:@]+):(.+)", url)
    assert found is not None
    return found[1] + found[2].strip("[]"), _shell_word(found[3])


def _shell_word(path: str) -> str:
    """Bare where that is enough: some servers do not unquote."""
    return path if re.fullmatch(r"[\w@%+=:,./~-]+", path, re.ASCII) else "'" + path.replace("'", "'\\''") + "'"


def _batch_of(href: object, headers: Mapping[str, str], *, encrypted: bool) -> Link:
    link = parse_link(href, headers, encrypted=encrypted)
    url = link.url.with_path(f"{link.url.raw_path.rstrip('/')}/objects/batch", encoded=True)
    return Link(url=url, headers={**headers, "Accept": _TYPE, "Content-Type": _TYPE})


async def _fetch_batch(fetching: _Fetch, server: Link, pointers: Sequence[Pointer]) -> None:
    question = {
        "operation": "download",
        "transfers": ["basic"],
        "hash_algo": "sha256",
        "objects": [{"oid": pointer.oid, "size": pointer.size_bytes} for pointer in pointers],
    }
    async with asyncio.timeout(fetching.patience.answer_s):
        answer = await fetching.http.post(server, json.dumps(question).encode(), limit_bytes=MAX_ANSWER_BYTES)
    links = read_answer(answer, pointers, encrypted=server.url.scheme == "https")
    async with task_group() as downloads:
        for pointer, link in zip(pointers, links, strict=True):
            downloads.create_task(_download(fetching, pointer, link))


def read_answer(answer: bytes, pointers: Sequence[Pointer], *, encrypted: bool) -> Sequence[Link]:
    """Where each of ``pointers`` is. Raises: what its server says of one, UnsoundRepository."""
    content = _object(answer)
    if content.get("transfer", "basic") != "basic":
        raise bad_answer("a way of transfer that was not asked for")
    listed = content.get("objects")
    described: dict[object, Mapping[str, Any]] = {}
    for each in cast(list[Any], listed) if isinstance(listed, list) else []:
        if isinstance(each, dict) and isinstance(oid := cast(dict[str, Any], each).get("oid"), str):
            described[oid] = cast(dict[str, Any], each)
    return [_link(described.get(pointer.oid, {}), pointer, encrypted=encrypted) for pointer in pointers]


def _link(described: Mapping[str, Any], pointer: Pointer, *, encrypted: bool) -> Link:
    match described:
        case {"error": {"code": int(code)}}:
            raise status_error(code, f"Asking for the large file {pointer.oid}")
        case {"error": _}:
            raise bad_answer(f"an error without a code for {pointer.oid}")
        case {"actions": {"download": {"href": href, **rest}}}:
            return parse_link(href, _headers(cast(dict[str, Any], rest).get("header")), encrypted=encrypted)
        case _:
            raise NotFound(
                f"The server does not say where the large file {pointer.oid} is.",
                mend="Run `git lfs push --all` there.",
            )


def _object(answer: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise bad_answer("something that is not JSON") from error
    if not isinstance(content, dict):
        raise bad_answer("JSON that is no object")
    return cast(dict[str, Any], content)


def _headers(given: object) -> Mapping[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise bad_answer("headers that are none")
    headers: dict[str, str] = {}
    for name, value in cast(dict[str, Any], given).items():
        if (
            not re.fullmatch(r"[A-Za-z0-9-]+", name)
            or not isinstance(value, str)
            or not re.fullmatch(r"[\x20-\x7e]*", value)
        ):
            raise bad_answer("headers that are none")
        if not _OF_THE_HOP.fullmatch(name):
            headers[name] = value
    if len(headers) > MAX_HEADERS or sum(map(len, [*headers, *headers.values()])) > MAX_HEADERS_BYTES:
        raise bad_answer("too many headers")
    return headers


async def _download(fetching: _Fetch, pointer: Pointer, link: Link) -> None:
    patience = fetching.patience
    new = fetching.mirror / UNFINISHED / pointer.oid
    async with fetching.slots:
        async with asyncio.timeout(patience.silence_s + pointer.size_bytes / patience.lowest_bytes_s):
            await _receive(fetching, pointer, link, new)
        place = fetching.mirror / pointer.name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.rename(place)
    if fetching.progress is not None:
        fetching.progress(f"Large files: {100 * fetching.done_bytes // max(1, fetching.total_bytes)}%")


async def _receive(fetching: _Fetch, pointer: Pointer, link: Link, new: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    async with fetching.http.get(link) as response:
        if response.content_length not in (None, pointer.size_bytes):
            raise _other(pointer)
        with _within_the_disk(), new.open("wb") as file:
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > pointer.size_bytes:
                    raise _other(pointer)
                digest.update(piece)
                file.write(piece)
                fetching.done_bytes += len(piece)
    if size != pointer.size_bytes or digest.hexdigest() != pointer.oid:
        raise _other(pointer)


@contextmanager
def _within_the_disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise LimitExceeded(
            "The disk has no room for the large files.", mend="Make room on the disk, or leave --lfs away."
        ) from error


def _other(pointer: Pointer) -> UnsoundRepository:
    return UnsoundRepository(
        f"The server sent something else than the pointer of the large file {pointer.oid} says.",
        mend="Run `git lfs push --all` to it, or leave --lfs away.",
    )
