"""Hostile submodules and large files: they open no path of this host, carry no credential away and run nothing outside."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.core.egress import parse_rules
from shadow.core.errors import LimitExceeded, NotFound, Rejected, ShadowError
from shadow.core.repositories import parse_repository
from shadow.scm.failures import CredentialsWanted, UnsoundRepository
from shadow.scm.repositories import Repositories
from shadow.scm.submodules import MAX_DEPTH, MAX_MODULES
from tests.support.git_servers import GitServer, commit, git, http_server, make_repository
from tests.support.hostile import arm, ran
from tests.support.lfs_server import pointer
from tests.support.scm import clone, repositories, sh

pytestmark = pytest.mark.anyio

needs_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
SECRET = b"the secret of this host, which nobody who wrote a repository may read\n"


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "served").mkdir()
    with http_server(tmp_path / "served") as running:
        yield running


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[GitServer]:
    """Another host, as far as credentials go: another port, and it wants one."""
    make_repository(tmp_path / "elsewhere/child")
    with http_server(tmp_path / "elsewhere") as running:
        yield running


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    program = tmp_path / "canary"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary.ran\nexit 0\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "private", {"secret": SECRET})


def link(parent: Path, pinned: str, modules: str, *, path: str = "sub") -> None:
    """Commit a submodule at ``path`` and a ``.gitmodules``, whatever git thinks of them."""
    (parent / ".gitmodules").write_text(modules)
    git(parent, "add", ".gitmodules")
    git(parent, "update-index", "--add", "--cacheinfo", f"160000,{pinned},{path}")
    git(parent, "commit", "--quiet", "-m", "link")


def section(name: str, path: str, url: str) -> str:
    return f'[submodule "{name}"]\n\tpath = "{path}"\n\turl = "{url}"\n'


async def refused(repos: Repositories, address: str | Path, **options: bool) -> ShadowError:
    with pytest.raises(ShadowError) as caught:
        async with repos.opened(parse_repository(str(address), local_user=True), **options):
            pass
    assert caught.value.mend
    return caught.value


def holds_secret(directory: Path) -> bool:
    """Whether a repository below has an object or a file with the secret."""
    blob = hashlib.sha1(b"blob %d\0" % len(SECRET) + SECRET).hexdigest()
    for mirror in directory.glob("mirrors/*/"):
        if (mirror / "HEAD").exists():
            done = subprocess.run(["git", "-C", mirror, "cat-file", "-e", blob], capture_output=True, check=False)
            if done.returncode == 0:
                return True
    return any(path.is_file() and SECRET in path.read_bytes() for path in directory.rglob("*"))


@pytest.mark.parametrize("parent", ["remote", "local"])
@pytest.mark.parametrize(
    "url",
    [
        "{private}", "file://{private}", "../../private", "../../../../../../../..{private}", "ext::{canary}", "-u{canary}",
        "--upload-pack={canary}", "ssh://-oProxyCommand={canary}/x", "http://192.0.2.1/x", "{private}/.git", "./../private",
    ],
)  # fmt: skip
async def test_an_address_opens_no_path_and_runs_nothing(
    repos: Repositories, server: GitServer, private: Path, canary: Path, tmp_path: Path, parent: str, url: str
) -> None:
    top = make_repository(server.root / "top")
    address = url.format(private=private, canary=canary)
    link(top, git(private, "rev-parse", "HEAD"), section("sub", "sub", address))
    await refused(repos, top if parent == "local" else f"{server.url}/top", submodules=True)
    assert not ran(canary)
    assert not holds_secret(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../x", "sub"),
        ("..", "sub"),
        ("a/../../x", "sub"),
        ("-x", "sub"),
        (".git", "sub"),
        ("/x", "sub"),
        ("x", "-sub"),
    ],
)
async def test_names_and_paths_that_lead_elsewhere(
    repos: Repositories, server: GitServer, tmp_path: Path, name: str, path: str
) -> None:
    child = make_repository(server.root / "child")
    top = make_repository(server.root / "top")
    link(top, git(child, "rev-parse", "HEAD"), section(name, path, "../child"), path=path)
    assert isinstance(await refused(repos, f"{server.url}/top", submodules=True), UnsoundRepository)


async def test_odd_names_are_names_and_nothing_else(
    repos: Repositories, server: GitServer, canary: Path, tmp_path: Path
) -> None:
    """They end up in files of configuration and in pointers that git reads inside."""
    child = make_repository(server.root / "child")
    pinned = git(child, "rev-parse", "HEAD")
    top = make_repository(server.root / "top")
    names = ['q"]x', "back\\slash", "sp ace", "ümlaut", "a=b", "x.y.z", f"]core]fsmonitor={canary}".replace("/", "|")]
    (top / ".gitmodules").touch()
    for number, name in enumerate(names):
        path = f"p{number} {name}"
        for variable, value in (("path", path), ("url", "../child")):
            git(top, "config", "-f", ".gitmodules", f"submodule.{name}.{variable}", value)
        git(top, "update-index", "--add", "--cacheinfo", f"160000,{pinned},{path}")
    git(top, "add", ".gitmodules")
    git(top, "commit", "--quiet", "-m", "odd")
    async with clone(repos, f"{server.url}/top", tmp_path / "w", submodules=True) as (executor, _):
        lines = (await sh(executor, "git -c core.quotePath=false submodule status")).splitlines()
        assert len(lines) == len(names)
        assert all(line.startswith(f" {pinned}") for line in lines)
        assert await sh(executor, "git status --porcelain; git submodule update 2>&1") == ""
    assert not ran(canary)


@pytest.mark.parametrize("trap", ["link", "link above", "git file", "commondir", "alternates", "objects", "refs"])
async def test_what_a_local_parent_has_for_a_submodule_may_not_lead_away(
    repos: Repositories, private: Path, tmp_path: Path, trap: str
) -> None:
    child = make_repository(tmp_path / "child")
    top = make_repository(tmp_path / "top")
    link(top, git(private, "rev-parse", "HEAD"), section("sub", "sub", "../child"))
    place = top / ".git/modules/sub"
    if trap == "link above":
        (tmp_path / "modules").mkdir()
        shutil.copytree(private / ".git", tmp_path / "modules/sub")
        place.parent.symlink_to(tmp_path / "modules")
    elif trap == "link":
        place.parent.mkdir()
        place.symlink_to(private / ".git")
    elif trap == "git file":
        place.mkdir(parents=True)
        (place / ".git").write_text(f"gitdir: {private}/.git\n")
    else:
        shutil.copytree(child / ".git", place)
        match trap:
            case "commondir":
                (place / "commondir").write_text(f"{private}/.git\n")
            case "alternates":
                (place / "objects/info").mkdir(exist_ok=True)
                (place / "objects/info/alternates").write_text(f"{private}/.git/objects\n")
            case _:
                shutil.rmtree(place / trap)
                (place / trap).symlink_to(private / ".git" / trap)
    assert isinstance(await refused(repos, top, submodules=True), Rejected)
    assert not holds_secret(tmp_path / "data")


async def test_nothing_of_a_local_submodule_runs(repos: Repositories, canary: Path, tmp_path: Path) -> None:
    child = make_repository(tmp_path / "child", {".gitattributes": b"* filter=x diff=x\n", "a": b"a\n"})
    top = make_repository(tmp_path / "top")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--", str(child), "sub")
    commit(top, {}, "sub")
    arm(top, canary)
    git_dir = top / ".git/modules/sub"
    for name in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook", "core.alternateRefsCommand"):
        git(git_dir, "config", "-f", "config", name, str(canary))
    (git_dir / "hooks").mkdir(exist_ok=True)
    shutil.copy(canary, git_dir / "hooks/reference-transaction")
    async with clone(repos, str(top), tmp_path / "w", submodules=True) as (executor, _):
        assert await sh(executor, "cat sub/a") == "a\n"
    assert not ran(canary)


async def test_credentials_do_not_go_to_a_submodules_host(
    server: GitServer, elsewhere: GitServer, tmp_path: Path
) -> None:
    server.user = ("me", "s3cret")
    elsewhere.user = ("nobody", "nothing")
    top = make_repository(server.root / "top")
    pinned = git(elsewhere.root / "child", "rev-parse", "HEAD")
    link(top, pinned, section("sub", "sub", f"{elsewhere.url}/child"))
    loopback = parse_rules(["127.0.0.1:*"])
    token = f"{server.url.removeprefix('http://')}=me:s3cret"
    by_token = repositories(tmp_path / "data", tokens=token, egress=loopback)
    await refused(by_token, f"{server.url}/top", submodules=True)
    by_address = repositories(tmp_path / "data2", egress=loopback)
    await refused(by_address, f"{server.url.replace('//', '//me:s3cret@')}/top", submodules=True)
    assert server.authorizations
    assert elsewhere.requests
    assert elsewhere.authorizations == []


async def test_their_depth_is_bounded(repos: Repositories, server: GitServer) -> None:
    pinned, url = git(make_repository(server.root / "r0"), "rev-parse", "HEAD"), "../r0"
    for number in range(1, MAX_DEPTH + 2):
        parent = make_repository(server.root / f"r{number}")
        link(parent, pinned, section("s", "s", url), path="s")
        pinned, url = git(parent, "rev-parse", "HEAD"), f"../r{number}"
    assert isinstance(await refused(repos, f"{server.url}/r{MAX_DEPTH + 1}", submodules=True), LimitExceeded)
    async with repos.opened(parse_repository(f"{server.url}/r{MAX_DEPTH}", local_user=True), submodules=True):
        pass


async def test_their_number_is_bounded_before_any_is_fetched(repos: Repositories, server: GitServer) -> None:
    child = make_repository(server.root / "child")
    pinned = git(child, "rev-parse", "HEAD")
    top = make_repository(server.root / "top")
    many = range(MAX_MODULES + 1)
    (top / ".gitmodules").write_text("".join(section(f"n{n}", f"p{n}", "../child") for n in many))
    git(top, "add", ".gitmodules")
    index = "".join(f"160000 {pinned}\tp{n}\n" for n in many)
    git(top, "update-index", "--add", "--index-info", stdin=index.encode())
    git(top, "commit", "--quiet", "-m", "many")
    assert isinstance(await refused(repos, f"{server.url}/top", submodules=True), LimitExceeded)
    assert not any("/child" in request for request in server.requests)


async def test_their_bytes_together_are_bounded(server: GitServer, tmp_path: Path) -> None:
    children = [make_repository(server.root / f"child{n}", {"x": os.urandom(300_000)}) for n in range(4)]
    top = make_repository(server.root / "top")
    for number, child in enumerate(children):
        modules = "".join(section(f"s{n}", f"s{n}", f"../child{n}") for n in range(number + 1))
        link(top, git(child, "rev-parse", "HEAD"), modules, path=f"s{number}")
    repos = repositories(tmp_path / "data", repository_limit_bytes=1_000_000)
    assert isinstance(await refused(repos, f"{server.url}/top", submodules=True), LimitExceeded)


# Large files


def lfs_repository(path: Path, files: dict[str, bytes], *, config: str | None = None) -> Path:
    more = {".lfsconfig": config.encode()} if config is not None else {}
    # `master`: what HEAD of a bare repository names by default.
    return make_repository(path, {".gitattributes": b"*.bin filter=lfs -text\n", **files, **more}, branch="master")


@needs_lfs
async def test_settings_of_the_repository_lead_nowhere(
    server: GitServer, elsewhere: GitServer, canary: Path, tmp_path: Path
) -> None:
    large = server.lfs.add(b"large")
    config = (
        f"[lfs]\n\turl = {elsewhere.url}/evil\n\tpushurl = {elsewhere.url}/evil\n\tfetchexclude = *\n"
        f'\tstandalonetransferagent = evil\n[lfs "customtransfer.evil"]\n\tpath = {canary}\n'
        f'[remote "origin"]\n\tlfsurl = {elsewhere.url}/evil\n\turl = {elsewhere.url}/child\n'
        f'[url "{elsewhere.url}/"]\n\tinsteadOf = {server.url}/\n[credential]\n\thelper = {canary}\n'
    )
    lfs_repository(server.root / "top", {"a.bin": large}, config=config)
    server.user = ("me", "s3cret")
    repos = repositories(tmp_path / "data", tokens="127.0.0.1=me:s3cret")
    async with clone(repos, f"{server.url}/top", tmp_path / "w", lfs=True) as (executor, _):
        assert await sh(executor, "cat a.bin") == "large"
    assert elsewhere.requests == []
    assert not ran(canary)


@pytest.mark.parametrize("way", ["href", "redirect"])
async def test_a_server_may_lead_elsewhere_and_credentials_do_not_follow(
    server: GitServer, elsewhere: GitServer, tmp_path: Path, way: str
) -> None:
    large = server.lfs.add(b"large")
    elsewhere.lfs.add(b"large")
    lfs_repository(server.root / "top", {"a.bin": large})
    server.user = ("me", "s3cret")
    elsewhere.user = ("nobody", "nothing")
    if way == "href":
        server.lfs.href = elsewhere.url
    else:

        def redirect(request) -> bool:
            if "/info/lfs/" not in request.path or "Authorization" not in request.headers:
                return False
            request.send_response(307)
            request.send_header("Location", f"{elsewhere.url}{request.path}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True

        server.answer = redirect
    repos = repositories(
        tmp_path / "data",
        tokens=f"{server.url.removeprefix('http://')}=me:s3cret",
        egress=parse_rules(["127.0.0.1:*"]),
    )
    error = await refused(repos, f"{server.url}/top", lfs=True)
    assert isinstance(error, CredentialsWanted)
    assert elsewhere.requests
    assert elsewhere.authorizations == []


@pytest.mark.parametrize("lie", ["other bytes", "too few", "too many", "endless", "endless, and unsaid"])
async def test_what_is_not_what_its_pointer_says_does_not_come_in(server: GitServer, tmp_path: Path, lie: str) -> None:
    repos = repositories(tmp_path / "data", repository_limit_bytes=32 << 20)
    large = server.lfs.add(b"x" * 1000)
    oid = hashlib.sha256(b"x" * 1000).hexdigest()
    lfs_repository(server.root / "top", {"a.bin": large})
    sent = 0
    if "endless" in lie:

        def answer(request) -> bool:
            nonlocal sent
            if not request.path.startswith("/lfs-objects/"):
                return False
            request.send_response(200)
            if "unsaid" not in lie:
                request.send_header("Content-Length", str(1 << 40))
            request.end_headers()
            try:
                while sent < 1 << 31:
                    sent += request.wfile.write(bytes(1 << 20))
            except OSError:
                pass
            request.close_connection = True
            return True

        server.answer = answer
    else:
        server.lfs.objects[oid] = {"other bytes": b"y" * 1000, "too few": b"x" * 999, "too many": b"x" * 1001}[lie]
    assert isinstance(await refused(repos, f"{server.url}/top", lfs=True), UnsoundRepository)
    assert sent <= 32 << 20
    assert not [path for path in (tmp_path / "data/mirrors").glob("*/lfs/**/*") if path.is_file()]


@pytest.mark.parametrize("way", ["link", "link above", "objects", "pipe", "directory", "size"])
async def test_a_pointer_is_no_right_to_a_file_of_this_host(repos: Repositories, tmp_path: Path, way: str) -> None:
    """Who knows a file's hash and size might name it in a pointer, and have it lie where large files lie."""
    (tmp_path / "secret").write_bytes(SECRET)
    oid = hashlib.sha256(SECRET).hexdigest()
    text = pointer(SECRET) if way != "size" else pointer(SECRET).replace(b"size 7", b"size 1")
    source = lfs_repository(tmp_path / "source", {"a.bin": text})
    place = source / f".git/lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}"
    place.parent.mkdir(parents=True)
    match way:
        case "link":
            place.symlink_to(tmp_path / "secret")
        case "pipe":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
        case "size":
            place.write_bytes(SECRET)
        case _:
            (tmp_path / "away" / oid[2:4]).mkdir(parents=True)
            (tmp_path / "away" / oid[2:4] / oid).write_bytes(SECRET)
            (tmp_path / "aways").mkdir()
            (tmp_path / "away").rename(tmp_path / "aways" / oid[:2])
            above = source / ".git/lfs/objects" / (oid[:2] if way == "link above" else "")
            shutil.rmtree(above)
            (source / ".git/lfs/objects").parent.mkdir(exist_ok=True)
            above.symlink_to(tmp_path / "aways" / (oid[:2] if way == "link above" else ""))
    assert isinstance(await refused(repos, source, lfs=True), NotFound)
    assert not holds_secret(tmp_path / "data")


@needs_lfs
async def test_nothing_of_a_local_source_runs_for_its_large_files(
    repos: Repositories, canary: Path, tmp_path: Path
) -> None:
    source = lfs_repository(tmp_path / "source", {"a.bin": pointer(b"large")})
    oid = hashlib.sha256(b"large").hexdigest()
    (source / f".git/lfs/objects/{oid[:2]}/{oid[2:4]}").mkdir(parents=True)
    (source / f".git/lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}").write_bytes(b"large")
    for name in ("filter.lfs.process", "filter.lfs.smudge", "lfs.customtransfer.evil.path"):
        git(source, "config", name, str(canary))
    git(source, "config", "lfs.standalonetransferagent", "evil")
    arm(source, canary)
    async with clone(repos, str(source), tmp_path / "w", lfs=True) as (executor, _):
        assert await sh(executor, "cat a.bin") == "large"
    assert not ran(canary)
