"""Hostile servers of large files: they lead nowhere, learn nothing, and cannot keep or fill the control plane."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadow.core.egress import parse_rules
from shadow.core.errors import Denied, LimitExceeded, NotFound, ShadowError
from shadow.core.repositories import RemoteRepository, parse_repository
from shadow.scm import lfs_batch
from shadow.scm.access import guard_policy, to_remote
from shadow.scm.failures import CredentialsWanted, RemoteUnreachable, UnsoundRepository
from shadow.scm.lfs_batch import MAX_ANSWER_BYTES, Patience, fetch
from shadow.scm.lfs_http import MAX_REDIRECTS
from shadow.scm.pointers import Pointer, parse_pointer
from tests.support.git_servers import GitServer, http_server, ssh_server

pytestmark = pytest.mark.anyio

LARGE = os.urandom(100_000)
IMPATIENT = Patience(silence_s=0.5, answer_s=1.0, lowest_bytes_s=1e9)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with http_server(tmp_path / "served") as running:
        yield running


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "elsewhere").mkdir()
    with http_server(tmp_path / "elsewhere") as running:
        yield running


class Trap:
    """Something that listens on this host and must never be connected to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]

    @property
    def is_untouched(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.socket.close()


async def bring(
    address: str, mirror: Path, *pointers: Pointer, egress: str = "", patience: Patience | None = None
) -> None:
    repository = parse_repository(address, local_user=True)
    assert isinstance(repository, RemoteRepository)
    rules = parse_rules(filter(None, [egress]))
    policy = guard_policy(repository, trusted=True, rules=rules, limit_bytes=1 << 30)
    async with to_remote(
        repository, users_means=False, credential=repository.credential, policy=policy, proxy=None, about="Fetching"
    ) as access:
        await fetch(access, pointers, mirror=mirror, patience=patience)


async def refused(address: str, mirror: Path, *pointers: Pointer, **options: Any) -> ShadowError:
    with pytest.raises(ShadowError) as caught:
        await bring(address, mirror, *pointers, **options)
    assert caught.value.mend
    assert not [path for path in mirror.rglob("*") if path.is_file()]
    return caught.value


def large(server: GitServer) -> Pointer:
    pointer = parse_pointer(server.lfs.add(LARGE))
    assert pointer is not None
    return pointer


def answering(server: GitServer, part: str, answer: Callable[[Any], None]) -> None:
    """``answer`` is what requests get whose path has ``part``."""

    def serve(request: Any) -> bool:
        if part not in request.path:
            return False
        try:
            answer(request)
        except OSError:
            request.close_connection = True
        return True

    server.answer = serve


def redirecting(location: str) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        request.send_response(307)
        request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def saying(content: bytes) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


@pytest.mark.parametrize("way", ["href", "redirect of the question", "redirect of the file"])
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:PORT", "https://127.0.0.1:PORT", "http://localhost:PORT", "https://localhost:PORT",
        "http://127.1:PORT", "http://2130706433:PORT", "http://0.0.0.0:PORT", "http://[::1]:PORT", "http://[::ffff:127.0.0.1]:PORT",
        "http://10.0.0.1", "https://192.168.1.1", "http://169.254.169.254", "http://[fd00:ec2::254]", "http://100.100.100.200",
    ],
)  # fmt: skip
async def test_it_may_not_lead_to_addresses_that_are_not_public(
    server: GitServer, trap: Trap, tmp_path: Path, way: str, target: str
) -> None:
    pointer = large(server)
    target = target.replace("PORT", str(trap.port))
    if way == "href":
        server.lfs.href = target
    else:
        answering(server, "/objects/batch" if "question" in way else "/lfs-objects/", redirecting(f"{target}/x"))
    error = await refused(f"{server.url}/r", tmp_path / "mirror", pointer)
    assert isinstance(error, Denied | UnsoundRepository), error  # the latter: not even an address to be judged
    assert trap.is_untouched


@pytest.mark.parametrize("way", ["href", "redirect of the question", "redirect of the file"])
async def test_what_belongs_to_one_host_goes_to_no_other(
    server: GitServer, elsewhere: GitServer, tmp_path: Path, way: str
) -> None:
    pointer = large(server)
    elsewhere.lfs.add(LARGE)
    seen: list[str] = []

    def look(request: Any) -> bool:
        seen.append(str(request.headers))
        return False

    elsewhere.answer = look
    if way == "href":
        server.lfs.href = elsewhere.url
    else:
        server.lfs.headers = {"Authorization": "Basic c2VydmVyOnMzY3JldA==", "X-Token": "s3cret"}
        path = "/r.git/info/lfs/objects/batch" if "question" in way else f"/lfs-objects/{pointer.oid}"
        answering(server, path, redirecting(elsewhere.url + path))
    address = f"{server.url.replace('//', '//me:s3cret@')}/r"
    await bring(address, tmp_path / "mirror", pointer, egress="127.0.0.1:*")
    assert (tmp_path / "mirror" / pointer.name).read_bytes() == LARGE
    assert seen
    assert not any("s3cret" in text or "Authorization" in text for text in seen)
    assert server.authorizations or "question" in way


async def test_what_a_server_gives_for_its_address_is_sent_there(server: GitServer, tmp_path: Path) -> None:
    pointer = large(server)
    server.lfs.headers = {
        "Authorization": "Basic dGhlOm93bg==",
        "Host": "evil",
        "Proxy-Authorization": "Basic x",
        "X-A": "b",
    }
    seen: list[Any] = []

    def look(request: Any) -> bool:
        seen.append(request.headers)
        return False

    server.answer = look
    await bring(f"{server.url.replace('//', '//me:s3cret@')}/r", tmp_path / "mirror", pointer)
    assert server.authorizations == ["me:s3cret", "the:own"]
    assert (seen[1]["X-A"], seen[1]["Proxy-Authorization"]) == ("b", None)
    assert server.url.endswith(seen[1]["Host"])


async def test_redirects_are_bounded(server: GitServer, tmp_path: Path) -> None:
    pointer = large(server)
    for part, location in (("/objects/batch", "/objects/batch"), ("/lfs-objects/", "/lfs-objects/again")):
        server.requests.clear()
        answering(server, part, redirecting(location))
        assert isinstance(await refused(f"{server.url}/r", tmp_path / "mirror", pointer), UnsoundRepository)
        assert len([request for request in server.requests if part in request]) == MAX_REDIRECTS + 1


async def test_a_huge_answer_is_bounded(server: GitServer, tmp_path: Path) -> None:
    pointer = large(server)
    sent = 0

    def endless(request: Any) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        while sent < 1 << 30:
            sent += request.wfile.write(b" " * (1 << 20))

    answering(server, "/objects/batch", endless)
    assert isinstance(await refused(f"{server.url}/r", tmp_path / "mirror", pointer), LimitExceeded)
    assert sent < 8 * MAX_ANSWER_BYTES


@pytest.mark.parametrize("part", ["/objects/batch", "/lfs-objects/"])
@pytest.mark.parametrize("how", ["silent", "one byte at a time", "cut"])
async def test_who_keeps_us_waiting_is_left(server: GitServer, tmp_path: Path, part: str, how: str) -> None:
    pointer = large(server)
    over = threading.Event()

    def slow(request: Any) -> None:
        request.close_connection = True
        if how != "silent":
            request.send_response(200)
            request.send_header("Content-Length", str(len(LARGE)))
            request.end_headers()
        while how != "cut" and not over.wait(0.05):
            if how != "silent":
                request.wfile.write(b" ")

    answering(server, part, slow)
    try:
        error = await refused(f"{server.url}/r", tmp_path / "mirror", pointer, patience=IMPATIENT)
    finally:
        over.set()
    assert isinstance(error, RemoteUnreachable)


def action(**more: Any) -> bytes:
    return json.dumps(
        {"objects": [{"oid": "OID", "actions": {"download": {"href": "HERE/lfs-objects/OID", **more}}}]}
    ).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"transfer": "evil"}',
        b'{"objects": [{"oid": "OID", "error": {}}]}',
        action(href=None), action(href=["x"]), action(href="file:///etc/passwd"), action(href="ssh://HOST/x"),
        action(href="http://"), action(href="http://a:b@127.0.0.1/x"), action(href="http://127.0.0.1:99999/x"),
        action(href="HERE/a b"), action(href="HERE/a\r\nX: y"), action(href="HERE/" + "x" * 10_000),
        action(header=[]), action(header={"A\r\nB": "x"}), action(header={"A": "x\r\nB: y"}), action(header={"A": 1}),
        action(header={f"A{n}": "x" for n in range(100)}), action(header={"A": "x" * 20_000}),
    ],
)  # fmt: skip
async def test_nonsense_is_refused(server: GitServer, tmp_path: Path, answer: bytes) -> None:
    pointer = large(server)
    answer = answer.replace(b"OID", pointer.oid.encode()).replace(b"HERE", server.url.encode())
    answering(server, "/objects/batch", saying(answer))
    assert isinstance(await refused(f"{server.url}/r", tmp_path / "mirror", pointer), UnsoundRepository)
    assert not server.lfs.downloads


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, CredentialsWanted), (403, CredentialsWanted), (404, NotFound), (410, NotFound), (422, UnsoundRepository),
        (429, RemoteUnreachable), (500, RemoteUnreachable), (503, RemoteUnreachable), (509, RemoteUnreachable),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["object", "question", "file"])
async def test_each_failure_has_its_kind(
    server: GitServer, tmp_path: Path, code: int, kind: type[ShadowError], place: str
) -> None:
    pointer = large(server)

    def fail(request: Any) -> None:
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    if place == "object":
        content = {"objects": [{"oid": pointer.oid, "error": {"code": code, "message": "s3cret"}}]}
        answering(server, "/objects/batch", saying(json.dumps(content).encode()))
    else:
        answering(server, "/objects/batch" if place == "question" else "/lfs-objects/", fail)
    error = await refused(f"{server.url.replace('//', '//me:s3cret@')}/r", tmp_path / "mirror", pointer)
    assert type(error) is kind
    assert "s3cret" not in str(error)


async def test_what_came_before_a_failure_is_kept_and_nothing_is_asked_for_twice(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfs_batch, "BATCH", 1)
    pointer = large(server)
    missing = Pointer("0" * 64, 1)
    with pytest.raises(NotFound):
        await bring(f"{server.url}/r", tmp_path / "mirror", *[pointer] * 100, missing)
    assert (tmp_path / "mirror" / pointer.name).read_bytes() == LARGE
    assert not (tmp_path / "mirror/lfs/tmp").exists()


# By ssh


@pytest.fixture
def ssh_address(server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where ``authenticate`` (a script) answers for ``git-lfs-authenticate``."""
    (tmp_path / "programs").mkdir()
    with ssh_server(tmp_path / "ssh", programs=tmp_path / "programs") as ssh:
        if ssh is None:
            pytest.skip("sshd is not installed")
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh.command)
        yield f"ssh://127.0.0.1:{ssh.port}/a 'path"


def authenticate(tmp_path: Path, line: str) -> None:
    program = tmp_path / "programs/git-lfs-authenticate"
    program.write_text(f'#!/bin/sh\nprintf \'%s\\n\' "$#" "$@" >{tmp_path}/asked\n{line}\n')
    program.chmod(0o755)


async def test_by_ssh_the_server_names_the_place(server: GitServer, ssh_address: str, tmp_path: Path) -> None:
    pointer = large(server)
    seen: list[str | None] = []

    def look(request: Any) -> bool:
        seen.append(request.headers["Authorization"])
        return False

    server.answer = look
    answer = {"href": f"{server.url}/x.git/info/lfs", "header": {"Authorization": "Basic dDpr"}}
    authenticate(tmp_path, f"echo '{json.dumps(answer)}'")
    await bring(ssh_address, tmp_path / "mirror", pointer, egress="127.0.0.1:*")
    assert (tmp_path / "mirror" / pointer.name).read_bytes() == LARGE
    assert (tmp_path / "asked").read_text().split("\n") == ["2", "/a 'path", "download", ""]
    assert seen == ["Basic dDpr", None]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('echo \'{"href": "http://127.0.0.1:PORT/x"}\'', Denied),
        ('echo \'{"href": "http://169.254.169.254/x"}\'', Denied),
        ('echo \'{"href": "file:///etc"}\'', UnsoundRepository),
        ("echo '{}'", UnsoundRepository),
        ("echo no", UnsoundRepository),
        ("exec yes", UnsoundRepository),
        ("exec sleep 30", RemoteUnreachable),
        ("echo 'git-lfs-authenticate: not found' >&2; exit 127", NotFound),
    ],
)
async def test_by_ssh_it_may_not_lead_away_either(
    ssh_address: str, trap: Trap, tmp_path: Path, line: str, kind: type[ShadowError]
) -> None:
    authenticate(tmp_path, line.replace("PORT", str(trap.port)))
    patience = Patience(answer_s=3.0)
    assert type(await refused(ssh_address, tmp_path / "mirror", Pointer("0" * 64, 1), patience=patience)) is kind
    assert trap.is_untouched
