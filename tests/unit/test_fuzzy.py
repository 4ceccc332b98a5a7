"""Fuzzy search: what matches, what comes first, and how long it takes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.execution.fuzzy import SCORED_IN_FULL, rank

texts = st.text(alphabet="abAB/_-. éİß\udcff", max_size=12)


def best(query: str, *paths: str) -> str:
    return rank(query, paths, limit=1)[0][0][1]


def holds_in_order(query: str, path: str) -> bool:
    characters = iter(lower(path))
    return all(wanted in characters for wanted in lower("".join(query.split())))


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@given(query=texts, paths=st.lists(texts, max_size=8))
def test_exactly_the_paths_that_hold_the_characters_in_order_match(query: str, paths: list[str]) -> None:
    found, count = rank(query, paths, limit=100)
    assert sorted(path for _, path in found) == sorted(path for path in paths if holds_in_order(query, path))
    assert count == len(found)
    assert [score for score, _ in found] == sorted((score for score, _ in found), reverse=True)


@given(query=texts, paths=st.lists(texts, max_size=8), limit=st.integers(1, 3))
def test_a_limit_gives_the_beginning_of_the_whole_answer(query: str, paths: list[str], limit: int) -> None:
    everything, count = rank(query, paths, limit=100)
    assert rank(query, paths, limit=limit) == (everything[:limit], count)


@given(query=texts, paths=st.permutations(["a/b_a.b", "ab", "A-B", "b/ab", "aab/B"]))
def test_the_order_of_the_paths_does_not_matter(query: str, paths: list[str]) -> None:
    assert rank(query, paths, limit=5) == rank(query, sorted(paths), limit=5)


@pytest.mark.parametrize(
    ("query", "first", "second"),
    [
        ("files", "src/files.py", "files/src/index.py"),  # the base name counts most
        ("host", "a/host.py", "a/h_o_s_t.py"),  # a run before scattered characters
        ("fb", "x/foo_bar.py", "x/aflab.py"),  # starts of words
        ("fb", "x/fooBar.py", "x/foobar.py"),  # of camel case too
        ("Make", "Makefile", "makefile"),  # the same case
        ("main", "main.py", "a/deep/way/down/main.py"),  # a shorter path
        ("test", "unit/test_a.py", "unit/latest.py"),  # the start of the base name
        ("core/files", "core/files.py", "core/a/profiles.py"),
        ("foo bar", "foo bar.txt", "foo_bar.txt"),  # as it was typed
        ("foo bar", "a/foo_bar.txt", "a/f_o_o_bar.txt"),
    ],
)
def test_what_comes_first(query: str, first: str, second: str) -> None:
    assert best(query, first, second) == first
    assert best(query, second, first) == first


def test_no_characters_match_every_path() -> None:
    assert rank("  ", ["b", "a"], limit=5) == ([(0, "a"), (0, "b")], 2)


def test_the_best_is_found_among_many_that_match() -> None:
    paths = [f"deep/directory/of/many/e{number}.txt" for number in range(4 * SCORED_IN_FULL)]
    assert best("e", *paths, "e", "z/example/x.txt") == "e"
    assert rank("e", paths, limit=1)[1] == len(paths)


def test_a_hundred_thousand_paths_take_well_under_a_second() -> None:
    paths = [f"src/package_{number % 700}/module/some_file_name{number}.py" for number in range(100_000)]
    for query in ("e", "package69file", "zzz", "smn99"):
        started = time.process_time()
        rank(query, paths, limit=50)
        assert time.process_time() - started < 1.0  # 0.15 s on an idle machine
