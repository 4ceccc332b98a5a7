"""The manifest: it survives the trip, newer ones are understood, damaged ones are never believed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Broken, NotFound
from shadow.core.ids import WorkspaceId
from shadow.core.limits import Limits
from shadow.core.workspaces import Isolation
from shadow.execution.local.manifest import (
    HOLDER,
    MANIFEST,
    Manifest,
    decode_manifest,
    encode_manifest,
    read_holder,
    read_manifest,
    write_holder,
    write_manifest,
)
from shadow.execution.local.process import ProcessIdentity

PROCESS = ProcessIdentity(boot_id="3f2c", pid=17, start_ticks=4711)
FULL = Manifest(
    id=WorkspaceId("ws_1"),
    isolation=Isolation.SANDBOX,
    created_at=1.5,
    lease_expires_at=9.25,
    token="secret",
    epoch=3,
    starter=PROCESS,
    name="a näme",
    made=True,
    ready=True,
    uid=1_900_000_000,
    tcp_port=4000,
    env={"A": "b=c"},
    limits=Limits(memory_bytes=1 << 30, cpus=0.5, command_time_s=60.0),
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_what_is_written_is_read(directory: int) -> None:
    write_manifest(directory, FULL)
    assert read_manifest(directory) == FULL
    assert os.listdir(directory) == [MANIFEST]
    assert os.stat(MANIFEST, dir_fd=directory).st_mode & 0o777 == 0o600


def test_a_newer_manifest_is_understood() -> None:
    values = {**json.loads(encode_manifest(FULL)), "invented_later": [1]}
    assert decode_manifest(json.dumps(values).encode()) == FULL


def test_an_older_manifest_has_no_limits() -> None:
    values = json.loads(encode_manifest(FULL))
    del values["limits"]
    assert decode_manifest(json.dumps(values).encode()).limits == Limits()


@pytest.mark.parametrize(
    "limits", [[], 1, None, {"processes": "5"}, {"cpus": -1}, {"memory_bytes": True}, {"cpus": 1e400}]
)
def test_damaged_limits_are_broken(limits: object) -> None:
    with pytest.raises(Broken):
        decode_manifest(json.dumps({**json.loads(encode_manifest(FULL)), "limits": limits}).encode())


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(FULL)


@pytest.mark.parametrize(
    "name", ["id", "isolation", "created_at", "lease_expires_at", "token", "epoch", "starter", "made"]
)
@pytest.mark.parametrize("value", [None, [], {}, "\udcff", True, -1, 1e400, 10**400, "../../x"])
def test_a_damaged_field_is_broken(name: str, value: object) -> None:
    values = json.loads(encode_manifest(FULL))
    values[name] = value
    if name in ("token", "made") and type(value) is type(json.loads(encode_manifest(FULL))[name]):
        return  # as good as any other
    with pytest.raises(Broken):
        decode_manifest(json.dumps(values).encode())


@given(st.integers(0, len(encode_manifest(FULL)) - 1))
def test_a_manifest_that_was_cut_is_broken(length: int) -> None:
    with pytest.raises(Broken):
        decode_manifest(encode_manifest(FULL)[:length])


@given(st.binary(max_size=200))
def test_anything_else_is_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        decode_manifest(data)


def test_nesting_without_end_is_broken() -> None:
    with pytest.raises(Broken):
        decode_manifest(b"[" * 200_000)


def test_none_at_all_is_not_found(directory: int) -> None:
    with pytest.raises(NotFound):
        read_manifest(directory)


def test_what_is_no_file_is_broken(directory: int, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).symlink_to("/etc/passwd")
    with pytest.raises(Broken):
        read_manifest(directory)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(Broken):
        read_manifest(directory)


def test_a_pipe_in_its_place_blocks_nobody(directory: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(Broken):
        read_manifest(directory)


def test_the_holders_record_is_apart_and_tolerant(directory: int, tmp_path: Path) -> None:
    assert read_holder(directory) is None
    write_holder(directory, PROCESS)
    assert read_holder(directory) == PROCESS
    (tmp_path / HOLDER).write_bytes(b'{"pid": 0}')
    assert read_holder(directory) is None
