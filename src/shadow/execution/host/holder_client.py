"""Speaks the holder protocol over a connected socket: many requests at once, each answered in its own time."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from shadow.core.errors import OutcomeUnknown, Unavailable
from shadow.execution.holder.protocol import Decoder, encode, error_from_json

READ_BYTES = 256 * 1024


class HolderClient(asyncio.Protocol):
    """``call`` raises what the holder answered, ``Unavailable`` where nothing was sent, else ``OutcomeUnknown``."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0

    @staticmethod
    async def connect(peer: socket.socket) -> "HolderClient":
        peer.setblocking(False)
        _, client = await asyncio.get_running_loop().create_connection(HolderClient, sock=peer)
        return client

    async def call(self, op: str, fields: Mapping[str, Any], *, blob: bytes = b"") -> dict[str, Any]:
        if self._transport is None or self._transport.is_closing():
            raise Unavailable("The workspace's holder is gone.", mend="Attach to the workspace again.")
        self._last_id += 1
        request_id = self._last_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = answer
        self._transport.write(encode({"id": request_id, "op": op, **fields}, blob))
        try:
            return await answer
        finally:
            self._pending.pop(request_id, None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for header, _ in self._decoder.feed(data):
            answer = self._pending.pop(header["id"], None)
            # A caller that was cancelled meanwhile no longer waits.
            if answer is None or answer.done():
                continue
            if "error" in header:
                answer.set_exception(error_from_json(header["error"]))
            else:
                answer.set_result(header["ok"])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(OutcomeUnknown("The workspace's holder went away before it answered."))
        self._pending.clear()
        if not self.closed.done():
            self.closed.set_result(None)
