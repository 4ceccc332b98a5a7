"""Raw frames, the way that output travels to our own client: encoding, and decoding from whatever arrives. No I/O.

A frame is 1 byte of kind, 8 bytes of offset, 4 bytes of length (both big-endian) and the payload:

    1 stdout, 2 stderr   bytes of output; they begin at offset
    3 gap                the bytes from offset on are gone, up to the 8-byte big-endian end in the payload
    4 end                the last frame: a Command as JSON
    5 heartbeat          empty: the peer lives, there was nothing to say
    6 error              the last frame: an error as JSON

Output is handed on in the pieces in which it arrives, so that a frame needs no memory, however long it claims to be; the
others are collected, within ``MAX_PAYLOAD_BYTES``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from shadow.core.commands import Channel, Gap, Output

MEDIA_TYPE = "application/vnd.shadow.frames"
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024

_HEADER = Struct(">BQI")
_GAP = Struct(">Q")


class FrameKind(IntEnum):
    STDOUT = Channel.STDOUT
    STDERR = Channel.STDERR
    GAP = 3
    END = 4
    HEARTBEAT = 5
    ERROR = 6


class FrameError(ValueError):
    """What arrived are no frames; nothing after it can be believed."""


@dataclass(frozen=True, slots=True)
class End:
    offset: int
    command: bytes
    """JSON."""


@dataclass(frozen=True, slots=True)
class Failure:
    offset: int
    error: bytes
    """JSON."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    offset: int


Piece = Output | Gap | End | Failure | Heartbeat


def encode_frame(kind: FrameKind, offset: int, payload: bytes = b"") -> bytes:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes does not fit into a frame")
    return b"".join((_HEADER.pack(kind, offset, len(payload)), payload))


def encode_output(item: Output | Gap) -> bytes:
    if isinstance(item, Gap):
        return encode_frame(FrameKind.GAP, item.start, _GAP.pack(item.end))
    return encode_frame(FrameKind(item.channel), item.offset, item.data)


class FrameDecoder:
    """Feed it what arrives; it yields pieces. After a ``FrameError`` it refuses everything."""

    def __init__(self) -> None:
        self._held = bytearray()
        """An unfinished header, or the unfinished payload of a frame that must be whole."""
        self._kind: FrameKind | None = None
        """``None`` between frames, while a header is being collected."""
        self._offset = 0
        self._missing = 0
        """Bytes of the current payload that have not arrived."""
        self._broken = False

    @property
    def between_frames(self) -> bool:
        """Whether everything fed so far were whole frames."""
        return self._kind is None and not self._held

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Raises: FrameError: for an unknown kind, a length out of bounds or a payload that cannot be."""
        if self._broken:
            raise FrameError("the stream was broken before")
        position = 0
        try:
            while position < len(data):
                if self._kind is None:
                    position = self._take_header(data, position)
                    if self._kind is None:
                        return
                kind = self._kind
                stop = min(len(data), position + self._missing)
                if kind is FrameKind.STDOUT or kind is FrameKind.STDERR:
                    if stop > position:
                        yield self._output(kind, data if stop - position == len(data) else data[position:stop])
                    if not self._missing:
                        self._kind = None
                else:
                    self._held += memoryview(data)[position:stop]
                    self._missing -= stop - position
                    if not self._missing:
                        yield self._whole(kind)
                position = stop
        except FrameError:
            self._broken = True
            raise

    def _take_header(self, data: bytes, position: int) -> int:
        """Leaves ``_kind`` as ``None`` where the header is not whole yet. Returns the position after it."""
        if self._held or len(data) - position < _HEADER.size:
            stop = min(len(data), position + _HEADER.size - len(self._held))
            self._held += memoryview(data)[position:stop]
            if len(self._held) < _HEADER.size:
                return stop
            kind, offset, length = _HEADER.unpack(self._held)
            self._held.clear()
        else:
            kind, offset, length = _HEADER.unpack_from(data, position)
            stop = position + _HEADER.size
        self._start(kind, offset, length)
        return stop

    def _start(self, kind: int, offset: int, length: int) -> None:
        try:
            known = FrameKind(kind)
        except ValueError as error:
            raise FrameError(f"{kind} is no kind of frame") from error
        if length > MAX_PAYLOAD_BYTES:
            raise FrameError(f"a frame claims {length} bytes")
        if known is FrameKind.GAP and length != _GAP.size:
            raise FrameError(f"a gap with {length} bytes")
        if known is FrameKind.HEARTBEAT and length:
            raise FrameError("a heartbeat that is not empty")
        self._kind, self._offset, self._missing = known, offset, length

    def _output(self, kind: FrameKind, data: bytes) -> Output:
        output = Output(offset=self._offset, channel=Channel(kind), data=data)
        self._offset += len(data)
        self._missing -= len(data)
        return output

    def _whole(self, kind: FrameKind) -> Piece:
        payload = bytes(self._held)
        self._held.clear()
        self._kind = None
        if kind is FrameKind.GAP:
            (end,) = _GAP.unpack(payload)
            if end <= self._offset:
                raise FrameError(f"a gap from {self._offset} to {end}")
            return Gap(start=self._offset, end=end)
        if kind is FrameKind.END:
            return End(self._offset, payload)
        if kind is FrameKind.ERROR:
            return Failure(self._offset, payload)
        return Heartbeat(self._offset)
