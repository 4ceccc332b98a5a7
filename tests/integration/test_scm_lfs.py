"""Large files come along on request, fetched and checked by the control plane; else their pointers stay."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import Denied, LimitExceeded, NotFound, Unsupported
from shadow.core.repositories import RemoteRepository, parse_repository
from shadow.egress.guard import guarding_proxy
from shadow.scm.access import guard_policy, to_remote
from shadow.scm.failures import CredentialsWanted, TlsFailed
from shadow.scm.lfs_batch import fetch
from shadow.scm.pointers import Pointer
from shadow.scm.repositories import Repositories
from tests.support.git_servers import GitServer, commit, git, http_server, make_certificate, make_repository
from tests.support.lfs_server import pointer
from tests.support.scm import clone, repositories, sh

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed"),
]

LARGE = os.urandom(3_000_000)
ATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"


@pytest.fixture
def repos(tmp_path: Path) -> Repositories:
    return repositories(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository whose large file is on no server yet."""
    return make_repository(
        tmp_path / "served/source", {".gitattributes": ATTRIBUTES, "dir/a.bin": pointer(LARGE), "small": b"small\n"}
    )


@pytest.fixture
def server(source: Path) -> Iterator[GitServer]:
    with http_server(source.parent) as running:
        yield running


async def test_large_files_of_a_remote(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    server.lfs.add(LARGE)
    server.lfs.add(b"of another commit")
    for number in range(2):  # from the remote, then from the mirror
        async with clone(repos, f"{server.url}/source", tmp_path / f"w{number}", lfs=True) as (executor, _):
            assert (tmp_path / f"w{number}/files/dir/a.bin").read_bytes() == LARGE
            assert await sh(executor, "git status --porcelain") == ""
            assert "dir/a.bin" in await sh(executor, "git lfs ls-files")
            await sh(executor, "git lfs fsck")
            await sh(executor, "echo new > b.bin && git add b.bin && git commit -qm new")
            assert (await sh(executor, "git show HEAD:b.bin")).startswith("version https://git-lfs")
    assert len(server.lfs.downloads) == 1


async def test_without_being_asked_pointers_stay(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    async with clone(repos, f"{server.url}/source", tmp_path / "w") as (executor, _):
        assert (tmp_path / "w/files/dir/a.bin").read_bytes() == pointer(LARGE)
        assert await sh(executor, "git status --porcelain") == ""
    assert not any("lfs" in request for request in server.requests)


async def test_only_what_the_commit_needs(repos: Repositories, server: GitServer, source: Path, tmp_path: Path) -> None:
    old = server.lfs.add(b"old")
    server.lfs.add(LARGE)
    commit(source, {"b.bin": old}, "old")
    commit(source, {"b.bin": server.lfs.add(b"new"), "c.bin": pointer(LARGE)}, "new")
    async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True) as (executor, _):
        assert await sh(executor, "cat b.bin; cmp c.bin dir/a.bin") == "new"
    assert len(server.lfs.downloads) == 2


async def test_with_credentials_that_reach_nothing_else(server: GitServer, tmp_path: Path) -> None:
    server.lfs.add(LARGE)
    server.user = ("me", "t0p-s3cret")
    repos = repositories(tmp_path / "data", tokens="127.0.0.1=me:t0p-s3cret")
    listings: list[bytes] = []

    def look(_request: object) -> bool:
        line = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null"
        listings.append(subprocess.run(["sh", "-c", line], capture_output=True, check=False).stdout)
        return False

    server.answer = look
    async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True) as (executor, _):
        assert (tmp_path / "w/files/dir/a.bin").read_bytes() == LARGE
        assert await sh(executor, "grep -ra s3cret . || true") == ""
    assert all(b"pytest" in listing for listing in listings)
    assert not any(b"t0p-s3cret" in listing for listing in listings)
    kept = subprocess.run(["grep", "-ra", "t0p-s3cret", tmp_path / "data"], capture_output=True, check=False)
    assert kept.stdout == b""


async def test_credentials_are_wanted(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    """For the files alone: the repository itself is open."""
    server.lfs.add(LARGE)

    def guard(request) -> bool:
        if "/info/lfs/" not in request.path:
            return False
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Basic realm="lfs"')
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    server.answer = guard
    with pytest.raises(CredentialsWanted) as caught:
        async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
            pass
    assert caught.value.mend


async def test_what_the_server_does_not_have(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
            pass
    assert caught.value.mend


async def test_a_repository_without_large_files_needs_no_server(
    repos: Repositories, server: GitServer, tmp_path: Path
) -> None:
    make_repository(server.root / "plain")
    async with clone(repos, f"{server.url}/plain", tmp_path / "w", lfs=True) as (executor, _):
        assert await sh(executor, "git status --porcelain") == ""
    assert not any("lfs" in request for request in server.requests)


async def test_large_files_of_a_local_source(repos: Repositories, tmp_path: Path) -> None:
    source = make_repository(tmp_path / "local", {".gitattributes": ATTRIBUTES})
    git(source, "lfs", "install", "--local")
    commit(source, {"a.bin": LARGE}, "large")
    assert git(source, "show", "HEAD:a.bin") + "\n" == pointer(LARGE).decode()
    async with clone(repos, str(source), tmp_path / "w", lfs=True) as (executor, _):
        assert (tmp_path / "w/files/a.bin").read_bytes() == LARGE
        assert await sh(executor, "git status --porcelain; git lfs fsck") == "Git LFS fsck OK\n"
    git(tmp_path, "clone", "--quiet", str(source), "fresh")
    with pytest.raises(NotFound, match="git lfs fetch"):
        async with repositories(tmp_path / "other").opened(
            parse_repository(str(tmp_path / "fresh"), local_user=True), lfs=True
        ):
            pass


async def test_large_files_of_submodules(repos: Repositories, server: GitServer, source: Path, tmp_path: Path) -> None:
    server.lfs.add(LARGE)
    top = make_repository(server.root / "top")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--", str(source), "sub")
    git(top, "config", "-f", ".gitmodules", "submodule.sub.url", "../source")
    commit(top, {}, "sub")
    async with clone(repos, f"{server.url}/top", tmp_path / "w", submodules=True, lfs=True) as (executor, _):
        assert (tmp_path / "w/files/sub/dir/a.bin").read_bytes() == LARGE
        assert await sh(executor, "git status --porcelain; git submodule status | cut -c1") == " \n"


async def test_their_bytes_are_bounded(server: GitServer, tmp_path: Path) -> None:
    server.lfs.add(LARGE)
    repos = repositories(tmp_path / "data", repository_limit_bytes=1_000_000)
    with pytest.raises(LimitExceeded):
        async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
            pass
    assert server.lfs.downloads == []


async def test_a_damaged_store_is_mended(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    server.lfs.add(LARGE)
    async with clone(repos, f"{server.url}/source", tmp_path / "w1", lfs=True):
        pass
    (stored,) = (path for path in (tmp_path / "data/mirrors").glob("*/lfs/objects/*/*/*"))
    stored.chmod(0o600)
    stored.write_bytes(bytes(len(LARGE)))
    async with clone(repos, f"{server.url}/source", tmp_path / "w2", lfs=True):
        assert (tmp_path / "w2/files/dir/a.bin").read_bytes() == LARGE


async def test_without_git_lfs(
    repos: Repositories, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the checkout needs it."""
    server.lfs.add(LARGE)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh", "bash", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Unsupported, match="in the workspace"):
        async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
            pass
    assert len(server.lfs.downloads) == 1


@pytest.mark.parametrize("means", ["netrc", "helper", "wrong netrc, then helper"])
async def test_the_users_own_means_are_used_where_they_are_wanted(
    repos: Repositories, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, means: str
) -> None:
    server.lfs.add(LARGE)
    server.user = ("me", "s3cret")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    if "netrc" in means:
        (home / ".netrc").write_text(
            f"machine 127.0.0.1 login me password {'wrong' if 'wrong' in means else 's3cret'}\n"
        )
        (home / ".netrc").chmod(0o600)
    if "helper" in means:
        helper = "!f() { test $1 = get && echo username=me && echo password=s3cret; }; f"
        git(home, "config", "-f", ".gitconfig", f"credential.{server.url}.helper", helper)
    async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
        assert (tmp_path / "w/files/dir/a.bin").read_bytes() == LARGE
    (home / ".netrc").unlink(missing_ok=True)
    (home / ".gitconfig").write_text("")
    with pytest.raises(CredentialsWanted):
        async with repositories(tmp_path / "other").opened(
            parse_repository(f"{server.url}/source", local_user=True), lfs=True
        ):
            pass


async def test_what_nobody_asks_a_credential_for_gets_none(
    repos: Repositories, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.lfs.add(LARGE)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
        pass
    assert server.authorizations == []


async def test_over_https(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    if certificate is None:
        pytest.skip("openssl is not installed")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    with http_server(source.parent, certificate=certificate) as server:
        server.lfs.scheme = "https"
        server.lfs.add(LARGE)
        server.user = ("me", "s3cret")
        repos = repositories(tmp_path / "data", tokens="127.0.0.1=me:s3cret")
        async with clone(repos, f"{server.url}/source", tmp_path / "w", lfs=True):
            assert (tmp_path / "w/files/dir/a.bin").read_bytes() == LARGE
        server.lfs.scheme = "http"
        with pytest.raises(Denied, match="not encrypted"):
            async with repositories(tmp_path / "other", tokens="127.0.0.1=me:s3cret").opened(
                parse_repository(f"{server.url}/source", local_user=True), lfs=True
            ):
                pass
        monkeypatch.delenv("GIT_SSL_CAINFO")
        repository = parse_repository(f"{server.url}/source", local_user=True)
        assert isinstance(repository, RemoteRepository)
        policy = guard_policy(repository, trusted=True, rules=(), limit_bytes=1 << 20)
        async with to_remote(
            repository, users_means=False, credential=None, policy=policy, proxy=None, about="Fetching"
        ) as access:
            with pytest.raises(TlsFailed):
                await fetch(access, [Pointer("0" * 64, 1)], mirror=tmp_path / "mirror")


@pytest.mark.parametrize("rules", [["127.0.0.1:*"], []])
async def test_the_hosts_proxy_is_the_only_way(server: GitServer, tmp_path: Path, rules: list[str]) -> None:
    server.lfs.add(LARGE)
    async with guarding_proxy(EgressPolicy(rules=parse_rules(rules))) as proxy:
        repository = parse_repository(f"{server.url}/source", local_user=True)
        assert isinstance(repository, RemoteRepository)
        policy = guard_policy(repository, trusted=True, rules=(), limit_bytes=1 << 30)
        pointer_ = Pointer(hashlib.sha256(LARGE).hexdigest(), len(LARGE))
        async with to_remote(
            repository, users_means=False, credential=None, policy=policy, proxy=proxy, about="Fetching"
        ) as access:
            if rules:
                await fetch(access, [pointer_], mirror=tmp_path / "mirror")
                assert (tmp_path / "mirror" / pointer_.name).read_bytes() == LARGE
            else:
                with pytest.raises(Denied):
                    await fetch(access, [pointer_], mirror=tmp_path / "mirror")
                assert server.requests == []


async def test_no_secret_in_what_an_access_shows_of_itself(server: GitServer) -> None:
    repository = parse_repository(f"{server.url.replace('//', '//me:t0p-s3cret@')}/source", local_user=True)
    assert isinstance(repository, RemoteRepository)
    policy = guard_policy(repository, trusted=True, rules=(), limit_bytes=1 << 20)
    async with to_remote(
        repository, users_means=False, credential=repository.credential, policy=policy, proxy=None, about="Fetching"
    ) as access:
        assert access.credential is not None
        assert access.proxy is not None
        of_the_guard = access.proxy.partition("@")[0].rpartition(":")[2]
        assert len(of_the_guard) == 32
        assert of_the_guard not in repr(access)
        assert "t0p-s3cret" not in repr(access)


async def test_many_come_in_several_batches(repos: Repositories, server: GitServer, tmp_path: Path) -> None:
    files = {f"{n}.bin": server.lfs.add(b"%d" % n) for n in range(230)}
    make_repository(server.root / "many", {".gitattributes": ATTRIBUTES, **files})
    told: list[str] = []
    repository = parse_repository(f"{server.url}/many", local_user=True)
    async with repos.opened(repository, lfs=True, progress=told.append):
        pass
    assert len(server.lfs.downloads) == 230
    assert sum("/objects/batch" in request for request in server.requests) == 3
    assert told[-1] == "Large files: 100%"


async def test_over_ssh_the_server_names_the_place(
    server: GitServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``git-lfs-authenticate`` on the other side answers with an address and a token that is good for it."""
    server.lfs.add(LARGE)
    programs = tmp_path / "programs"
    programs.mkdir()
    answer = f'{{"href": "{server.url}/source.git/info/lfs", "header": {{"X-From-Ssh": "yes"}}}}'
    ssh = programs / "ssh"
    ssh.write_text(
        "#!/bin/bash\n"
        'case "${@: -1}" in\n'
        f"  git-lfs-authenticate*) echo '{answer}';;\n"
        '  *) exec sh -c "${@: -1}";;\n'
        "esac\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    seen: list[str | None] = []

    def look(request) -> bool:
        seen.append(request.headers["X-From-Ssh"])
        return False

    server.answer = look
    address = f"ssh://host.invalid{source}"
    repos = repositories(tmp_path / "data", egress=parse_rules(["127.0.0.1:*"]))
    async with clone(repos, address, tmp_path / "w", lfs=True):
        assert (tmp_path / "w/files/dir/a.bin").read_bytes() == LARGE
    assert seen[0] == "yes"
    ssh.write_text(ssh.read_text().replace(f"echo '{answer}'", "echo 'git-lfs-authenticate: not found' >&2; exit 127"))
    with pytest.raises(NotFound) as caught:
        async with repositories(tmp_path / "other").opened(parse_repository(address, local_user=True), lfs=True):
            pass
    assert caught.value.mend
