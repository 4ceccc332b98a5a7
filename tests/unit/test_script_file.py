"""What a script may say, and that a wrong one is refused with its line and field."""

from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.script_file import MAX_BYTES, FaultKind, ScriptRefused, load_script

HEAD = "version: 1\nsteps:\n"


def refused(path: Path, text: str | bytes) -> ScriptRefused:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScriptRefused) as caught:
        load_script(path)
    return caught.value


def test_a_script_says_everything_a_model_can(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("""
version: 1
model:
  context_tokens: 1000
  max_output_tokens: 100
  price: {input: 3, output: 15.5}
  pace_s: 0.1
steps:
  - reasoning: think
    text: say
    delay_s: 2
    tokens: {input: 10, output: 2, cache_read: 5}
    fault: {kind: rate_limit, times: 2, retry_after_s: 1.5}
    calls:
      - tool: read_file
        arguments: {path: a, deep: [1, null, {b: 2026-11-24}]}
        expect: {contains: one, lacks: [two, three], matches: "^a$", exit_code: 0, is_error: false}
      - tool: grep_search
        arguments: "{cut in the mid"
  - text: ""
    finish: length
""")
    script = load_script(path).script
    assert script.model.price is not None
    assert script.model.price.output == Decimal("15.5")
    first, second = script.steps
    assert first.fault is not None
    assert (first.fault.kind, first.fault.times) == (FaultKind.RATE_LIMIT, 2)
    assert first.calls[0].arguments == {"path": "a", "deep": [1, None, {"b": "2026-11-24"}]}
    assert first.calls[1].arguments == "{cut in the mid"
    assert first.calls[0].expect is not None
    assert first.calls[0].expect.contains == ("one",)
    assert (second.text, second.finish) == ("", "length")


def test_without_a_price_it_is_free_and_unknown_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "- text: a\n")
    price = load_script(path).script.model.price
    assert price is not None
    assert price.input == price.output == 0
    path.write_text("version: 1\nmodel: {price: unknown}\nsteps: [{text: a}]\n")
    assert load_script(path).script.model.price is None


@pytest.mark.parametrize(
    ("text", "line", "field", "says"),
    [
        ("", 1, "", "empty"),
        ("a: [", 1, "", "expected"),
        ("steps: [{text: a}]\n", 1, "version", "required"),
        ("version: 2\nsteps: [{text: a}]\n", 1, "version", "1"),
        ("version: 1\nsteps: []\n", 2, "steps", "at least 1"),
        ("version: 1\nstep: []\n", 1, "steps", "required"),
        (HEAD + "  - text: a\n  - delay_s: 1\n", 4, "steps[1]", "a step has"),
        (HEAD + "  - text: a\n    txt: b\n", 4, "steps[0].txt", "not permitted"),
        (HEAD + "  - text: 1\n", 3, "steps[0].text", "string"),
        (HEAD + "  - text: a\n    calls:\n      - arguments: {}\n", 5, "steps[0].calls[0].tool", "required"),
        (HEAD + "  - calls:\n    - tool: a\n      arguments: [1]\n", 5, "steps[0].calls[0].arguments", "mapping"),
        (
            HEAD + "  - calls:\n    - tool: a\n      arguments: {a: .inf}\n",
            5,
            "steps[0].calls[0].arguments",
            "infinite",
        ),
        (HEAD + "  - calls:\n    - tool: a\n      expect: {}\n", 5, "steps[0].calls[0].expect", "expect something"),
        (
            HEAD + "  - calls:\n    - tool: a\n      expect:\n        matches: '('\n",
            6,
            "steps[0].calls[0].expect.matches",
            "regular expression",
        ),
        (HEAD + "  - fault: {kind: explodes}\n", 3, "steps[0].fault.kind", "rate_limit"),
        (HEAD + "  - text: a\n    delay_s: -1\n", 4, "steps[0].delay_s", "greater"),
        (HEAD + "  - text: a\n    tokens: {input: 1, cache_read: 2}\n", 4, "steps[0].tokens", "part of input"),
        (HEAD + "  - text: a\n    text: b\n", 4, "text", "twice"),
        (HEAD + "  - &a {text: a}\n  - *a\n", 3, "", "aliases"),
        (HEAD + "  - &a [*a]\n", 3, "", "aliases"),
        ("version: 1\n--- \nsteps: []\n", 2, "", "document"),
        ("!!python/object/apply:os.system [id]", 1, "", "constructor"),
    ],
)
def test_a_wrong_script_is_refused_with_line_and_field(
    tmp_path: Path, text: str, line: int, field: str, says: str
) -> None:
    error = refused(tmp_path / "s.yaml", text)
    assert (error.details["line"], error.details["field"]) == (line, field)
    assert f"s.yaml:{line}: " in error.message
    assert field in error.message
    assert says in error.message
    assert error.mend


@pytest.mark.parametrize("text", [b"\xff", b"a: \x00", b"[" * 5000, b"x" * (MAX_BYTES + 1), b"a: " + b"9" * 5000])
def test_what_nobody_can_read_is_refused(tmp_path: Path, text: bytes) -> None:
    assert "s.yaml" in refused(tmp_path / "s.yaml", text).message


@pytest.mark.parametrize("name", ["not there", "."])
def test_a_script_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScriptRefused):
        load_script(tmp_path / name)


@given(st.binary(max_size=200) | st.text(alphabet="abc:-[]{}&*!|>'\"\n ,1", max_size=100).map(str.encode))
def test_any_bytes_are_a_script_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text)
    with suppress(ScriptRefused):
        load_script(path)
