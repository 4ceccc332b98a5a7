"""Rules of users of a server: none leads into the networks around it, however it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.api.tasks import check_outward
from shadow.core.addresses import AddressKind, kind_of
from shadow.core.egress import parse_rule
from shadow.core.errors import Rejected


@pytest.mark.parametrize(
    "rule",
    [
        "localhost:8765",
        "127.0.0.1:80",
        "169.254.169.254:80",
        "10.0.0.0/8:443",
        "192.168.1.1:22",
        "private:git.corp.example",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[fd00::1]:443",
    ],
)
def test_what_leads_inside_is_refused(rule: str) -> None:
    with pytest.raises(Rejected, match="leads to this server"):
        check_outward(["pypi", rule])


@pytest.mark.parametrize("rule", ["pypi", "example.org", ".example.org:8443", "*", "93.184.216.34:443", "1.1.1.1:443"])
def test_what_leads_outside_is_not(rule: str) -> None:
    check_outward([rule])


@given(st.ip_addresses(), st.sampled_from(AddressKind))
def test_a_rule_that_passes_admits_no_address_inside(address: object, kind: AddressKind) -> None:
    text = f"[{address}]:443" if ":" in str(address) else f"{address}:443"
    try:
        rule = parse_rule(text)
        check_outward([text])
    except Rejected:
        return
    assert not rule.admits(rule.host, kind) or kind is AddressKind.PUBLIC or kind_of(address) is AddressKind.PUBLIC  # type: ignore[arg-type]
