"""Repositories for tests, and real servers for them on loopback: ``git http-backend`` over HTTP(S), and sshd."""

import base64
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.lfs_server import LfsServer

GIT_ENV = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "Somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_TERMINAL_PROMPT": "0",
}


def git(directory: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> str:
    """git as an ordinary developer would run it; its stdout without the last newline."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={**os.environ, **GIT_ENV, **(env or {})},
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, (arguments, done.stderr.decode(errors="replace"))
    return os.fsdecode(done.stdout).rstrip("\n")


def make_repository(path: Path, files: Mapping[str, bytes] | None = None, *, branch: str = "main") -> Path:
    """A repository with one commit."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", f"--initial-branch={branch}")
    commit(path, files if files is not None else {"README": b"hello\n", "src/a.py": b"print(1)\n"}, "first")
    return path


def commit(path: Path, files: Mapping[str, bytes], message: str) -> str:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


@dataclass
class GitServer:
    """What the tests look at and turn."""

    url: str
    root: Path
    requests: list[str] = field(default_factory=list[str])
    """Method and path of each."""
    authorizations: list[str] = field(default_factory=list[str])
    user: tuple[str, str] | None = None
    """Who may come in; ``None``: everybody."""
    redirect: str | None = None
    """Where every request is sent to instead."""
    answer: Callable[[BaseHTTPRequestHandler], bool] | None = None
    """Answers by itself where it returns ``True``."""
    lfs: LfsServer = field(default_factory=LfsServer)


@contextmanager
def http_server(root: Path, *, certificate: Path | None = None) -> Generator[GitServer]:
    """Serves the repositories below ``root``; pushing is allowed."""
    backend = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    server = GitServer(url="", root=root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            server.requests.append(f"{self.command} {self.path}")
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if not self.headers.get("Transfer-Encoding") else self._chunks()
            if server.answer is not None and server.answer(self):
                return
            if server.redirect is not None:
                self._head(302, {"Location": server.redirect + self.path, "Content-Length": "0"})
                return
            authorization = self.headers.get("Authorization") or ""
            given = base64.b64decode(authorization.partition(" ")[2]).decode()
            if given:
                server.authorizations.append(given)
            if server.user is not None and given != ":".join(server.user):
                self._head(401, {"WWW-Authenticate": 'Basic realm="git"', "Content-Length": "0"})
                return
            if not server.lfs.serve(self, body):
                self._run(body)

        def _chunks(self) -> bytes:
            data = b""
            while size := int(self.rfile.readline().strip(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _run(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            env = {
                **os.environ,
                **GIT_ENV,
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": unquote(path),
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
                "REMOTE_USER": server.user[0] if server.user else "anybody",
            }
            done = subprocess.run(
                [f"{backend}/git-http-backend"], env=env, input=body, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
            status = int(headers.pop("Status", "200").split()[0])
            self._head(status, {**headers, "Content-Length": str(len(content))})
            self.wfile.write(content)

        def _head(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def make_certificate(directory: Path) -> Path | None:
    """Key and certificate of 127.0.0.1 in one file, its own authority; ``None`` where openssl is missing."""
    if shutil.which("openssl") is None:
        return None
    path = directory / "server.pem"
    key = directory / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", str(key), "-out", str(path)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *made],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@dataclass(frozen=True)
class SshServer:
    port: int
    command: str
    """For GIT_SSH_COMMAND: knows the key and the host's key."""
    strange_command: str
    """Knows neither."""


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.01)
        else:
            return


@contextmanager
def ssh_server(directory: Path, *, programs: Path | None = None) -> Generator[SshServer | None]:
    """sshd on loopback for the user who runs the tests; ``None`` where there is none. ``programs``: first in its PATH."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")
    if program is None:
        yield None
        return
    directory.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    (directory / "authorized").write_bytes((directory / "user.pub").read_bytes())
    (directory / "authorized").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (directory / "known").write_text(f"[127.0.0.1]:{port} {(directory / 'host.pub').read_text()}")
    settings = [
        f"HostKey {directory}/host",
        f"AuthorizedKeysFile {directory}/authorized",
        f"PidFile {directory}/pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        *([f"SetEnv PATH={programs}:/usr/local/bin:/usr/bin:/bin"] if programs is not None else []),
    ]
    (directory / "config").write_text("\n".join(settings) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts away its helpers
    server = subprocess.Popen(
        [program, "-D", "-e", "-f", str(directory / "config"), "-p", str(port), "-o", "ListenAddress=127.0.0.1"],
        stderr=subprocess.DEVNULL,
    )
    _wait_for_port(port)
    plain = "ssh -F /dev/null -o IdentitiesOnly=yes"
    try:
        yield SshServer(
            port=port,
            command=f"{plain} -i {directory}/user -o UserKnownHostsFile={directory}/known",
            strange_command=f"{plain} -i /nonexistent -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null",
        )
    finally:
        server.terminate()
        server.wait()
