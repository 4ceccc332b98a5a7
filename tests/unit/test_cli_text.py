"""What the command line prints and understands: hostile text made harmless, sizes, spans, durations, references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.cli.copying import remote_part
from shadow.cli.references import choose
from shadow.cli.text import duration_s, size, span
from shadow.core.errors import Conflict, NotFound, Rejected
from shadow.core.ids import WorkspaceId
from shadow.core.workspaces import Isolation, WorkspaceState, WorkspaceStatus
from shadow.terminal.neutral import printable


@given(st.text(alphabet=st.characters()))
def test_printed_text_never_holds_a_control_character(text: str):
    shown = printable(text)
    shown.encode()
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 漢字", "plain ünïcode 漢字"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("not utf-8: \udcff", "not utf-8: \\xff"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("24h", 86400), (" 7 d ", 604800)]
)
def test_durations_are_understood(text: str, seconds: float):
    assert duration_s(text, option="--lease") == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1w", "1e9", "nan", "inf"])
def test_nonsense_is_no_duration(text: str):
    with pytest.raises(Rejected, match="--lease cannot be"):
        duration_s(text, option="--lease")


def test_sizes_and_spans_are_short():
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**3)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [span(s) for s in (-1, 59, 61, 3600, 5400, 90000)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "1 h 30 min",
        "1 d 1 h",
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ws_1:src/a.py", ("ws_1", "src/a.py")),
        ("ws_1:", ("ws_1", ".")),
        ("ws_1:a:b", ("ws_1", "a:b")),
        ("./a:b", None),
        ("/tmp/a:b", None),
        (":a", None),
        ("plain", None),
    ],
)
def test_a_remote_path_is_told_from_a_local_one(text: str, parts: tuple[str, str] | None):
    assert remote_part(text) == parts


def status(id_: str, name: str | None = None) -> WorkspaceStatus:
    return WorkspaceStatus(
        id=WorkspaceId(id_),
        name=name,
        state=WorkspaceState.READY,
        isolation=Isolation.SANDBOX,
        created_at=0,
        lease_expires_at=None,
        size_bytes=None,
    )


ALL = [status("ws_abc", "one"), status("ws_abd", "twin"), status("ws_x", "twin"), status("ws_one", "ws_x")]


@pytest.mark.parametrize(
    ("reference", "id_"),
    [("ws_abc", "ws_abc"), ("one", "ws_abc"), ("abd", "ws_abd"), ("ws_o", "ws_one"), ("ws_x", "ws_x")],
)
def test_a_workspace_is_found_by_id_then_name_then_beginning(reference: str, id_: str):
    assert choose(reference, ALL).id == id_


@pytest.mark.parametrize("reference", ["ab", "twin", "ws_"])
def test_what_may_mean_several_is_refused_with_all_of_them(reference: str):
    with pytest.raises(Conflict) as refused:
        choose(reference, ALL)
    assert len(refused.value.details["workspaces"]) > 1  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("reference", ["", "nothing", "ws_abcd"])
def test_what_means_none_is_not_found(reference: str):
    with pytest.raises(NotFound):
        choose(reference, ALL)
