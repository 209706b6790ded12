"""Room that datagrams are received into, many per system call."""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
import sys
import time
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.receive.datagrams import SPARE_BYTES, DatagramBatch

#: Octets of a slot: what fits an Ethernet frame, in an odd number of cache lines, since else the
#: heads of all slots would share few cache sets.
SLOT_BYTES: Final = 1_600
#: More than any message has: a datagram of UDP, or several that the kernel gives as one.
LARGEST_BYTES: Final = 65_536

#: Most messages of one call. Linux gives up to 1,024 (UIO_MAXIOV), but those may be 64 MiB.
_CALL: Final = 512
#: Batches whose memory is kept for others while nobody needs it.
_KEPT: Final = 4
_LINE: Final = 64
_NAME_BYTES: Final = 32
_SOCKADDR_IN6: Final = struct.Struct("=H2x4x16s4x")
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_MAPPED_WORD: Final = np.frombuffer(_V4_MAPPED, np.uint32)[2]

# Linux' number; Python's socket module has no name for it.
_UDP_GRO: Final = 104

#: ``struct mmsghdr`` of 64-bit Linux: a ``msghdr`` with its padding, then ``msg_len``.
_MMSGHDR: Final = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "length"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 56],
        "itemsize": 64,
    }
)
#: ``struct cmsghdr`` of 64-bit Linux, with what UDP_GRO tells: the octets of each datagram.
_CMSGHDR: Final = np.dtype(
    [("length", "u8"), ("level", "i4"), ("type", "i4"), ("segment", "i4"), ("", "i4")]
)

_Numbers = NDArray[np.int64]


def _find_recvmmsg() -> Any:
    """The C library's recvmmsg, or None where there is none or its structures are unknown."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "recvmmsg", None)
    if function is not None:
        pointer = ctypes.c_void_p
        function.argtypes = (ctypes.c_int, pointer, ctypes.c_uint, ctypes.c_int, pointer)
        function.restype = ctypes.c_int
    return function


_RECVMMSG: Final = _find_recvmmsg()

#: Copies from one address to another, without letting go of Python's lock for so short a time.
_MEMMOVE: Final = ctypes.PYFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)(("memmove", ctypes.PyDLL(None)))


def take_coalesced(sock: socket.socket) -> bool:
    """Let the kernel give datagrams of one sender as one message (UDP_GRO).

    Returns:
        Whether it will, where the network interface does: Linux from 5.0 on.
    """
    if _RECVMMSG is None:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


class _Memory:
    """Memory for batches, used again as soon as nobody looks at it any more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[mmap.mmap] = []

    def take(self) -> NDArray[np.uint8]:
        """``size`` octets of any content, which the array and its views hold."""
        memory = self._free.pop() if self._free else self._fresh()
        array = np.frombuffer(memory, np.uint8)
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array

    def _fresh(self) -> mmap.mmap:
        # Only what is touched becomes memory.
        memory = mmap.mmap(-1, self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory

    def _give_back(self, memory: mmap.mmap) -> None:
        if len(self._free) < _KEPT:
            self._free.append(memory)


class DatagramBuffer:
    """Room for ``slots`` datagrams, filled by any number of reads from any number of sockets.

    A message lies in its slot, side by side with its neighbours and ready for the decoder. What is
    longer than a slot goes on elsewhere and is put together after the call, which costs a copy;
    where most are long, the next call has longer slots. Messages of several datagrams (see
    :func:`take_coalesced`) are divided when the batch is taken.

    ``batched=False`` reads one datagram a call, as on systems without ``recvmmsg``.
    """

    def __init__(
        self, slots: int, slot_bytes: int = SLOT_BYTES, *, batched: bool = _RECVMMSG is not None
    ) -> None:
        self.slots = slots
        #: Datagrams received.
        self.filled = 0
        self._slot_bytes = (slot_bytes + 3) & ~3
        #: Datagrams that a message of the next call is expected to have.
        self._expected = 1
        self._batched = batched
        # What one call is told, and what it tells.
        index = np.arange(_CALL, dtype=np.uint64)
        self._names = np.zeros((_CALL, _NAME_BYTES), np.uint8)
        self._control = np.zeros(_CALL, _CMSGHDR)
        self._iov = np.zeros((_CALL, 2, 2), np.uint64)
        self._headers = np.zeros(_CALL, _MMSGHDR)
        self._headers["namelen"] = _NAME_BYTES
        self._headers["controllen"] = _CMSGHDR.itemsize
        self._headers["name"] = self._names.ctypes.data + index * _NAME_BYTES
        self._headers["iov"] = self._iov.ctypes.data + index * 32
        self._headers["iovlen"] = 2
        self._headers["control"] = self._control.ctypes.data + index * _CMSGHDR.itemsize
        self._headers_octets = self._headers.view(np.uint8).data
        self._headers_before = memoryview(bytes(self._headers_octets))
        # The rests of long messages. The kernel touches only what they need.
        self._rests = memoryview(mmap.mmap(-1, _CALL * LARGEST_BYTES))
        self._rests_address = np.frombuffer(self._rests, np.uint8).ctypes.data
        self._iov[:, 1, 0] = self._rests_address + index * LARGEST_BYTES
        self._divide(self._slot_bytes)
        # The messages of a batch: where, how long, of datagrams of which size (0: of one, as
        # nearly always), when and by whom.
        self._messages = 0
        self._starts, self._lengths, self._segments, self._times = (
            np.zeros(slots, np.int64) for _ in range(4)
        )
        self._senders = np.zeros((slots, _NAME_BYTES), np.uint8)
        # A batch that is not full has room for one more call, whatever that brings.
        self._limit = slots * self._slot_bytes
        self._memory = _Memory(self._limit + _CALL * (LARGEST_BYTES + _LINE) + SPARE_BYTES)
        self._data = self._memory.take()
        self._used = 0

    def _divide(self, stride: int) -> None:
        """Slots of ``stride`` octets from the next call on."""
        self._stride = stride
        self._offsets = np.arange(_CALL) * stride
        self._iov[:, 0, 1] = stride
        self._iov[:, 1, 1] = max(LARGEST_BYTES - stride, 0)

    @property
    def full(self) -> bool:
        """Whether nothing more should be read into it."""
        return self.filled >= self.slots or self._used >= self._limit

    def read(self, sock: socket.socket) -> tuple[int, int]:
        """Fill free slots with what waits in a non-blocking socket.

        Returns:
            datagrams read and their bytes.

        Raises:
            OSError: the socket cannot be read.
        """
        read = self._read_many if self._batched else self._read_singly
        before, size = self.filled, 0
        while not self.full:
            room = min(-(-(self.slots - self.filled) // self._expected), _CALL)
            count = read(sock, room)
            if count:
                size += self._took(count)
            if count < room:
                break
        return self.filled - before, size

    def _took(self, count: int) -> int:
        """Account for messages read; returns their bytes."""
        lengths = self._headers["length"][:count].astype(np.int64)
        size, largest = int(lengths.sum()), int(lengths.max())
        rows = slice(self._messages, self._messages + count)
        self._messages += count
        self._lengths[rows] = lengths
        self._senders[rows] = self._names[:count]
        self._times[rows] = time.time_ns() // 1_000_000
        if largest <= self._stride:
            self._starts[rows] = self._used + self._offsets[:count]
            self._used += count * self._stride
        else:
            self._starts[rows] = self._put_together(lengths)
        datagrams = count
        told = self._headers["controllen"][:count]
        if told.any():
            segments = np.where(told, self._control["segment"][:count], 0)
            self._segments[rows] = segments
            datagrams = int(_parts(lengths, segments).sum())
        self.filled += datagrams
        self._expected = -(-datagrams // count)
        stride = self._slot_bytes
        if largest > stride and 2 * size >= count * largest:
            stride = (-(-largest // _LINE) | 1) * _LINE
        if stride != self._stride:
            self._divide(stride)
        return size

    def _put_together(self, lengths: _Numbers) -> _Numbers:
        """Lay messages side by side, with what of them was too long; returns where they begin."""
        stride, begin = self._stride, self._used
        rooms = (lengths + 3) & ~3
        starts: _Numbers = begin + np.cumsum(rooms) - rooms
        self._used += int(rooms.sum())
        data = self._data.ctypes.data
        slots = self._data[begin : begin + len(lengths) * stride].copy()
        slot, rest = slots.ctypes.data, self._rests_address
        for to, length in zip((data + starts).tolist(), lengths.tolist(), strict=True):
            if length > stride:
                _MEMMOVE(to, slot, stride)
                _MEMMOVE(to + stride, rest, length - stride)
            else:
                _MEMMOVE(to, slot, length)
            slot += stride
            rest += LARGEST_BYTES
        return starts

    def _read_many(self, sock: socket.socket, room: int) -> int:
        self._iov[:room, 0, 0] = self._data.ctypes.data + self._used + self._offsets[:room]
        octets = room * _MMSGHDR.itemsize
        self._headers_octets[:octets] = self._headers_before[:octets]
        count: int = _RECVMMSG(
            sock.fileno(), self._headers.ctypes.data, room, socket.MSG_DONTWAIT, None
        )
        if count >= 0:
            return count
        error = ctypes.get_errno()
        try:
            raise OSError(error, "recvmmsg")
        except (BlockingIOError, InterruptedError):
            return 0

    def _read_singly(self, sock: socket.socket, room: int) -> int:
        self._headers["controllen"][:room] = 0
        for number in range(room):
            slot, rest = self._used + number * self._stride, number * LARGEST_BYTES
            parts = [
                self._data.data[slot : slot + self._stride],
                self._rests[rest : rest + max(LARGEST_BYTES - self._stride, 0)],
            ]
            try:
                length, _, _, address = sock.recvmsg_into(parts)
            except BlockingIOError:
                return number
            packed = socket.inet_pton(sock.family, address[0].partition("%")[0])
            if len(packed) == 4:
                packed = _V4_MAPPED + packed
            name = _SOCKADDR_IN6.pack(socket.AF_INET6, packed)
            self._names[number, : len(name)] = np.frombuffer(name, np.uint8)
            self._names[number, 2:4] = tuple(address[1].to_bytes(2, "big"))
            self._headers["length"][number] = length
        return room

    def take(self) -> DatagramBatch:
        """What was received; all slots are free afterwards."""
        count = self._messages
        data = self._data[: self._used + SPARE_BYTES]
        if self._used < self._limit // 4:
            data = data.copy()
        else:
            self._data = self._memory.take()
        senders, ports = _addresses(self._senders[:count])
        starts, lengths, times = (
            column[:count].copy() for column in (self._starts, self._lengths, self._times)
        )
        taken = DatagramBatch(data, starts, lengths, senders, ports, times)
        if self.filled > count:
            taken = _divided(taken, self._segments[:count])
        self._segments[:count] = 0
        self.filled = self._messages = self._used = 0
        return taken


def _parts(lengths: _Numbers, segments: _Numbers) -> _Numbers:
    """Of how many datagrams messages are."""
    return np.where(segments > 0, -(-lengths // np.maximum(segments, 1)), 1)


def _divided(messages: DatagramBatch, segments: _Numbers) -> DatagramBatch:
    """Messages that have several datagrams of ``segments`` octets, the last one of the rest."""
    parts = _parts(messages.lengths, segments)
    message = np.repeat(np.arange(len(messages)), parts)
    first = np.cumsum(parts) - parts
    before = (np.arange(len(message)) - first[message]) * segments[message]
    divided = messages.take(message)
    divided.starts += before
    divided.lengths -= before
    several = (parts > 1)[message]
    divided.lengths[several] = np.minimum(divided.lengths, segments[message])[several]
    if (divided.starts & 3).any():
        divided = DatagramBatch.of(
            divided.payloads, divided.senders, divided.ports, divided.time_received
        )
    return divided


def _addresses(names: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Addresses and ports out of ``sockaddr_in`` and ``sockaddr_in6``."""
    ports: NDArray[np.uint16] = names.view(">u2")[:, 1].astype(np.uint16)
    mapped = np.zeros((len(names), 4), np.uint32)
    mapped[:, 2] = _MAPPED_WORD
    mapped[:, 3] = names.view(np.uint32)[:, 1]
    senders = mapped.view(np.uint8)
    v6 = names.view(np.uint16)[:, 0] != socket.AF_INET
    if v6.any():
        senders[v6] = names[v6, 8:24]
    return senders, ports
