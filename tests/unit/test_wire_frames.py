"""Raw frames: what goes in comes out, however it is cut; what is no frame is refused, whatever it claims."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.commands import Channel, Gap, Output
from shadow.wire.frames import (
    MAX_PAYLOAD_BYTES,
    End,
    Failure,
    FrameDecoder,
    FrameError,
    FrameKind,
    Heartbeat,
    Piece,
    encode_frame,
    encode_output,
)

OFFSETS = st.integers(min_value=0, max_value=2**63 - 1)


@st.composite
def gaps(draw: st.DrawFn) -> Gap:
    start = draw(st.integers(min_value=0, max_value=2**62))
    return Gap(start=start, end=start + draw(st.integers(min_value=1, max_value=2**62)))


outputs = st.builds(Output, offset=OFFSETS, channel=st.sampled_from(Channel), data=st.binary(min_size=1, max_size=50))
pieces = st.one_of(
    outputs,
    gaps(),
    st.builds(End, OFFSETS, st.binary(max_size=40)),
    st.builds(Failure, OFFSETS, st.binary(max_size=40)),
    st.builds(Heartbeat, OFFSETS),
)


def encode(piece: Piece) -> bytes:
    match piece:
        case Output() | Gap():
            return encode_output(piece)
        case End():
            return encode_frame(FrameKind.END, piece.offset, piece.command)
        case Failure():
            return encode_frame(FrameKind.ERROR, piece.offset, piece.error)
        case Heartbeat():
            return encode_frame(FrameKind.HEARTBEAT, piece.offset)


def joined(pieces: list[Piece]) -> list[Piece]:
    """Output that follows on in the same channel is one piece."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if (
            isinstance(piece, Output)
            and isinstance(last, Output)
            and last.channel is piece.channel
            and last.end == piece.offset
        ):
            result[-1] = Output(offset=last.offset, channel=last.channel, data=last.data + piece.data)
        else:
            result.append(piece)
    return result


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(pieces, max_size=8), st.lists(st.integers(min_value=0), max_size=30))
def test_frames_survive_any_cuts(sent: list[Piece], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    data = b"".join(encode(piece) for piece in sent)
    received = [piece for part in split(data, cuts) for piece in decoder.feed(part)]
    assert joined(received) == joined(sent)
    assert decoder.between_frames


@given(st.lists(pieces, min_size=1, max_size=4))
def test_frames_survive_byte_by_byte(sent: list[Piece]) -> None:
    decoder = FrameDecoder()
    received = [p for byte in b"".join(encode(p) for p in sent) for p in decoder.feed(bytes([byte]))]
    assert joined(received) == joined(sent)


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=5))
def test_any_bytes_are_frames_or_a_frame_error(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder()
    try:
        for part in split(data, cuts):
            for piece in decoder.feed(part):
                assert not isinstance(piece, Output) or piece.data
    except FrameError:
        with pytest.raises(FrameError):
            list(decoder.feed(b"\x05" + bytes(12)))


@given(st.integers(min_value=0, max_value=255), st.integers(min_value=MAX_PAYLOAD_BYTES + 1, max_value=2**32 - 1))
def test_a_length_out_of_bounds_is_refused_at_the_header(kind: int, length: int) -> None:
    with pytest.raises(FrameError):
        list(FrameDecoder().feed(struct.pack(">BQI", kind, 0, length)))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(struct.pack(">BQI", 0, 0, 0), id="kind 0"),
        pytest.param(struct.pack(">BQI", 7, 0, 0), id="kind 7"),
        pytest.param(struct.pack(">BQIQ", 3, 5, 8, 5), id="empty gap"),
        pytest.param(struct.pack(">BQIQ", 3, 5, 8, 4), id="gap backwards"),
        pytest.param(struct.pack(">BQI", 3, 5, 7), id="short gap"),
        pytest.param(struct.pack(">BQI", 5, 5, 1), id="heartbeat with a payload"),
    ],
)
def test_what_cannot_be_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameDecoder().feed(frame))


def test_output_is_handed_on_as_it_arrives_and_is_never_collected() -> None:
    decoder = FrameDecoder()
    header = struct.pack(">BQI", FrameKind.STDOUT, 100, MAX_PAYLOAD_BYTES)
    assert list(decoder.feed(header)) == []
    part = b"x" * 1000
    (first,) = decoder.feed(part)
    (second,) = decoder.feed(part)
    assert isinstance(first, Output)
    assert first.data is part  # no copy where the whole of what arrived is output
    assert isinstance(second, Output)
    assert second.offset == 1100


def test_a_payload_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_frame(FrameKind.STDOUT, 0, bytes(MAX_PAYLOAD_BYTES + 1))
