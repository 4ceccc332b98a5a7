"""What may name a repository, and what a workspace's branch is called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Rejected
from shadow.core.repositories import (
    LocalRepository,
    RemoteRepository,
    Scheme,
    branch_name,
    is_commit,
    parse_repository,
)


def remote(text: str) -> RemoteRepository:
    repository = parse_repository(text, local_user=False)
    assert isinstance(repository, RemoteRepository)
    return repository


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "url"),
    [
        ("https://example.org/a/b.git", Scheme.HTTPS, "example.org", 443, "https://example.org/a/b.git"),
        ("https://Example.ORG:8443/a", Scheme.HTTPS, "example.org", 8443, "https://example.org:8443/a"),
        ("https://[2001:db8::1]/a", Scheme.HTTPS, "2001:db8::1", 443, "https://[2001:db8::1]/a"),
        ("ssh://git@example.org/a/b", Scheme.SSH, "example.org", 22, "ssh://git@example.org/a/b"),
        ("ssh://git@example.org:2222/~/b", Scheme.SSH, "example.org", 2222, "ssh://git@example.org:2222/~/b"),
        ("git@example.org:a/b.git", Scheme.SSH, "example.org", 22, "git@example.org:a/b.git"),
        ("example.org:b", Scheme.SSH, "example.org", 22, "example.org:b"),
    ],
)
def test_remotes(text: str, scheme: Scheme, host: str, port: int, url: str) -> None:
    found = remote(text)
    assert (found.scheme, found.host, found.port, found.url) == (scheme, host, port, url)


@pytest.mark.parametrize("text", ["/a/b", "./a", "../a:b", "a", "~/a", "file:///a/b", "a b/c", "/a:b"])
def test_paths_are_for_the_user_of_this_host_alone(text: str) -> None:
    assert isinstance(parse_repository(text, local_user=True), LocalRepository)
    with pytest.raises(Rejected):
        parse_repository(text, local_user=False)


def test_a_file_address_is_decoded() -> None:
    assert parse_repository("file:///a%20b/%C3%A9", local_user=True) == LocalRepository(path="/a b/é")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=touch /tmp/x",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c 'touch /tmp/x'",
        "fd::17",
        "::x",
        "git://example.org/a",
        "ftp://example.org/a",
        "git+ssh://example.org/a",
        "http://example.org/a",
        "https://example.org",
        "https://example.org/",
        "https:///a",
        "https://-x/a",
        "https://exa mple.org/a",
        "https://example.org:99999/a",
        "https://example.org:x/a",
        "https://exam%70le.org/a",
        "https://example.org/a#b",
        "https://ex\u0430mple.org/a",
        "https://[::1/a",
        "https://[evil]/a",
        "ssh://-oProxyCommand=x/a",
        "ssh://-oProxyCommand=x@example.org/a",
        "ssh://git:secret@example.org/a",
        "ssh://git@example.org/-a",
        "-x@example.org:a",
        "git@-x:a",
        "git@example.org:-a",
        "https://example.org/a\nb",
        "https://example.org/a\0",
        "file://host/a",
        "x" * 5000,
    ],
)
def test_what_is_not_accepted(text: str) -> None:
    with pytest.raises(Rejected):
        parse_repository(text, local_user=False)


@pytest.mark.parametrize("text", ["ext::sh -c x", "-x", "", "git://a/b", "file://host/a", "a\nb"])
def test_what_is_not_accepted_from_the_user_of_this_host_either(text: str) -> None:
    with pytest.raises(Rejected):
        parse_repository(text, local_user=True)


def test_credentials_are_parted_from_the_address() -> None:
    found = remote("https://someone:s%40cret@example.org:8443/a")
    assert found.url == "https://example.org:8443/a"
    assert found.credential is not None
    assert (found.credential.username, found.credential.password) == ("someone", "s@cret")
    assert "s@cret" not in repr(found)


@pytest.mark.parametrize("text", ["https://a%0Ab:c@example.org/x", "https://a:c%0Db@example.org/x"])
def test_credentials_that_would_forge_a_line_are_refused(text: str) -> None:
    with pytest.raises(Rejected):
        remote(text)


@given(st.text(), st.booleans())
def test_any_text_is_parsed_or_refused(text: str, local_user: bool) -> None:
    try:
        found = parse_repository(text, local_user=local_user)
    except Rejected:
        return
    if isinstance(found, RemoteRepository):
        assert not found.url.startswith("-")
        assert not found.host.startswith("-")
        assert "\n" not in found.url
    else:
        assert local_user


@given(st.text(), st.binary(min_size=8, max_size=8))
def test_a_branch_name_is_one_that_git_takes(about: str, entropy: bytes) -> None:
    name = branch_name(about, entropy=entropy)
    assert re.fullmatch(r"shadow/[a-z0-9]+(-[a-z0-9]+)*-[0-9a-z]{6}", name)
    assert len(name) <= 60


def test_a_branch_name_says_what_it_is_about() -> None:
    assert branch_name("Fix the parser: it's slow!", entropy=bytes(8)) == "shadow/fix-the-parser-it-s-slow-000000"


def test_names_of_commits() -> None:
    assert is_commit("a" * 40)
    assert is_commit("0" * 64)
    assert not is_commit("a" * 41)
    assert not is_commit("A" * 40)
    assert not is_commit("a" * 40 + "\n")
