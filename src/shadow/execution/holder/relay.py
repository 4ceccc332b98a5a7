"""The relay: takes connections of programs inside a workspace and pipes each to the egress proxy's unix socket.

It runs as an ordinary process of the workspace, is started by the holder on the first connection, and goes when nobody has
used it for a while. Nothing depends on it being honest: the proxy, outside, decides.
"""

import os
import socket
import sys
from collections.abc import Callable

from shadow.execution.holder.loop import Loop, Timer

LISTEN_FD = 3
IDLE_S = 60.0
MAX_CONNECTIONS = 512
_PIECE_BYTES = 256 * 1024
_GONE_S = 30.0
"""For the other side to end too once the proxy has said its last word."""


class Pipe:
    """One direction: what was read and not yet written is at most one piece."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source = source
        self._target = target
        self._piece = memoryview(b"")
        self.ended = False

    @property
    def reads(self) -> bool:
        return not self.ended and not self._piece

    @property
    def writes(self) -> bool:
        return bool(self._piece)

    def read(self) -> None:
        try:
            data = self._source.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        if data:
            self._piece = memoryview(data)
            self.write()
        else:
            self.ended = True
            self._target.shutdown(socket.SHUT_WR)

    def write(self) -> None:
        try:
            self._piece = self._piece[self._target.send(self._piece) :]
        except BlockingIOError:
            return


class Connection:
    def __init__(self, loop: Loop, client: socket.socket, proxy: socket.socket, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._client, self._proxy = client, proxy
        self._out = Pipe(client, proxy)
        self._in = Pipe(proxy, client)
        self._timer: Timer | None = None
        self._open = True
        self._arrange()

    def _arrange(self) -> None:
        """Watch what can go on now."""
        if self._in.ended and self._out.ended:
            self._end()
            return
        if self._in.ended and self._timer is None:
            self._timer = self._loop.call_later(_GONE_S, self._end)
        self._watch(self._client, self._out, self._in)
        self._watch(self._proxy, self._in, self._out)

    def _watch(self, end: socket.socket, source: Pipe, sink: Pipe) -> None:
        """``source`` reads from ``end``, ``sink`` writes to it."""

        def ready() -> None:
            try:
                if sink.writes:
                    sink.write()
                if source.reads:
                    source.read()
            except OSError:
                self._end()
            else:
                self._arrange()

        fd = end.fileno()
        if source.reads:
            self._loop.watch(fd, ready)
            if sink.writes:
                self._loop.watch_both(fd, ready)
        elif sink.writes:
            self._loop.watch(fd, ready, write=True)
        else:
            self._loop.unwatch(fd)

    def _end(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        for end in (self._client, self._proxy):
            self._loop.unwatch(end.fileno())
            end.close()
        self._on_end()


class Relay:
    def __init__(self, listener: socket.socket, proxy_path: str, refusal: str) -> None:
        self._loop = Loop(on_children=lambda: None, on_idle=lambda: None)
        self._listener = listener
        self._proxy_path = proxy_path
        body = f"{refusal}\n".encode()
        self._refusal = (
            b"HTTP/1.1 403 Egress refused: this workspace may reach no host\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        self._connections = 0
        self._idle: Timer | None = None

    def run(self) -> None:
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), self._accept)
        self._wait_idle()
        self._loop.run()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        proxy = socket.socket(socket.AF_UNIX)
        proxy.setblocking(False)
        try:
            if self._connections >= MAX_CONNECTIONS:
                raise ConnectionRefusedError
            proxy.connect(self._proxy_path)
        except OSError:  # no proxy, so no rule; or far too many wait for it already
            proxy.close()
            proxy, ours = socket.socketpair()
            proxy.setblocking(False)
            ours.sendall(self._refusal)
            ours.shutdown(socket.SHUT_WR)
            self._swallow(ours)
        self._connections += 1
        if self._idle is not None:
            self._idle.cancel()
        Connection(self._loop, client, proxy, self._ended)

    def _swallow(self, end: socket.socket) -> None:
        """Read what a refused client sends, so that it gets to reading."""
        end.setblocking(False)

        def read() -> None:
            try:
                if end.recv(_PIECE_BYTES):
                    return
            except OSError:
                pass
            self._loop.unwatch(end.fileno())
            end.close()

        self._loop.watch(end.fileno(), read)

    def _ended(self) -> None:
        self._connections -= 1
        if not self._connections:
            self._wait_idle()

    def _wait_idle(self) -> None:
        self._idle = self._loop.call_later(IDLE_S, self._loop.stop)


def main() -> None:
    os.chdir("/")
    Relay(socket.socket(fileno=LISTEN_FD), sys.argv[2], sys.argv[3]).run()
