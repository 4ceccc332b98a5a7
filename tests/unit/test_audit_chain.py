"""The record of operations as a chain: whatever is changed, taken out, put in or moved, is found."""

from collections.abc import Sequence
from dataclasses import fields, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from shadow.core.audit import FIRST_HASH, AuditContent, AuditEntry, AuditHead, fault, sealed

texts = st.text(max_size=20)
contents = st.builds(
    AuditContent,
    request=texts,
    phase=st.sampled_from(["begun", "ended"]),
    user_id=st.none() | texts,
    credential_id=st.none() | texts,
    method=texts,
    route=texts,
    object=texts,
    source=texts,
    status=st.none() | st.integers(100, 599),
    code=st.none() | texts,
)
times = st.floats(min_value=0, max_value=4e9)
records = st.lists(st.tuples(contents, times), min_size=1, max_size=6)


def chain(written: Sequence[tuple[AuditContent, float]]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    head = AuditHead()
    for content, at in written:
        entries.append(sealed(content, after=head, at=at))
        head = AuditHead(seq=entries[-1].seq, hash=entries[-1].hash)
    return entries


def first_fault(entries: Sequence[AuditEntry]) -> int | None:
    head = AuditHead()
    for number, entry in enumerate(entries, start=1):
        if fault(entry, after=head) is not None:
            return number
        head = AuditHead(seq=entry.seq, hash=entry.hash)
    return None


@given(records)
def test_what_was_written_is_whole(written: list[tuple[AuditContent, float]]) -> None:
    entries = chain(written)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0].previous == FIRST_HASH
    assert first_fault(entries) is None


@given(records, st.data())
def test_any_changed_field_is_found(written: list[tuple[AuditContent, float]], data: st.DataObject) -> None:
    entries = chain(written)
    number = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(contents)
    name = data.draw(st.sampled_from([field.name for field in fields(AuditContent)]))
    value = getattr(other, name)
    assume(value != getattr(entries[number].content, name))
    entries[number] = replace(entries[number], content=replace(entries[number].content, **{name: value}))
    assert first_fault(entries) == number + 1


@given(records, st.data())
def test_another_time_is_found(written: list[tuple[AuditContent, float]], data: st.DataObject) -> None:
    entries = chain(written)
    number = data.draw(st.integers(0, len(entries) - 1))
    at = data.draw(times)
    assume(at != entries[number].at)
    entries[number] = replace(entries[number], at=at)
    assert first_fault(entries) == number + 1


@given(records, st.data())
def test_an_entry_that_is_gone_is_found(written: list[tuple[AuditContent, float]], data: st.DataObject) -> None:
    entries = chain(written)
    number = data.draw(st.integers(0, len(entries) - 1))
    assume(number < len(entries) - 1)  # of the last one only the head tells
    del entries[number]
    assert first_fault(entries) == number + 1
    # Numbered anew, so that no gap shows:
    moved = [replace(entry, seq=place) for place, entry in enumerate(entries, start=1)]
    assert first_fault(moved) == number + 1


@given(records, st.data())
def test_another_order_is_found(written: list[tuple[AuditContent, float]], data: st.DataObject) -> None:
    entries = chain(written)
    shuffled = data.draw(st.permutations(entries))
    assume(shuffled != entries)
    assert first_fault(shuffled) is not None
    numbered = [replace(entry, seq=place) for place, entry in enumerate(shuffled, start=1)]
    assert first_fault(numbered) is not None


def test_fields_do_not_run_into_each_other() -> None:
    one = AuditContent(
        request="r",
        phase="begun",
        user_id="ab",
        credential_id="c",
        method="GET",
        route="/",
        object="",
        source="",
    )
    other = replace(one, user_id="a", credential_id="bc")
    assert sealed(one, after=AuditHead(), at=1.0).hash != sealed(other, after=AuditHead(), at=1.0).hash
    assert sealed(replace(one, user_id=None), after=AuditHead(), at=1.0) != sealed(
        replace(one, user_id="None"), after=AuditHead(), at=1.0
    )
