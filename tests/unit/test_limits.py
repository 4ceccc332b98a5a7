"""Limits as values: what is asked for over what is set, who is to be ended, sizes as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Rejected
from shadow.core.limits import (
    SMALLEST,
    Activity,
    LimitKind,
    Limits,
    TreeSize,
    Usage,
    check_limits,
    exceeded_by,
    grower,
    limits_from,
    parse_bytes,
    reached,
)

USAGES = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.builds(
        Usage,
        memory_bytes=st.integers(min_value=0, max_value=1000),
        processes=st.integers(min_value=0, max_value=50),
        shared_bytes=st.integers(min_value=0, max_value=100),
    ),
    max_size=6,
)


def test_what_is_asked_for_goes_over_what_is_set() -> None:
    asked, set_ = Limits(memory_bytes=5, cpus=0.5), Limits(memory_bytes=9, processes=7)
    assert asked.over(set_) == Limits(memory_bytes=5, cpus=0.5, processes=7)
    assert Limits().over(Limits()) == Limits()


@pytest.mark.parametrize("name", SMALLEST)
def test_what_no_command_could_live_with_is_rejected(name: str) -> None:
    for value in (0, -1, math.nan, math.inf, SMALLEST[name] * 0.99, 2**63):
        with pytest.raises(Rejected, match=name):
            check_limits(Limits(**{name: value}))
    check_limits(Limits(**{name: SMALLEST[name]}))  # type: ignore[arg-type]
    assert set(SMALLEST) == {name for name, _ in Limits().pairs()}


def test_from_a_file_unknown_names_are_skipped_and_damage_is_refused() -> None:
    assert limits_from({"processes": 5, "cpus": 2, "later": "x", "open_files": None}) == Limits(processes=5, cpus=2.0)
    for damaged in ("5", True, -1, 0, [1], math.nan, math.inf):
        with pytest.raises(TypeError):
            limits_from({"processes": damaged})


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("17", 17), ("1k", 1024), ("512m", 512 << 20), ("4G", 4 << 30), ("1.5g", 3 << 29), ("2 GiB", 2 << 30)],
)  # fmt: skip
def test_sizes_are_powers_of_1024(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "g", "-1", "1x", "1e9", "4gg", "0x10", "nan", "1,5g", "9" * 40])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        parse_bytes(text)


@given(usages=USAGES, files_bytes=st.integers(min_value=0, max_value=500))
def test_a_command_is_ended_only_where_a_limit_is_exceeded_and_then_the_heaviest(
    usages: dict[str, Usage], files_bytes: int
) -> None:
    limits = Limits(memory_bytes=800, processes=60)
    found = reached(limits, usages, files_bytes=files_bytes)
    processes = sum(u.processes for u in usages.values())
    memory = sum(u.memory_bytes for u in usages.values())
    match found:
        case None:
            assert not usages or (processes <= 60 and memory <= 800)
        case LimitKind.PROCESSES, name:
            assert processes > 60
            assert usages[name].processes == max(u.processes for u in usages.values())
        case kind, name:
            assert kind is LimitKind.MEMORY
            assert memory + files_bytes > 800
            assert usages[name].memory_bytes == max(u.memory_bytes for u in usages.values())


def test_without_limits_nobody_is_ended() -> None:
    assert reached(Limits(), {"a": Usage(memory_bytes=1 << 60, processes=1 << 30)}, files_bytes=1 << 60) is None


def test_mapped_files_in_memory_count_once() -> None:
    mapping = {"a": Usage(memory_bytes=60, processes=1, shared_bytes=50)}
    assert reached(Limits(memory_bytes=60), mapping, files_bytes=50) is None
    assert reached(Limits(memory_bytes=60), mapping, files_bytes=51) == (LimitKind.MEMORY, "a")


def test_the_checkout_exceeds_bytes_or_files() -> None:
    limits = Limits(workspace_bytes=100, workspace_files=10)
    assert exceeded_by(limits, TreeSize(size_bytes=100, files=10)) is None
    assert exceeded_by(limits, TreeSize(size_bytes=101, files=1)) is LimitKind.WORKSPACE_BYTES
    assert exceeded_by(limits, TreeSize(size_bytes=1, files=11)) is LimitKind.WORKSPACE_FILES
    assert exceeded_by(Limits(), TreeSize(size_bytes=1 << 60, files=1 << 40)) is None


def test_who_wrote_most_made_it_grow() -> None:
    done = {
        "reader": Activity(system_ticks=9),
        "writer": Activity(written_bytes=50, system_ticks=2),
        "idle": Activity(),
    }
    assert grower(LimitKind.WORKSPACE_BYTES, done) == "writer"
    assert grower(LimitKind.WORKSPACE_FILES, done) == "reader"
    assert grower(LimitKind.WORKSPACE_BYTES, {"idle": Activity()}) is None
    assert grower(LimitKind.WORKSPACE_BYTES, {}) is None


def test_nobody_is_ended_for_what_the_executor_wrote() -> None:
    done = {"writer": Activity(written_bytes=50)}
    assert grower(LimitKind.WORKSPACE_BYTES, done, unless_below_bytes=51) is None
    assert grower(LimitKind.WORKSPACE_BYTES, done, unless_below_bytes=50) == "writer"


def test_activity_never_goes_back() -> None:
    """Processes that ended meanwhile take their count with them."""
    now, before = Activity(written_bytes=5, system_ticks=3), Activity(written_bytes=9, system_ticks=1)
    assert now.since(before) == Activity(written_bytes=0, system_ticks=2)
