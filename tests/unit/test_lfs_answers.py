"""Where ssh is asked, and what the answers of a server of large files may hold."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import ShadowError
from shadow.scm.lfs_batch import read_answer, ssh_words
from shadow.scm.pointers import Pointer

POINTER = Pointer("0" * 64, 1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ssh://git@host.example/team/p.git", ("git@host.example", "/team/p.git")),
        ("ssh://host.example:2222/~me/p", ("host.example", "~me/p")),
        ("ssh://git@[::1]:22/p%20q", ("git@::1", "'/p q'")),
        ("git@host.example:team/p.git", ("git@host.example", "team/p.git")),
        ("git@[::1]:team/p.git", ("git@::1", "team/p.git")),
        ("host:it's; rm", ("host", "'it'\\''s; rm'")),
        ("host:$(x)`y`", ("host", "'$(x)`y`'")),
    ],
)
def test_words_for_ssh(url: str, words: tuple[str, str]) -> None:
    assert ssh_words(url) == words


def described(**more: Any) -> dict[str, Any]:
    return {"objects": [{"oid": POINTER.oid, **more}]}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
_href = st.text().map(lambda text: f"http://{text}") | _json


@given(
    _json
    | st.builds(lambda value: {"objects": value}, _json)
    | st.builds(lambda value: described(error=value), _json | st.fixed_dictionaries({"code": _json}))
    | st.builds(lambda value: described(actions=value), _json | st.fixed_dictionaries({"download": _json}))
    | st.builds(
        lambda value: described(actions={"download": value}),
        st.fixed_dictionaries({"href": _href}, optional={"header": _json | st.dictionaries(st.text(), st.text())}),
    )
)
def test_whatever_it_answers_is_a_link_or_a_typed_error(answer: object) -> None:
    with suppress(ShadowError):
        (link,) = read_answer(json.dumps(answer).encode(), [POINTER], encrypted=False)
        assert link.url.scheme in ("http", "https")
        assert all(char.isprintable() for text in link.headers.values() for char in text)
