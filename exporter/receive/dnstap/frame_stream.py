"""Frame Streams, the transport of dnstap: frames of bytes between a handshake and a farewell.

A frame is its length (32 bits, big-endian) and its bytes. Length 0 announces a control frame: its
length, its type, and fields of which each is a type, a length and bytes. A bidirectional stream
begins with READY, answered by ACCEPT, then START; it ends with STOP, answered by FINISH. A
unidirectional one has only START and STOP.

Source: documentation of farsightsec/fstrm (``fstrm/control.h``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import Enum, IntEnum, auto
from typing import Final

CONTENT_TYPE: Final = b"protobuf:dnstap.Dnstap"

#: Longer frames end the connection. Two DNS messages of 64 KiB fit.
MAX_FRAME_BYTES: Final = 256 << 10
_MAX_CONTROL_BYTES: Final = 512

_LENGTH: Final = struct.Struct(">I")
_FIELD: Final = struct.Struct(">II")
_CONTENT_TYPE_FIELD: Final = 1


class Control(IntEnum):
    """Types of control frames."""

    ACCEPT = 1
    START = 2
    STOP = 3
    READY = 4
    FINISH = 5


class FrameStreamError(Exception):
    """A peer that does not keep to the protocol; ``reason`` is one of :data:`REASONS`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


#: Why a stream is given up.
REASONS: Final = ("content_type", "control_frame", "frame_length", "order")


class _State(Enum):
    NEW = auto()
    ACCEPTED = auto()
    STARTED = auto()
    STOPPED = auto()


class FrameStream:
    """The reader's side of one stream.

    Holds at most one frame that is not whole, beside what one call of :meth:`feed` brings.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state = _State.NEW
        self._answers = False
        #: What is to be sent to the peer.
        self.reply = b""

    @property
    def started(self) -> bool:
        """Whether the handshake is over."""
        return self._state in (_State.STARTED, _State.STOPPED)

    @property
    def stopped(self) -> bool:
        """Whether the peer has said that nothing more comes."""
        return self._state is _State.STOPPED

    @property
    def waiting(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The data frames that are whole with what has come.

        Raises:
            FrameStreamError: the connection is to be closed.
        """
        self._buffer += data
        frames: list[bytes] = []
        begin = 0
        with memoryview(self._buffer) as view:
            while (found := _whole(view[begin:])) is not None:
                is_control, body, size = found
                if is_control:
                    self._control(bytes(body))
                elif self._state is _State.STARTED:
                    frames.append(bytes(body))
                else:
                    raise FrameStreamError("order", "data before START")
                body.release()
                begin += size
                if self.stopped:
                    break
        del self._buffer[:begin]
        return frames

    def _control(self, frame: bytes) -> None:
        kind, content_types = _parse_control(frame)
        if kind is Control.READY and self._state is _State.NEW:
            _check_content(content_types)
            self._answers = True
            self.reply += control_frame(Control.ACCEPT)
            self._state = _State.ACCEPTED
        elif kind is Control.START and not self.started:
            _check_content(content_types)
            self._state = _State.STARTED
        elif kind is Control.STOP and self._state is _State.STARTED:
            if self._answers:
                self.reply += control_frame(Control.FINISH)
            self._state = _State.STOPPED
        else:
            raise FrameStreamError("order", f"{kind.name} when it has no place")


def _whole(view: memoryview) -> tuple[bool, memoryview, int] | None:
    """The first frame: whether it is for control, its bytes, and its size with the lengths."""
    if len(view) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(view)
    begin = _LENGTH.size
    is_control = length == 0
    limit = MAX_FRAME_BYTES
    if is_control:
        if len(view) < 2 * _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(view, _LENGTH.size)
        begin += _LENGTH.size
        limit = _MAX_CONTROL_BYTES
    if length > limit:
        raise FrameStreamError("frame_length", f"a frame of {length} bytes, {limit} are allowed")
    if len(view) < begin + length:
        return None
    return is_control, view[begin : begin + length], begin + length


def _parse_control(frame: bytes) -> tuple[Control, list[bytes]]:
    try:
        kind = Control(_LENGTH.unpack_from(frame)[0])
        content_types = list(_content_types(frame))
    except (struct.error, ValueError) as error:
        raise FrameStreamError("control_frame", f"not a control frame: {frame[:64]!r}") from error
    return kind, content_types


def _content_types(frame: bytes) -> Iterator[bytes]:
    position = _LENGTH.size
    while position < len(frame):
        kind, length = _FIELD.unpack_from(frame, position)
        position += _FIELD.size
        if kind != _CONTENT_TYPE_FIELD or position + length > len(frame):
            raise ValueError("a field of another kind, or cut short")
        yield frame[position : position + length]
        position += length


def _check_content(content_types: Iterable[bytes]) -> None:
    """A stream that names no type may carry anything; one that names others carries no dnstap."""
    offered = list(content_types)
    if offered and CONTENT_TYPE not in offered:
        raise FrameStreamError("content_type", f"content of type {offered[0][:64]!r}")


def control_frame(kind: Control) -> bytes:
    """A control frame; the types that take one name dnstap's content type."""
    body = _LENGTH.pack(kind)
    if kind not in (Control.STOP, Control.FINISH):
        body += _FIELD.pack(_CONTENT_TYPE_FIELD, len(CONTENT_TYPE)) + CONTENT_TYPE
    return _LENGTH.pack(0) + _LENGTH.pack(len(body)) + body


def data_frame(payload: bytes) -> bytes:
    """A data frame."""
    return _LENGTH.pack(len(payload)) + payload
