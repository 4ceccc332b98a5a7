"""Ways to write a host that is not out there, or that two readers might read as two: none may be reached by who is not trusted.

One list for everything that takes a URL from users: repositories and their submodules, large files, base URLs, egress rules.
"""

from shadow.core.addresses import Address

LOOPBACK = (
    "127.0.0.1", "127.0.0.2", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "127.1", "127.0.1", "0x7f.0.0.1",
    "0x7f000001", "2130706433", "017700000001", "0177.0.0.1", "00.00.00.00", "0", "0.0.0.0",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:1::1]",
    "[::1%25lo]", "[::1%lo]",
)  # fmt: skip
INSIDE = (
    "169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]",
    "[fe80::1%25eth0]", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "192.0.0.170", "198.18.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[fd00::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]",
    "[2001:0:7f00:1::]", "[2002:a00:1::]", "[2002:a9fe:a9fe::]", "[::ffff:10.0.0.1]",
)  # fmt: skip
AMBIGUOUS = (
    "①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1", "127.0.0.1%2f.example.org", "127.0.0.1%00.example.org",
    "127.0.0.1\\.example.org", "127.0.0.1\t", "127.0.0.1\n", "127.0.0.1\r\nHost: x", "exa mple.org", "example.org\\@127.0.0.1",
    "example.org@127.0.0.1", "example.org:443@127.0.0.1", "127.0.0.1#example.org", "127.0.0.1?example.org",
    "-127.0.0.1", "..", "", "[", "]", "[]",
    "[127.0.0.1]", "[::1", "::1", "1.2.3.4.5", "256.256.256.256", "0x", "example.0x7f", "example.1", "*", "*.example.org",
    f"{'a' * 64}.example",
)  # fmt: skip
NASTY = (*LOOPBACK, *INSIDE, *AMBIGUOUS)
"""As they stand in a URL; a port follows."""


async def resolves_to_nothing(host: str) -> tuple[Address, ...]:
    """A resolver for tests: whatever asks for a name has gone too far to be judged by its text."""
    raise OSError(f"{host} was looked up")
