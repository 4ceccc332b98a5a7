"""What may be a branch, a revision, a person, a message: decided without git, as git decides."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.errors import Rejected
from shadow.core.git import (
    GitPerson,
    check_bounds,
    check_person,
    full_message,
    is_branch_name,
    is_commit_id,
    is_revision,
)

USER = GitPerson(name="U", email="u@example.org")
names = st.lists(st.sampled_from([*"ab.@{}~^:?*[]\\/-_ \t\n\x7fé😀()'`$#", ".lock", "HEAD"]), max_size=8).map("".join)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(max_examples=200)
@given(names)
def test_names_of_branches_are_those_of_git(name: str) -> None:
    # As "git branch" has it: the form with --branch expands "@{-1}" and knows no "refs/heads/-x".
    asked = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
    assert is_branch_name(name) == (asked.returncode == 0 and not name.startswith("-") and name not in ("HEAD", "@"))


@pytest.mark.parametrize(
    "name", ["", "HEAD", "@", "-x", "a\0b", "\ud800", "x" * 251, "/".join("x" * 200 for _ in range(6))]
)
def test_what_no_branch_is_called(name: str) -> None:
    assert not is_branch_name(name)


@pytest.mark.parametrize("text", ["", "-", "--all", "a\0", "\ud800", "x" * 5000])
def test_what_git_is_never_asked_for(text: str) -> None:
    assert not is_revision(text)


def test_ids_are_of_sha1_or_sha256() -> None:
    assert is_commit_id("0a" * 20)
    assert is_commit_id("0a" * 32)
    assert not is_commit_id("0A" * 20)
    assert not is_commit_id("0a" * 20 + "\n")
    assert not is_commit_id("0a" * 21)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("s", "s\n\nCo-authored-by: U <u@example.org>\n"),
        ("s\n", "s\n\nCo-authored-by: U <u@example.org>\n"),
        ("fix: s", "fix: s\n\nCo-authored-by: U <u@example.org>\n"),
        ("s\n\nbody\nSigned-off-by: x", "s\n\nbody\nSigned-off-by: x\n\nCo-authored-by: U <u@example.org>\n"),
        ("s\n\nSigned-off-by: x", "s\n\nSigned-off-by: x\nCo-authored-by: U <u@example.org>\n"),
        ("s\r\n\r\nFixes: #1\r\n", "s\r\n\r\nFixes: #1\r\nCo-authored-by: U <u@example.org>\n"),
        ("# s", "# s\n\nCo-authored-by: U <u@example.org>\n"),
    ],
)
def test_co_authors_follow_the_message_as_trailers(message: str, wanted: str) -> None:
    assert full_message(message, [USER]).decode() == wanted


@given(st.text().filter(lambda text: text.strip() and "\0" not in text))
def test_a_message_is_kept_and_ends_in_a_line_end(message: str) -> None:
    assert full_message(message, ()).decode() == (message if message.endswith("\n") else message + "\n")


@pytest.mark.parametrize("message", ["", " \n\t", "a\0b", "a\udcff", "x" * (1024 * 1024 + 1)])
def test_what_is_no_message(message: str) -> None:
    with pytest.raises(Rejected):
        full_message(message, ())


@pytest.mark.parametrize(
    "person",
    [
        GitPerson(name="", email="a@b"),
        GitPerson(name=" . ", email="a@b"),
        GitPerson(name="a", email=""),
        GitPerson(name="a<b", email="a@b"),
        GitPerson(name="a", email="a@b\n"),
        GitPerson(name="a\udcff", email="a@b"),
        GitPerson(name="a" * 501, email="a@b"),
    ],
)
def test_who_is_no_person(person: GitPerson) -> None:
    with pytest.raises(Rejected):
        check_person(person)


@pytest.mark.parametrize(
    "bounds",
    [
        {"limit": 0},
        {"skip": -1},
        {"limit_bytes": 0},
        {"context_lines": -1},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
    ],
)
def test_what_is_out_of_bounds(bounds: dict[str, float]) -> None:
    with pytest.raises(Rejected):
        check_bounds(**{"timeout_s": 1.0, **bounds})  # type: ignore[arg-type]
