"""One connection of the holder to a caller: the sidecar, or in-process use."""

import os
import socket
from collections.abc import Callable

from shadow.core.errors import LimitExceeded, ShadowError
from shadow.execution.holder.journal import Record
from shadow.execution.holder.loop import Loop
from shadow.execution.holder.protocol import Decoder, encode, error_to_json

READ_BYTES = 256 * 1024
MAX_UNSENT_BYTES = 64 * 1024 * 1024


class Connection:
    """Decodes requests and queues answers; never blocks. A peer that does not read its answers is cut off."""

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        number: int,
        *,
        on_request: Callable[["Connection", Record, bytes], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self.number = number
        self._loop = loop
        self._peer = peer
        self._fd = peer.fileno()
        self._decoder = Decoder()
        self._unsent = bytearray()
        self._on_request = on_request
        self._on_closed = on_closed
        peer.setblocking(False)
        loop.watch(self._fd, self._ready)

    def answer(self, request_id: object, result: Record | ShadowError) -> None:
        if self._fd < 0:
            return
        body = {"error": error_to_json(result)} if isinstance(result, ShadowError) else {"ok": result}
        try:
            message = encode({"id": request_id, **body})
        except LimitExceeded as error:
            message = encode({"id": request_id, "error": error_to_json(error)})
        if not self._unsent:
            try:
                sent = os.write(self._fd, message)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                self.close()
                return
            message = message[sent:]
        if message:
            self._unsent += message
            self._loop.watch_both(self._fd, self._ready)
            if len(self._unsent) > MAX_UNSENT_BYTES:
                self.close()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            self._peer.close()
            self._fd = -1
            self._on_closed(self)

    def _ready(self) -> None:
        if self._unsent:
            try:
                del self._unsent[: os.write(self._fd, self._unsent)]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                self.close()
                return
            if not self._unsent:
                self._loop.watch(self._fd, self._ready)
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.close()
            return
        try:
            for header, blob in self._decoder.feed(data):
                self._on_request(self, header, blob)
        except ValueError:
            self.close()
