"""Errors on the wire: each kind comes back as itself; what a stranger sends becomes something typed."""

import json

import pytest

from shadow.core.errors import Broken, NotFound, ShadowError, TextNotUnique, Unauthenticated, Unavailable, type_by_code
from shadow.wire.errors import MAX_MESSAGE_CHARS, decode_error, encode_error, status_by_class, status_of


@pytest.mark.parametrize("kind", type_by_code.values())
def test_every_error_comes_back_as_itself(kind: type[ShadowError]) -> None:
    sent = kind("It failed.", mend="Do this.", details={"lines": [1, 2]})
    got = decode_error(encode_error(sent), status=status_of(sent))
    assert type(got) is kind
    assert (got.message, got.mend, got.details) == (sent.message, sent.mend, sent.details)


def test_an_error_has_the_status_of_its_nearest_class() -> None:
    assert status_of(TextNotUnique("x")) == 422
    assert status_of(ShadowError("x")) == 500
    assert all(400 <= status < 600 for status in status_by_class.values())


def test_stray_bytes_in_a_message_stay_readable() -> None:
    body = encode_error(NotFound("There is no a\udcff.", details={"path": "a\udcff", "at": (1, None, 2.5, object)}))
    told = json.loads(body)["error"]
    assert told["message"] == r"There is no a\udcff."
    assert told["details"]["path"] == r"a\udcff"


@pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"[]", b'{"error": "x"}', b'{"error": {"code": 5}}'])
def test_without_a_body_the_status_speaks(body: bytes) -> None:
    assert type(decode_error(body, status=503)) is Unavailable
    assert type(decode_error(body, status=404)) is NotFound
    assert type(decode_error(body, status=418)) is Broken


def test_an_unknown_code_falls_back_to_the_status() -> None:
    error = decode_error(b'{"error": {"code": "too_tired", "message": "no"}}', status=404)
    assert type(error) is NotFound
    assert error.message == "no"


def test_401_is_unauthenticated_whatever_the_body_says() -> None:
    assert type(decode_error(encode_error(NotFound("x")), status=401)) is Unauthenticated


def test_a_long_message_is_cut() -> None:
    assert len(decode_error(encode_error(NotFound("x" * 100_000)), status=404).message) == MAX_MESSAGE_CHARS
