"""Entity tags: what a version becomes in a header comes back as itself, and nothing else counts as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Rejected
from shadow.core.files import ANY_VERSION
from shadow.wire.versions import etag, expected_of, if_match, matches, version_of

versions = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'), min_size=1, max_size=200
)


@given(versions)
def test_a_version_comes_back(version: str) -> None:
    assert version_of(etag(version).decode()) == version
    if version != ANY_VERSION:
        assert expected_of(if_match(version)) == version


@given(st.lists(versions, min_size=1, max_size=5), versions, st.data())
def test_one_of_several_tags_matches(tags: list[str], other: str, data: st.DataObject) -> None:
    header = ", ".join(data.draw(st.sampled_from(["", "W/"])) + f'"{tag}"' for tag in tags)
    assert all(matches(header, tag) for tag in tags)
    assert matches(header, other) == (other in tags)


@given(st.text(max_size=300))
def test_any_header_is_understood_or_refused(header: str) -> None:
    matches(header, "v")
    version_of(header)
    try:
        found = expected_of(header)
    except Rejected:
        return
    assert found == ANY_VERSION or etag(found or "").decode() == header.strip()


@pytest.mark.parametrize("header", ["", "v", 'W/"v"', '"a", "b"', '""', '"a\r\nb"', '"a"b"', f'"{"v" * 201}"', '"ä"'])
def test_only_one_strong_tag_is_expected(header: str) -> None:
    with pytest.raises(Rejected):
        expected_of(header)


@pytest.mark.parametrize("version", ["", 'a"b', "a b", "a\nb", "ä", "v" * 201])
def test_what_is_no_version_is_not_sent(version: str) -> None:
    with pytest.raises(Rejected):
        if_match(version)


def test_no_header_asks_for_nothing() -> None:
    assert expected_of(None) is None
    assert not matches(None, "v")
    assert not matches("*", "")
    assert matches(" * ", "v")
