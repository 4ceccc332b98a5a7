"""What this host has for remotes is its own user's: others are served with it only where the settings say so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadow.core.egress import parse_rules
from shadow.core.errors import Denied, ShadowError
from shadow.core.repositories import Credential, parse_repository
from shadow.scm.failures import CredentialsWanted
from shadow.scm.owners import Owner
from shadow.scm.repositories import Repositories
from tests.support.git_servers import GitServer, git, http_server, make_repository
from tests.support.scm import clone, commit_inside, repositories, sh

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with http_server(make_repository(tmp_path / "served/source").parent) as running:
        yield running


async def refused(repos: Repositories, address: str, *, owner: Owner) -> ShadowError:
    """The error; and that it says what to do."""
    with pytest.raises(ShadowError) as caught:
        async with repos.opened(parse_repository(address, local_user=True), owner=owner):
            pass
    assert caught.value.mend
    return caught.value


MEMBER = Owner(id="ann", is_host_user=False)


def of_host(directory: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Repositories:
    """Of a host that has a token and an entry of netrc for ``server``, and lets everybody reach it."""
    (directory / "home").mkdir()
    (directory / "home/.netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("HOME", str(directory / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(directory / "home/.gitconfig"))
    (directory / "home/.gitconfig").write_text('[credential]\n\thelper = "!echo username=me; echo password=s3cret;:"\n')
    allowed = parse_rules([server.url.removeprefix("http://")])
    return repositories(directory / "data", tokens="127.0.0.1=me:s3cret", egress=allowed, **settings)


@pytest.mark.parametrize("shared", [(), ("elsewhere.example",), ("127.0.0.1:1",)])
async def test_what_the_host_has_for_remotes_is_not_for_others(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: tuple[str, ...]
) -> None:
    server.user = ("me", "s3cret")
    repos = of_host(tmp_path, server, monkeypatch, shared_hosts=shared)
    error = await refused(repos, f"{server.url}/source", owner=MEMBER)
    assert isinstance(error, CredentialsWanted)
    assert "SHADOW_GIT_SHARED_HOSTS" in str(error.mend)
    assert server.authorizations == []
    wrong = await refused(repos, server.url.replace("//", "//ann:wrong@") + "/source", owner=MEMBER)
    assert isinstance(wrong, CredentialsWanted)
    assert "SHADOW_GIT_SHARED_HOSTS" not in str(wrong.mend)  # their own was refused, and ours is none of their business
    own = server.url.replace("//", "//me:s3cret@") + "/source"
    async with clone(repos, own, tmp_path / "w", owner=MEMBER):
        pass
    assert set(server.authorizations) == {"ann:wrong", "me:s3cret"}


async def test_others_fetch_what_is_open_to_everybody(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repos = of_host(tmp_path, server, monkeypatch)
    async with clone(repos, f"{server.url}/source", tmp_path / "w", owner=MEMBER) as (executor, _):
        await sh(executor, "cat README")
    assert server.authorizations == []


@pytest.mark.parametrize("port", [True, False])
async def test_at_shared_hosts_the_host_s_credentials_serve_everybody(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: bool
) -> None:
    server.user = ("me", "s3cret")
    shared = server.url.removeprefix("http://") if port else "127.0.0.1"
    repos = of_host(tmp_path, server, monkeypatch, shared_hosts=[shared])
    async with clone(repos, f"{server.url}/source", tmp_path / "w", owner=MEMBER):
        assert "me:s3cret" in server.authorizations


async def test_what_one_has_fetched_is_not_there_for_another(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.user = ("me", "s3cret")
    repos = of_host(tmp_path, server, monkeypatch)
    async with clone(repos, f"{server.url}/source", tmp_path / "w"):
        pass
    assert isinstance(await refused(repos, f"{server.url}/source", owner=MEMBER), CredentialsWanted)


async def test_others_reach_no_host_inside_the_network_and_no_path(server: GitServer, tmp_path: Path) -> None:
    repos = repositories(tmp_path / "data", shared_hosts=["127.0.0.1"])
    path = str(tmp_path / "served/source")
    for address in (f"{server.url}/source", path, "ssh://git@git.example/x", "git@git.example:x"):
        error = await refused(repos, address, owner=MEMBER)
        assert isinstance(error, Denied), (address, error)
    assert server.requests == []


async def test_others_push_with_their_own_credential_alone(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(server.root / "source", "config", "http.receivepack", "true")
    repos = of_host(tmp_path, server, monkeypatch)
    own = server.url.replace("//", "//me:s3cret@") + "/source"
    async with clone(repos, own, tmp_path / "w", owner=MEMBER) as (executor, checkout):
        await commit_inside(executor, "echo new > b")
        server.user = ("me", "s3cret")
        async with repos.collected(executor, checkout, owner=MEMBER) as work:
            with pytest.raises(CredentialsWanted) as caught:
                await repos.deliver(work, checkout, owner=MEMBER)
            assert "SHADOW_GIT_SHARED_HOSTS" in str(caught.value.mend)
            assert "me:s3cret" not in server.authorizations
            credential = Credential(username="me", password="s3cret")
            await repos.deliver(work, checkout, owner=MEMBER, credential=credential)
    assert checkout.branch in git(server.root / "source", "branch")
