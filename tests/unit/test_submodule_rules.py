"""What ``.gitmodules`` and pointers may say, and where an address leads: decisions, without git."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Rejected, ShadowError
from shadow.core.repositories import LocalRepository, RemoteRepository, parse_repository
from shadow.scm.failures import UnsoundRepository
from shadow.scm.pointers import parse_pointer
from shadow.scm.submodules import Module, find_modules, locate, parse_settings, resolve
from shadow.scm.trees import LINK, MODULE, Entry

COMMIT = "1" * 40


def remote(url: str) -> RemoteRepository:
    found = parse_repository(url, local_user=True)
    assert isinstance(found, RemoteRepository)
    return found


def module(url: str) -> Module:
    return Module(name="m", path="m", url=url, commit=COMMIT)


def at(path: str, mode: str = MODULE) -> Entry:
    return Entry(mode, COMMIT, None, path)


@pytest.mark.parametrize(
    ("parent", "url", "found"),
    [
        ("https://host/a/b", "../c", "https://host/a/c"),
        ("https://host/a/b/", "../c", "https://host/a/c"),
        ("https://host/a/b.git", "./c", "https://host/a/b.git/c"),
        ("https://host/a/b", "../../c", "https://host/c"),
        ("https://host:8443/a/b", "../../../c", None),
        ("https://host/a/b", "../../../evil.example/c", None),
        ("ssh://git@host:22/a/b", "../c.git", "ssh://git@host/a/c.git"),
        ("git@host:a/b", "../c", "git@host:a/c"),
        ("git@host:b", "../c", "git@host:c"),
        ("git@host:b", "../../c", None),
        ("git@[::1]:a/b", "../c", "git@[::1]:a/c"),
    ],
)
def test_relative_addresses_stay_on_the_parents_host(parent: str, url: str, found: str | None) -> None:
    if found is None:
        with pytest.raises(Rejected):
            resolve(url, remote(parent))
    else:
        assert resolve(url, remote(parent)) == found


@given(
    st.sampled_from(["https://me:t@host.example/a/b", "ssh://git@host.example/a", "git@host.example:a/b", "http://127.0.0.1:8/x"]),
    st.one_of(
        st.text(alphabet="./a:@-\\[]#?%", max_size=30),
        st.sampled_from(["../", "./", "../../"]).flatmap(lambda head: st.text(max_size=20).map(lambda rest: head + rest)),
        st.sampled_from(["https://", "http://", "ssh://", "file://", "git://", "ext::", "/", "-"]).flatmap(
            lambda head: st.text(alphabet="./a:@-host.example127", max_size=30).map(lambda rest: head + rest)
        ),
    ),
)  # fmt: skip
def test_a_remote_parent_leads_to_remotes_only_and_its_credential_to_its_own_host(parent: str, url: str) -> None:
    above = remote(parent)
    try:
        found = locate(module(url), above)
    except ShadowError:
        return
    assert isinstance(found, RemoteRepository)
    assert not found.url.startswith("-")
    same = (found.scheme, found.host, found.port) == (above.scheme, above.host, above.port)
    if url.startswith(("./", "../")):
        assert same
    assert same or found.credential is None or found.credential != above.credential
    assert above.is_loopback or not found.is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "/etc", "file:///etc", "ext::sh -c x", "-u", "--upload-pack=x", "", "http://other.example/x", "https://localhost/x",
        "https://127.0.0.1/x", "ssh://-oProxyCommand=x/y", "ssh://[::1]/x", "git://host.example/x", "x\ny",
    ],
)  # fmt: skip
def test_what_a_remote_parent_may_not_name(url: str) -> None:
    with pytest.raises(Rejected) as caught:
        locate(module(url), remote("https://host.example/a/b"))
    assert caught.value.mend


def test_a_local_parent_does_not_make_paths_of_urls(tmp_path) -> None:
    for place in ("objects", "refs"):
        (tmp_path / ".git" / place).mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    for url in ("/etc", f"file://{tmp_path}", "../x", "http://host.example/x", "./.git"):
        with pytest.raises(ShadowError):
            locate(module(url), LocalRepository(path=str(tmp_path)))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../b", "/a", "a/", "a//b", "-a", ".git", "a/.GIT/b", "..//x", "a/./b"]
)
def test_names_and_paths_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(UnsoundRepository):
        find_modules([at("p")], {name: {"path": "p", "url": "../x"}})
    with pytest.raises((UnsoundRepository, Rejected)):
        find_modules([at(name)], {"n": {"path": name, "url": "../x"}})


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a/b"), ("a", "A"), ("a/modules/b", "a"), ("A/x", "a"), ("a/b", "a/B/modules/c")]
)
def test_names_that_meet(one: str, other: str) -> None:
    described = {
        one: {"path": "p", "url": "../x"},
        other: {"path": "q", "url": "../y"},
        "a-b": {"path": "r", "url": "../z"},
    }
    with pytest.raises(UnsoundRepository):
        find_modules([at("p"), at("q"), at("r")], described)


def test_a_path_below_a_symbolic_link() -> None:
    with pytest.raises(UnsoundRepository):
        find_modules([at("a", LINK), at("a/b/c")], {"n": {"path": "a/b/c", "url": "../x"}})


def test_two_names_for_one_path() -> None:
    with pytest.raises(UnsoundRepository):
        find_modules([at("p")], {"a": {"path": "p", "url": "../x"}, "b": {"path": "p/", "url": "../y"}})


def test_what_is_said_twice() -> None:
    assert parse_settings(b"submodule.a.b.url\nx\0submodule.a.b.url\nx\0core.x\ny\0submodule.url\nz\0") == {
        "a.b": {"url": "x"}
    }
    with pytest.raises(UnsoundRepository):
        parse_settings(b"submodule.a.url\nx\0submodule.a.url\ny\0")


OID = hashlib.sha256(b"").hexdigest()
HEAD = "version https://git-lfs.github.com/spec/v1\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (f"{HEAD}oid sha256:{OID}\nsize 12\n", 12),
        (f"{HEAD}oid sha256:{OID}\nsize 012\n", None),
        (f"{HEAD}oid sha256:{OID}\nsize -1\n", None),
        (f"{HEAD}oid sha256:{OID[:-1]}\nsize 1\n", None),
        (f"{HEAD}oid sha256:../../../../{OID[12:]}\nsize 1\n", None),
        (f"{HEAD}ext-0-x sha256:{OID}\noid sha256:{OID}\nsize 1\n", None),
        (f"{HEAD}oid sha256:{OID}\nsize {10**30}\n", None),
        (f" {HEAD}oid sha256:{OID}\nsize 1\n", None),
    ],
)
def test_pointers(text: str, size: int | None) -> None:
    found = parse_pointer(text.encode())
    assert (found.size_bytes if found else None) == size


@given(st.binary(max_size=300))
def test_anything_may_be_offered_as_a_pointer(data: bytes) -> None:
    assert parse_pointer(data) is None
