"""Output of the same command at another time is alike; of another one it is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.normalising import NORMALISERS, normalised

DOCS = Path(__file__).parents[2] / "docs/recordings.md"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tue Nov 24 06:43:48 UTC 2026", "Wed Dec  9 16:03:01 CEST 2026".replace("CEST", "UTC")),
        ("2026-11-24T06:43:48.123Z done", "2025-01-01 16:00:00+02:00 done"),
        ("[06:43:48] built", "[16:03:01,123] built"),
        ("-rw-r--r-- 1 a a 5 Nov 24 06:43 f", "-rw-r--r-- 1 a a 5 Jan  1  2025 f"),
        ("Ran 17 tests in 0.004s", "Ran 17 tests in 1.2s"),
        ("done in 3 s", "done in 12s"),
        ("real\t0m0.005s", "real\t1m3.500s"),
        ("# duration_ms 45.123", "# duration_ms 7"),
        ("ok (12 ms)", "ok (3.5ms)"),
        ("wrote /tmp/tmp.a8fZ/out", "wrote /tmp/tmp_x-1/out"),
        ("pid 123", "pid 98765"),
        ("<object at 0x7f3a12345678>", "<object at 0x55aa00112233>"),
        ("listening on 127.0.0.1:43521", "listening on 127.0.0.1:35001"),
        ("cmd_0123456789ab and ws_aaaaaaaaaaaa", "cmd_zzzzzzzzzzzz and ws_bbbbbbbbbbbb"),
    ],
)
def test_what_changes_from_run_to_run_is_alike(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) != one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ran 17 tests in 0.004s", "Ran 18 tests in 0.004s"),
        ("FAILED (failures=1)", "FAILED (failures=2)"),
        ("line 12", "line 13"),
        ("version 1.2.3", "version 1.2.4"),
        ("/tmp/a/one", "/tmp/a/two"),
        ("/home/tmp/a", "/home/tmp/b"),
        ("0x12", "0x13"),
        ("cmd_0123456789ab cmd_0123456789ab", "cmd_0123456789ab cmd_zzzzzzzzzzzz"),
        ("example.org:8080", "example.org:8081"),
        ("5 items", "6 items"),
        ("actual: '60s'", "actual: '59s'"),
    ],
)
def test_what_matters_stays_different(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.text(alphabet="abc019 :-/.\nTZ<>", max_size=80))
def test_a_repeat_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_hostile_text_does_not_take_long() -> None:
    for piece in ("1", "1.", "0m", "12:", "cmd_a", "Nov 1 ", "/tmp/", "pid "):
        normalised(piece * 30_000)


@pytest.mark.parametrize("name", [rule.name for rule in NORMALISERS])
def test_every_rule_is_documented(name: str) -> None:
    assert f"| {name} |" in DOCS.read_text()
