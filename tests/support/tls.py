"""Certificates of an authority that nobody else knows, and what speaks TLS with them in front of a server."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """
[ca]
default_ca = shadow
[shadow]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
certificate = ca.pem
private_key = ca.key
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def trust(self) -> ssl.SSLContext:
        """Of a client that knows it."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def issue(self, name: str, *, begins: str = "20200101000000Z", ends: str = "20991231000000Z") -> tuple[Path, Path]:
        """A certificate and its key. ``name``: as subjectAltName has it: ``DNS:localhost``."""
        made = f"{name}-{ends}".replace(":", "-")
        certificate, key, request = (self.directory / f"{made}.{kind}" for kind in ("pem", "key", "csr"))
        subject = ("-subj", "/CN=server", "-addext", f"subjectAltName={name}")
        self._openssl("req", *EC, "-keyout", str(key), "-out", str(request), *subject)
        dates = ("-startdate", begins, "-enddate", ends)
        signed = ("-in", str(request), "-out", str(certificate), "-notext", *dates)
        self._openssl("ca", "-batch", "-config", "ca.cnf", *signed)
        return certificate, key

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


def make_authority(directory: Path) -> Authority | None:
    """``None`` where openssl is missing."""
    if shutil.which("openssl") is None:
        return None
    (directory / "ca.cnf").write_text(CONFIG)
    (directory / "index.txt").touch()
    made = ("-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    subprocess.run(["openssl", "req", "-x509", *EC, *made], cwd=directory, check=True, capture_output=True)
    return Authority(directory)


@dataclass
class Front:
    port: int
    received: bytearray = field(default_factory=bytearray)
    """All that clients have sent, as it came out of TLS."""
    transports: list[asyncio.Transport] = field(default_factory=list[asyncio.Transport])


class _Side(asyncio.Protocol):
    """One end of a link; what comes before the other end is there waits for it."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._waiting = bytearray()
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._front.transports.append(transport)
        transport.write(bytes(self._waiting))

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._waiting += data
        else:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Outer(_Side):
    def __init__(self, front: Front, port: int) -> None:
        super().__init__(front)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = _Side(self._front)
        self.other.other = self
        inner = self.other
        self._connecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(lambda: inner, "127.0.0.1", self._port)
        )

    def data_received(self, data: bytes) -> None:
        self._front.received += data
        super().data_received(data)


@asynccontextmanager
async def tls_front(port: int, certificate: Path, key: Path) -> AsyncGenerator[Front]:
    """Takes TLS at a port of its own and passes on what is in it to ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front = Front(0)
    server = await asyncio.get_running_loop().create_server(lambda: _Outer(front, port), "127.0.0.1", 0, ssl=context)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        for transport in front.transports:
            if not transport.is_closing():
                transport.abort()
        await asyncio.sleep(0)
