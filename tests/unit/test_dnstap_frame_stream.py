"""Frame Streams: handshakes, frames in pieces, peers that do not keep to it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.receive.dnstap.frame_stream import (
    MAX_FRAME_BYTES,
    Control,
    FrameStream,
    FrameStreamError,
    control_frame,
    data_frame,
)

READY, START, STOP = (control_frame(c) for c in (Control.READY, Control.START, Control.STOP))
ACCEPT, FINISH = (control_frame(c) for c in (Control.ACCEPT, Control.FINISH))


def test_a_bidirectional_stream_is_accepted_and_finished() -> None:
    stream = FrameStream()
    assert stream.feed(READY) == []
    assert stream.reply == ACCEPT
    assert not stream.started
    stream.reply = b""
    assert stream.feed(START + data_frame(b"one") + data_frame(b"two")) == [b"one", b"two"]
    assert stream.reply == b""
    assert stream.feed(STOP) == []
    assert stream.reply == FINISH
    assert stream.stopped


def test_a_unidirectional_stream_is_never_answered() -> None:
    stream = FrameStream()
    assert stream.feed(START + data_frame(b"one") + STOP) == [b"one"]
    assert stream.stopped
    assert stream.reply == b""


def test_accept_names_the_content_type_as_fstrm_does() -> None:
    # Bytes as the fstrm library's own tool shows them.
    assert ACCEPT == (
        b"\x00\x00\x00\x00\x00\x00\x00\x22\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x16"
        b"protobuf:dnstap.Dnstap"
    )
    assert FINISH == b"\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x05"


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.lists(st.integers(1, 200), max_size=60),
)
def test_frames_come_out_whole_however_they_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    data = READY + START + b"".join(map(data_frame, frames)) + STOP
    stream = FrameStream()
    out: list[bytes] = []
    for cut in (*cuts, len(data)):
        out += stream.feed(data[:cut])
        data = data[cut:]
    assert out == frames
    assert stream.stopped
    assert stream.reply == ACCEPT + FINISH


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (data_frame(b"early"), "order"),
        (READY + data_frame(b"early"), "order"),
        (READY + READY, "order"),
        (START + START, "order"),
        (STOP, "order"),
        (ACCEPT, "order"),
        (START + struct.pack(">I", MAX_FRAME_BYTES + 1), "frame_length"),
        (struct.pack(">II", 0, 513), "frame_length"),
        (struct.pack(">II", 0, 0), "control_frame"),
        (struct.pack(">III", 0, 4, 99), "control_frame"),
        (struct.pack(">IIIII", 0, 12, 2, 1, 7), "control_frame"),
        (struct.pack(">IIIII", 0, 12, 2, 9, 0), "control_frame"),
        (struct.pack(">IIIII", 0, 16, 2, 1, 4) + b"else", "content_type"),
        (b"GET / HTTP/1.1\r\n\r\n", "frame_length"),
    ],
)
def test_what_is_against_the_protocol_ends_the_stream(data: bytes, reason: str) -> None:
    with pytest.raises(FrameStreamError) as caught:
        FrameStream().feed(data)
    assert caught.value.reason == reason


def test_a_peer_that_names_no_content_type_is_taken_at_its_word() -> None:
    stream = FrameStream()
    assert stream.feed(struct.pack(">III", 0, 4, 2) + data_frame(b"one")) == [b"one"]


def test_an_announced_frame_takes_no_memory_before_it_comes() -> None:
    stream = FrameStream()
    stream.feed(START + struct.pack(">I", MAX_FRAME_BYTES))
    assert stream.waiting
    assert stream.feed(b"x" * MAX_FRAME_BYTES) == [b"x" * MAX_FRAME_BYTES]
    assert not stream.waiting


@given(st.binary(max_size=600))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    stream = FrameStream()
    try:
        stream.feed(START + data)
    except FrameStreamError:
        return
    assert len(stream.feed(b"")) == 0
