"""The attach protocol: what goes over the WebSocket of a terminal, one frame in each binary message. No I/O.

A frame is 1 byte of kind and 8 bytes of offset (big-endian), and the payload is the rest of the message. From the sidecar:

    1 output     bytes that the program wrote; they begin at offset
    3 gap        the bytes from offset on are left out, up to the 8-byte big-endian end in the payload
    4 end        the last frame: the Terminal as JSON
    6 error      the last frame: an error as JSON
    7 resized    from offset on the terminal has a size: 2 bytes of columns, 2 of rows, big-endian
    8 snapshot   a size as above, then what a fresh emulator must be fed to look as the terminal did at offset
    9 accepted   the PTY has taken everything that this writer typed before offset

To the sidecar:

    16 input     what is typed; offset counts what this writer typed before
    17 taken     the reader has everything before offset
    18 resize    the terminal is to have a size as above; offset is 0
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from shadow.core.commands import Gap
from shadow.core.terminals import Resized, ScreenSnapshot, TerminalOutput, TerminalSize, check_size

SUBPROTOCOL = "shadow.terminal.v1"
MAX_INPUT_BYTES = 64 * 1024
"""In one frame."""
MAX_FRAME_BYTES = 16 * 1024 * 1024
WINDOW_BYTES = 1024 * 1024
"""So much is sent to a reader beyond what it has said to have taken."""
INPUT_WINDOW_BYTES = 256 * 1024
"""So much may be typed beyond what was accepted."""

_HEADER = Struct(">BQ")
_SIZE = Struct(">HH")
_OFFSET = Struct(">Q")


class TerminalFrame(IntEnum):
    OUTPUT = 1
    GAP = 3
    END = 4
    ERROR = 6
    RESIZED = 7
    SNAPSHOT = 8
    ACCEPTED = 9
    INPUT = 16
    TAKEN = 17
    RESIZE = 18


class TerminalFrameError(ValueError):
    """What arrived is no frame of this protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: TerminalFrame
    offset: int
    payload: memoryview


def encode(kind: TerminalFrame, offset: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, offset) + payload


def encode_event(event: TerminalOutput | Gap | Resized | ScreenSnapshot) -> bytes:
    match event:
        case TerminalOutput():
            return encode(TerminalFrame.OUTPUT, event.offset, event.data)
        case Gap():
            return encode(TerminalFrame.GAP, event.start, _OFFSET.pack(event.end))
        case Resized():
            return encode(TerminalFrame.RESIZED, event.offset, encode_size(event.size))
        case ScreenSnapshot():
            return encode(TerminalFrame.SNAPSHOT, event.offset, encode_size(event.size) + event.data)


def encode_size(size: TerminalSize) -> bytes:
    return _SIZE.pack(size.columns, size.rows)


def decode(message: bytes) -> Frame:
    """Raises: TerminalFrameError."""
    if len(message) < _HEADER.size:
        raise TerminalFrameError("a message is too short for a frame")
    kind, offset = _HEADER.unpack_from(message)
    try:
        known = TerminalFrame(kind)
    except ValueError as error:
        raise TerminalFrameError(f"{kind} is no kind of frame") from error
    if offset >= 2**63:
        raise TerminalFrameError(f"{offset} is no offset")
    return Frame(known, offset, memoryview(message)[_HEADER.size :])


def decode_event(frame: Frame) -> TerminalOutput | Gap | Resized | ScreenSnapshot | None:
    """What a reader is shown; ``None``: the frame is of another kind. Raises: TerminalFrameError."""
    match frame.kind:
        case TerminalFrame.OUTPUT:
            if not frame.payload:
                raise TerminalFrameError("output without bytes")
            return TerminalOutput(offset=frame.offset, data=bytes(frame.payload))
        case TerminalFrame.GAP:
            if len(frame.payload) != _OFFSET.size:
                raise TerminalFrameError("a gap without an end")
            (end,) = _OFFSET.unpack(frame.payload)
            if not frame.offset < end < 2**63:
                raise TerminalFrameError(f"a gap from {frame.offset} to {end}")
            return Gap(start=frame.offset, end=end)
        case TerminalFrame.RESIZED:
            return Resized(offset=frame.offset, size=decode_size(frame.payload))
        case TerminalFrame.SNAPSHOT:
            size, data = decode_size(frame.payload[: _SIZE.size]), bytes(frame.payload[_SIZE.size :])
            return ScreenSnapshot(offset=frame.offset, size=size, data=data)
        case _:
            return None


def decode_size(payload: memoryview) -> TerminalSize:
    """Raises: TerminalFrameError, Rejected: no terminal has such a size."""
    if len(payload) != _SIZE.size:
        raise TerminalFrameError("a size has 4 bytes")
    columns, rows = _SIZE.unpack(payload)
    size = TerminalSize(columns=columns, rows=rows)
    check_size(size)
    return size
