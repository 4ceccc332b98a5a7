"""From where a request comes: nobody is believed but the proxies that were configured."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from shadow.api.sources import LOCAL, neighbourhood, source_of

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def scope(peer: str | None, *forwarded: str) -> Scope:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {"client": (peer, 1234) if peer is not None else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # no proxy of ours
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the left one is what the caller wrote
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7", "10.0.0.2"], "198.51.100.7"),  # two headers are one
        ("10.0.0.1", ["198.51.100.7:5060"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["198.51.100.7"], LOCAL),
    ],
)
def test_the_last_one_on_the_way_that_is_no_proxy(peer: str | None, forwarded: list[str], source: str) -> None:
    assert source_of(scope(peer, *forwarded), PROXIES) == source


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_what_a_stranger_claims_changes_nothing(claim: str) -> None:
    assert source_of(scope("192.0.2.1", claim), PROXIES) == "192.0.2.1"


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_what_a_caller_writes_before_its_own_address_changes_nothing(claim: str) -> None:
    assert source_of(scope("10.0.0.1", f"{claim}, 198.51.100.7"), PROXIES) == "198.51.100.7"


def test_thousands_of_hops_are_not_walked() -> None:
    assert source_of(scope("10.0.0.1", ", ".join(["198.51.100.7", *["10.0.0.2"] * 5000])), PROXIES) == "10.0.0.2"


def test_whoever_has_a_whole_network_of_ipv6_counts_once() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:2") == "2001:db8::/64"
    assert neighbourhood("192.0.2.1") != neighbourhood("192.0.2.2")
