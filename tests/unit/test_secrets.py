"""Secrets are taken out of what is kept."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.secrets import MIN_SECRET_CHARS, REMOVED, Redactor, secret_values

secrets = st.text(min_size=MIN_SECRET_CHARS, max_size=40).filter(lambda text: text not in REMOVED)
around = st.text(max_size=20)


@given(secrets, around, around)
def test_a_known_secret_is_removed_however_it_is_written(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    data = secret.encode("utf-8", "surrogatepass")
    for form in (secret, json.dumps(secret)[1:-1], quote(data, safe=""), base64.b64encode(data).decode()):
        assert form not in redactor.text(before + form + after).replace(REMOVED, "")


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-" + "a1B2" * 10,
        "sk-proj-" + "a1B2_" * 8,
        "sk-or-v1-" + "0a" * 20,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 10,
        "glpat-" + "a1B2-" * 4,
        "AKIA" + "A1B2" * 4,
        "AIza" + "a1B2-" * 7,
        "xoxb-" + "123-abc" * 3,
        "hf_" + "a1B2" * 8,
        "npm_" + "a1B2" * 9,
        "pypi-" + "a1B2" * 20,
        "sk_live_" + "a1B2" * 6,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    ],
)
def test_the_known_forms_of_keys_are_removed(key: str) -> None:
    assert Redactor().text(f"KEY={key}\n") == f"KEY={REMOVED}\n"
    assert key not in Redactor().text(json.dumps({"env": f"x {key} y"}))


def test_keys_in_blocks_headers_and_addresses_are_removed() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\ndef\n"
    assert Redactor().text(f"a\n{block}-----END RSA PRIVATE KEY-----\nb") == f"a\n{REMOVED}\nb"
    assert Redactor().text(f"a\n{block}") == f"a\n{REMOVED}"
    assert Redactor().text("Authorization: Bearer abcdef\nb") == f"Authorization: Bearer {REMOVED}\nb"
    assert Redactor().text('{"x-api-key": "abcdef"}') == f'{{"x-api-key": "{REMOVED}"}}'
    assert Redactor().text("git clone https://me:pass@example.org/a") == f"git clone https://{REMOVED}@example.org/a"


@pytest.mark.parametrize(
    "text",
    [
        "the task-runner-has-many-words and sk-ip",
        "https://example.org:8080/a@b ssh://git@example.org/a",
        "a commit 0123456789abcdef0123456789abcdef01234567",
        "def authorization(self): return None",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor(["", "short"]).text(text) == text


def test_every_text_of_a_value_is_looked_at_names_too() -> None:
    value: Any = {"a secret1": ["secret1234", ("x", {"b": "my secret1234"})], "n": 1, "t": True, "z": None}
    assert Redactor(["secret1234", "a secret1"]).value(value) == {
        REMOVED: [REMOVED, ["x", {"b": f"my {REMOVED}"}]],
        "n": 1,
        "t": True,
        "z": None,
    }


def test_variables_are_secret_by_their_names() -> None:
    environment = {
        "OPENAI_API_KEY": "value-one",
        "GITHUB_TOKEN": "value-two",
        "DB_PASSWORD": "value-three",
        "aws_secret_access_key": "value-four",
        "TOKEN": "short",
        "PWD": "/home/someone",
        "KEYBOARD": "de-latin1-nodeadkeys",
        "PATH": "/usr/bin:/bin",
    }
    assert secret_values(environment) == ("value-one", "value-two", "value-three", "value-four")


def test_hostile_text_does_not_take_long() -> None:
    for piece in ("eyJ-", "a-", "sk-", "http://a:", "-----BEGIN ", "authorization: "):
        Redactor(["secret1234"]).text(piece * 16_000)
