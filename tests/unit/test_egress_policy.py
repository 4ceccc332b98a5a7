"""The egress policy: what rules mean, what no rule can allow, and that texts and rules say the same."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.addresses import AddressKind, is_canonical_host, kind_of
from shadow.core.egress import Allowed, EgressPolicy, EgressRule, Refused, decide, parse_rule, parse_rules
from shadow.core.egress_presets import PRESETS
from shadow.core.egress_status import policy_from_json, policy_to_json
from shadow.core.errors import Rejected

PUBLIC = (ip_address("93.184.216.34"), ip_address("2606:2800:220:1::1"))

labels = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
names = st.lists(labels, min_size=2, max_size=4).map(".".join)
ports = st.one_of(st.none(), st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True).map(tuple))
methods = st.one_of(st.none(), st.lists(st.sampled_from(["GET", "HEAD", "POST"]), min_size=1, unique=True).map(tuple))
addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(0, 2**32 - 1).map(lambda n: IPv6Address((0xFFFF << 32) | n)),
)


@st.composite
def rules(draw: st.DrawFn) -> EgressRule:
    kind = draw(st.sampled_from(["", ".", "*."]))
    host = draw(names)
    private = draw(st.booleans()) and not kind
    return EgressRule(host=kind + host, ports=draw(ports) or None, methods=draw(methods), private=private)


def verdict(texts: str, host: str, port: int = 443, *, method: str | None = None, at: object = PUBLIC) -> bool:
    """Whether ``host``, which resolves to the addresses ``at``, may be reached."""
    found = at if at is None or isinstance(at, tuple) else tuple(ip_address(text) for text in str(at).split())
    policy = EgressPolicy(rules=parse_rules(texts.split()))
    return isinstance(decide(policy, host=host, port=port, method=method, addresses=found), Allowed)


# Which hosts


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ("example.org", ["example.org"], ["a.example.org", "example.org.evil.org", "xexample.org", "org"]),
        (".example.org", ["example.org", "a.example.org", "b.a.example.org"], ["xexample.org", "example.com"]),
        ("*.example.org", ["a.example.org", "b.a.example.org"], ["example.org", "xexample.org"]),
        ("*", ["example.org", "a.b.c.org", "93.184.216.34"], []),
        ("pypi", ["pypi.org", "files.pythonhosted.org"], ["test.pypi.org", "evil.pythonhosted.org"]),
        ("EXAMPLE.org", ["example.org"], []),
    ],
)
def test_a_rule_names_hosts(rule: str, allowed: list[str], refused: list[str]) -> None:
    assert [host for host in allowed if not verdict(rule, host)] == []
    assert [host for host in refused if verdict(rule, host)] == []


def test_nothing_is_allowed_without_a_rule() -> None:
    assert not verdict("", "example.org")
    assert not verdict("", "93.184.216.34")


def test_ports_are_those_of_the_web_unless_named() -> None:
    assert [port for port in (22, 80, 443, 8080) if verdict("example.org", "example.org", port)] == [80, 443]
    assert [port for port in (22, 80, 443, 8080) if verdict("example.org:22,8080", "example.org", port)] == [22, 8080]
    assert verdict("example.org:*", "example.org", 1)
    assert not verdict("example.org:*", "example.org", 0)
    assert not verdict("example.org:*", "example.org", 65536)


def test_methods_are_judged_where_they_are_seen_and_a_tunnel_hides_them() -> None:
    assert verdict("example.org=GET,HEAD", "example.org", 80, method="GET")
    assert not verdict("example.org=GET,HEAD", "example.org", 80, method="POST")
    assert not verdict("example.org=GET,HEAD", "example.org", 443, method=None)


# Which addresses


@given(addresses)
def test_a_name_never_reaches_an_address_that_is_not_public(address: IPv4Address | IPv6Address) -> None:
    for rule in ("*:*", "example.org", ".example.org", "0.0.0.0/0", "::/0"):
        if verdict(rule, "example.org", at=(address,)):
            assert kind_of(address) is AddressKind.PUBLIC
            assert address.is_global
    if verdict("*:* 0.0.0.0/0 ::/0", str(address), at=None):
        assert kind_of(address) is AddressKind.PUBLIC


@given(addresses)
def test_no_rule_reaches_multicast_or_unspecified_addresses(address: IPv4Address | IPv6Address) -> None:
    if kind_of(address) in (AddressKind.MULTICAST, AddressKind.UNSPECIFIED):
        assert not verdict("private:example.org localhost", "example.org", at=(address,))
        with pytest.raises(Rejected):
            parse_rule(f"[{address}]:80" if address.version == 6 else f"{address}:80")


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fe80::1", "link-local"),
        ("fd00:ec2::254", "private"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("2002:a00:1::", "private"),
        ("fec0::1", "private"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("::7f00:1", "reserved"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved"),
        ("2001:db8::1", "reserved"),
        ("2002:5db8:d822::", "reserved"),
        ("198.18.0.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("64:ff9b::5db8:d822", "public"),
        ("93.184.216.34", "public"),
        ("172.32.0.1", "public"),
    ],
)
def test_addresses_are_of_the_kind_that_they_lead_to(address: str, kind: str) -> None:
    assert kind_of(ip_address(address)).value == kind


@pytest.mark.parametrize("address", ["10.0.0.5", "198.18.0.7", "fd00::5", "100.100.1.1"])
def test_a_private_rule_lets_its_host_be_in_an_organisations_network(address: str) -> None:
    assert verdict("private:git.corp.example", "git.corp.example", at=address)
    assert not verdict("git.corp.example", "git.corp.example", at=address)
    assert not verdict("private:git.corp.example", "other.corp.example", at=address)
    assert not verdict("private:git.corp.example", address, at=address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0"])
def test_a_private_rule_reaches_neither_this_host_nor_its_link(address: str) -> None:
    assert not verdict("private:git.corp.example", "git.corp.example", at=address)


def test_one_bad_address_among_good_ones_refuses_the_name() -> None:
    assert not verdict("example.org", "example.org", at="93.184.216.34 10.0.0.1")
    assert not verdict("private:example.org", "example.org", at="10.0.0.1 169.254.169.254")
    assert not verdict("example.org", "example.org", at=())


def test_a_rule_of_addresses_names_just_them() -> None:
    assert verdict("127.0.0.1:8000", "127.0.0.1", 8000)
    assert not verdict("127.0.0.1:8000", "127.0.0.2", 8000)
    assert not verdict("127.0.0.1:8000", "example.org", 8000, at="127.0.0.1")
    assert verdict("10.0.0.0/8", "10.9.9.9")
    assert not verdict("10.0.0.0/8", "11.0.0.1")
    assert verdict("[::1]:80", "::1", 80)
    assert verdict("localhost:8000", "localhost", 8000, at="127.0.0.1 ::1")
    assert not verdict("localhost:8000", "localhost", 8000, at="10.0.0.1")
    assert not verdict("0.0.0.0/0", "10.0.0.1")
    assert verdict("0.0.0.0/0", "93.184.216.34")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "127.0.0.01",
            "1.2.3",
            "a.1",
            "a.0x1",
            "1.2.3.4.",
        ),
        *(
            "example.org.",
            ".example.org",
            "exa mple.org",
            "example.org\n",
            "EXAMPLE.org",
            "ex_$.org",
            "-a.org",
            "",
            "a..b",
        ),
        *(
            "[::1]",
            "fe80::1%lo",
            "::1%1",
            "münchen.example",
            "１２７.0.0.1",
            "x" * 64 + ".org",
            "a." * 130 + "org",
            "0x",
        ),
    ],
)
def test_hosts_that_are_not_canonical_are_refused_whatever_the_rules_say(host: str) -> None:
    assert not is_canonical_host(host)
    assert not verdict("*:* 0.0.0.0/0 ::/0", host)


@given(st.text(max_size=40))
def test_whatever_a_host_is_it_is_judged(host: str) -> None:
    decide(EgressPolicy(rules=parse_rules(["*:*"])), host=host, port=443, method=None, addresses=None)


# What a refusal says


@given(rules(), names, st.integers(1, 65535), st.sampled_from(["93.184.216.34", "10.0.0.1", "198.18.0.1"]))
def test_the_rule_that_is_missing_does_allow_it(rule: EgressRule, host: str, port: int, address: str) -> None:
    policy = EgressPolicy(rules=(rule,))
    found = (ip_address(address),)
    for _ in range(2):
        answer = decide(policy, host=host, port=port, method=None, addresses=found)
        if isinstance(answer, Refused):
            assert answer.missing is not None
            policy = EgressPolicy(rules=(*policy.rules, parse_rule(answer.missing)))
    assert isinstance(decide(policy, host=host, port=port, method=None, addresses=found), Allowed)


def test_where_no_rule_helps_none_is_named() -> None:
    policy = EgressPolicy(rules=parse_rules(["example.org"]))
    answer = decide(policy, host="example.org", port=443, method=None, addresses=(ip_address("169.254.169.254"),))
    assert isinstance(answer, Refused)
    assert (answer.missing, "link-local" in answer.reason) == (None, True)


# Texts


@given(rules())
def test_a_rule_is_what_its_text_says(rule: EgressRule) -> None:
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/8",
        "10.0.0.1:8080",
        "[::1]:80",
        "[2606:4700::/32]:443",
        "git:8443",
        "private:git:22",
        "*:*",
        "localhost",
    ],
)
def test_texts_come_back(text: str) -> None:
    assert parse_rule(str(parse_rule(text))) == parse_rule(text)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_rules_that_need_no_private_address(name: str) -> None:
    assert all(not rule.private and rule.network is None and rule.host != "*" for rule in parse_rules([name]))


def test_policies_come_back_from_json() -> None:
    policy = EgressPolicy(rules=parse_rules(["pypi", "private:git.example:8443", "a.example=GET", "[::1]:80"]))
    assert policy_from_json(policy_to_json(policy)) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipy", "no preset 'pipy'"),
        ("https://example.org", "write the host alone"),
        ("example.org:", "is no port"),
        ("example.org:0", "is no port"),
        ("example.org:99999", "is no port"),
        ("example.org=get", "is no method"),
        ("example.org=CONNECT", "is no method"),
        ("private:*.example.org", "exact name"),
        ("private:*", "exact name"),
        ("private:.example.org", "exact name"),
        ("private:10.0.0.0/8", "exact name"),
        ("a.*.example.org", "neither a name"),
        ("**", "neither a name"),
        ("127.1:80", "neither a name"),
        ("2130706433:80", "neither a name"),
        ("10.0.0.1/8", "neither a name"),
        ("münchen.example", "neither a name"),
        ("", "neither a name"),
        ("0.0.0.0", "no address of anybody"),
        ("224.0.0.0/4", "no address of anybody"),
        ("[::1", "does not end"),
        ("a b.example", "neither a name"),
    ],
)
def test_a_bad_rule_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(Rejected, match="is not an egress rule") as refusal:
        parse_rule(text)
    assert says in str(refusal.value)
    assert refusal.value.mend
