"""The head of a request to the proxy, read strictly: what two readers could read in two ways is refused. No I/O.

One request per connection. Either ``CONNECT host:port`` or ``METHOD http://host[:port]/path``. Lines end in CR LF; a header's
name is a token directly before its colon; no line is folded; the length of the body is said once, in one way; ``Host`` is the
target.
"""

import re
from dataclasses import dataclass

from shadow.core.addresses import is_canonical_host

MAX_HEADERS = 200
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_HOP_BY_HOP = {
    *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"transfer-encoding"),
    *(b"proxy-authorization", b"proxy-authenticate", b"expect", b"http2-settings", b"content-length", b"host"),
}  # fmt: skip
Headers = tuple[tuple[bytes, bytes], ...]


class BadRequest(Exception):
    def __init__(self, reason: str, *, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    """``CONNECT`` for a tunnel."""
    target: Target
    path: bytes
    headers: Headers
    """Those for the server: without those of the hop, of the body's length, and ``Host``."""
    body_bytes: int | None
    """``None``: chunked."""
    authorization: bytes | None
    """``Proxy-Authorization``."""

    @property
    def is_tunnel(self) -> bool:
        return self.method == "CONNECT"

    def head(self) -> bytes:
        """What the server gets: the same request on a connection of its own."""
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        authority = host if self.target.port == 80 else f"{host}:{self.target.port}"
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), self.path), b"Host: " + authority.encode()]
        lines += [b"%s: %s" % header for header in self.headers]
        if self.body_bytes is None:
            lines.append(b"Transfer-Encoding: chunked")
        elif self.body_bytes or self.method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            lines.append(b"Content-Length: %d" % self.body_bytes)
        return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def parse_request(head: bytes, *, limit_bytes: int) -> Request:
    """``head``: up to and with the empty line. Raises: BadRequest."""
    if len(head) > limit_bytes:
        raise BadRequest("its head is too large", status=431)
    first, *rest = _lines(head)
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequest("the request line is not one of HTTP/1.1")
    method, target_text, minor = line[1].decode(), line[2].decode(), int(line[3])
    headers = _parse_headers(rest)
    if method == "CONNECT":
        target, path = parse_authority(target_text, default_port=None), b""
    else:
        target, path = _parse_absolute(target_text)
    _check_host(headers, target, minor=minor, default_port=None if method == "CONNECT" else 80)
    body_bytes = _body_bytes(headers, minor=minor)
    if method == "CONNECT" and body_bytes != 0:
        raise BadRequest("a tunnel's request has no body")
    named = {name.strip().lower() for value in _values(headers, b"connection") for name in value.split(b",")}
    kept = tuple((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP | named)
    authorization = _values(headers, b"proxy-authorization")
    if len(authorization) > 1:
        raise BadRequest("Proxy-Authorization is there more than once")
    return Request(
        method=method,
        target=target,
        path=path,
        headers=kept,
        body_bytes=body_bytes,
        authorization=authorization[0] if authorization else None,
    )


def _lines(head: bytes) -> list[bytes]:
    if not head.endswith(b"\r\n\r\n"):
        raise BadRequest("the head does not end")
    lines = head[:-4].split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise BadRequest("a line does not end in CR LF")
    return lines


def _parse_headers(lines: list[bytes]) -> Headers:
    if len(lines) > MAX_HEADERS:
        raise BadRequest(f"there are more than {MAX_HEADERS} headers", status=431)
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise BadRequest("a header is folded or malformed")
        headers.append((header[1], header[2].strip(b" \t")))
    return tuple(headers)


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def parse_authority(text: str, *, default_port: int | None) -> Target:
    """``host:port`` with IPv6 in brackets. Raises: BadRequest."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/?#]+))(?::([0-9]{1,5}))?", text)
    if match is None or (match[3] is None and default_port is None):
        raise BadRequest("the target is not HOST:PORT")
    host = (match[1] or match[2]).lower()
    port = int(match[3]) if match[3] is not None else default_port or 0
    if not is_canonical_host(host) or (match[1] is not None) != (":" in host):
        raise BadRequest("the target's host is neither a canonical name nor an address")
    if not 0 < port < 65536:
        raise BadRequest("the target's port is not one")
    return Target(host=host, port=port)


def _parse_absolute(text: str) -> tuple[Target, bytes]:
    scheme, separator, rest = text.partition("://")
    if text.startswith("/") or not separator:
        raise BadRequest("this is a proxy: it takes http://HOST/PATH and CONNECT HOST:PORT")
    if scheme.lower() != "http":
        raise BadRequest("only http:// is fetched by the proxy itself; for https ask for a tunnel (CONNECT)")
    match = re.fullmatch(r"([^/?#]+)(/[^#]*|\?[^#]*|)", rest)
    if match is None:
        raise BadRequest("the target is not http://HOST/PATH")
    path = match[2] if match[2].startswith("/") else f"/{match[2]}"
    return parse_authority(match[1], default_port=80), path.encode()


def _check_host(headers: Headers, target: Target, *, minor: int, default_port: int | None) -> None:
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and minor == 1):
        raise BadRequest("there must be exactly one Host")
    for host in hosts:
        if parse_authority(host.decode("latin-1"), default_port=default_port or target.port) != target:
            raise BadRequest("Host is not the target")


def _body_bytes(headers: Headers, *, minor: int) -> int | None:
    lengths, encodings = _values(headers, b"content-length"), _values(headers, b"transfer-encoding")
    if encodings:
        if lengths or minor == 0 or len(encodings) > 1 or encodings[0].lower() != b"chunked":
            raise BadRequest("the body's length is said in more than one way, or in an unknown one")
        return None
    if len(lengths) > 1 or (lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0])):
        raise BadRequest("the body's length is said in more than one way, or in an unknown one")
    return int(lengths[0]) if lengths else 0


def parse_chunk_size(line: bytes) -> int:
    """``line``: with its CR LF. Extensions are dropped. Raises: BadRequest."""
    match = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n", line)
    if match is None:
        raise BadRequest("a chunk's size is malformed")
    return int(match[1], 16)


def parse_response(head: bytes, *, method: str) -> tuple[int, bytes, int | None]:
    """Status, the head for the client, and how many bytes follow (``None``: until the end). Raises: BadRequest (status 502)."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = re.fullmatch(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?", lines[0])
    headers = [_HEADER.fullmatch(text) for text in lines[1:]]
    if line is None or None in headers:
        raise BadRequest("the server's answer is not one of HTTP/1.1", status=502)
    pairs = tuple((header[1], header[2].strip(b" \t")) for header in headers if header is not None)
    status = int(line[1])
    lengths, chunked = set(_values(pairs, b"content-length")), _values(pairs, b"transfer-encoding")
    if (chunked and lengths) or len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", n) for n in lengths):
        raise BadRequest("the server's answer says its length in more than one way", status=502)
    dropped = {b"connection", b"proxy-connection", b"keep-alive", b"upgrade", b"proxy-authenticate", b"alt-svc"}
    kept = [b"%s: %s" % pair for pair in pairs if pair[0].lower() not in dropped]
    answer = b"\r\n".join([lines[0], *kept, b"Connection: close", b"", b""])
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return status, answer, 0
    return status, answer, int(lengths.pop()) if lengths else None
