"""The journal: what was written down is there again, also after a torn line."""

import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.errors import Conflict, StaleEpoch
from shadow.execution.holder.journal import MAX_OPERATIONS, Journal

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), NAMES),
        st.tuples(st.just("finish"), NAMES),
        st.tuples(st.just("fail"), NAMES),
        st.tuples(st.just("command"), NAMES),
        st.tuples(st.just("forget"), NAMES),
        st.tuples(st.just("rewrite"), st.just("")),
        st.tuples(st.just("reopen"), st.just("")),
    ),
    max_size=40,
)


@given(steps=STEPS, cut=st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_reopened_it_holds_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(str(path), epoch=1)
    operations: dict[str, dict[str, object] | None] = {}
    commands: dict[str, dict[str, object]] = {}
    for index, (step, name) in enumerate(steps):
        match step:
            case "begin" if name in operations:
                if operations[name] is None:
                    with pytest.raises(Conflict):
                        journal.begin(name, what="write")
                else:
                    assert journal.begin(name, what="write") == operations[name]
            case "begin":
                assert journal.begin(name, what="write") is None
                operations[name] = None
            case "finish" if name in operations:
                journal.finish(name, {"n": index})
                operations[name] = {"n": index}
            case "fail":
                journal.finish(name, None)
                operations.pop(name, None)
            case "command":
                journal.command(name, {"n": index})
                commands[name] = {"n": index}
            case "forget":
                journal.command(name, None)
                commands.pop(name, None)
            case "rewrite":
                journal.rewrite()
            case "reopen":
                journal = Journal(str(path), epoch=1)
            case _:
                pass  # nothing to finish
        assert {name: known.result for name, known in journal.operations.items()} == operations
        assert journal.commands == commands
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "command", "id": "torn", "record": {"x": 1}}'[:cut])
    assert Journal(str(path), epoch=1).commands == commands


def test_the_epoch_only_rises(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), epoch=3)
    journal.check_epoch(7)
    with pytest.raises(StaleEpoch):
        journal.check_epoch(6)
    assert Journal(str(tmp_path / "j"), epoch=1).epoch == 7


def test_one_id_cannot_name_two_kinds_of_calls(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), epoch=1)
    journal.begin("op_1", what="write")
    journal.finish("op_1", {})
    with pytest.raises(Conflict):
        journal.begin("op_1", what="move")


def test_operations_are_bounded(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"), epoch=1)
    for number in range(MAX_OPERATIONS + 10):
        journal.begin(f"op_{number}", what="write")
    assert len(journal.operations) == MAX_OPERATIONS
    assert "op_0" not in journal.operations


def test_a_broken_journal_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        Journal(str(tmp_path / "j"), epoch=1)
    assert caught.value.errno == errno.EISDIR
