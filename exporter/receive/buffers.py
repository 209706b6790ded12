"""Slots that datagrams are received into, many per system call."""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
import sys
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.receive.datagrams import SPARE_BYTES, DatagramBatch

#: Octets of a slot: what fits an Ethernet frame, in an odd number of cache lines, since else the
#: heads of all slots would share few cache sets.
SLOT_BYTES: Final = 1_600
#: Largest datagram that is received whole. Devices stay below their MTU, at most a jumbo frame.
LARGEST_BYTES: Final = 16_384
#: Payload after which a buffer takes no further read: so much is only there with jumbo frames.
FULL_BYTES: Final = 8 << 20

#: Most datagrams that Linux gives in one call (UIO_MAXIOV).
_CALL: Final = 1_024
_NAME_BYTES: Final = 32
_SOCKADDR_IN6: Final = struct.Struct("=H2x4x16s4x")
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_MAPPED_WORD: Final = np.frombuffer(_V4_MAPPED, np.uint32)[2]

#: ``struct mmsghdr`` of 64-bit Linux: a ``msghdr`` with its padding, then ``msg_len``.
_MMSGHDR: Final = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "flags", "length"],
        "formats": [np.uint64, np.uint32, np.uint64, np.uint64, np.int32, np.uint32],
        "offsets": [0, 8, 16, 24, 48, 56],
        "itemsize": 64,
    }
)


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


class DatagramBuffer:
    """Room for ``slots`` datagrams, filled by any number of reads from any number of sockets.

    A datagram lies in its slot, side by side with its neighbours and ready for the decoder. What
    is longer than a slot goes on elsewhere, up to ``largest`` octets, and is put together at once.
    ``batched=False`` reads one datagram a call, as on systems without ``recvmmsg``.
    """

    def __init__(
        self, slots: int, slot_bytes: int = SLOT_BYTES, largest: int = LARGEST_BYTES,
        *, batched: bool = _RECVMMSG is not None,
    ) -> None:  # fmt: skip
        self.slots = slots
        self.filled = 0
        self._slot_bytes = slot_bytes
        self._stride = (slot_bytes + 3) & ~3
        self._batched = batched
        self._names = np.zeros((slots, _NAME_BYTES), np.uint8)
        self._headers = np.zeros(slots, _MMSGHDR)
        self._lengths = np.zeros(slots, np.int64)
        self._times = np.zeros(slots, np.int64)
        self._starts = np.arange(slots) * self._stride
        self._starts.flags.writeable = False
        self._bytes = 0
        #: Datagrams longer than a slot.
        self._large: dict[int, bytes] = {}
        # The rest of those: as no call gives more datagrams, it is enough to have that many. The
        # kernel touches only what they need.
        self._rest_bytes = max(largest - slot_bytes, 0)
        self._rests = memoryview(mmap.mmap(-1, _CALL * self._rest_bytes + 1))
        index = np.arange(slots, dtype=np.uint64)
        self._iov = np.zeros((slots, 2, 2), np.uint64)
        rests = np.frombuffer(self._rests, np.uint8).ctypes.data
        self._iov[:, 0, 1] = slot_bytes
        self._iov[:, 1, 0] = rests + index % _CALL * self._rest_bytes
        self._iov[:, 1, 1] = self._rest_bytes
        self._headers["name"] = self._names.ctypes.data + index * _NAME_BYTES
        self._headers["iov"] = self._iov.ctypes.data + index * 32
        self._headers["iovlen"] = 2
        self._address = self._headers.ctypes.data
        self._use_fresh_memory()

    def _use_fresh_memory(self) -> None:
        self._data = np.empty(self.slots * self._stride + SPARE_BYTES, np.uint8)
        self._iov[:, 0, 0] = self._data.ctypes.data + self._starts

    @property
    def full(self) -> bool:
        """Whether nothing more should be read into it."""
        return self.filled == self.slots or self._bytes >= FULL_BYTES

    def read(self, sock: socket.socket) -> tuple[int, int, int]:
        """Fill free slots with what waits in a non-blocking socket.

        Returns:
            datagrams read, their bytes, and how many were longer than the largest and lost their
            end.

        Raises:
            OSError: the socket cannot be read.
        """
        read = self._read_many if self._batched else self._read_singly
        before, size, cut = self.filled, self._bytes, 0
        while not self.full:
            start = self.filled
            room = min(self.slots - start, _CALL)
            count = read(sock, start, room)
            if count:
                cut += self._took(start, start + count)
            if count < room:
                break
        return self.filled - before, self._bytes - size, cut

    def _took(self, start: int, end: int) -> int:
        """Account for datagrams read; returns how many were cut."""
        self.filled = end
        self._times[start:end] = time.time_ns() // 1_000_000
        lengths = self._lengths[start:end]
        lengths[:] = self._headers["length"][start:end]
        self._bytes += int(lengths.sum())
        if int(lengths.max()) <= self._slot_bytes:
            return 0
        for slot in (start + np.flatnonzero(lengths > self._slot_bytes)).tolist():
            at, rest = self._starts[slot], slot % _CALL * self._rest_bytes
            self._large[slot] = (
                self._data[at : at + self._slot_bytes].tobytes()
                + self._rests[rest : rest + int(self._lengths[slot]) - self._slot_bytes]
            )
        return int(np.count_nonzero(self._headers["flags"][start:end] & socket.MSG_TRUNC))

    def _read_many(self, sock: socket.socket, start: int, room: int) -> int:
        self._headers["namelen"][start : start + room] = _NAME_BYTES
        count: int = _RECVMMSG(
            sock.fileno(), self._address + start * 64, room, socket.MSG_DONTWAIT, None
        )
        if count >= 0:
            return count
        error = ctypes.get_errno()
        try:
            raise OSError(error, "recvmmsg")
        except (BlockingIOError, InterruptedError):
            return 0

    def _read_singly(self, sock: socket.socket, start: int, room: int) -> int:
        for slot in range(start, start + room):
            at, rest = self._starts[slot], slot % _CALL * self._rest_bytes
            parts = [
                self._data.data[at : at + self._slot_bytes],
                self._rests[rest : rest + self._rest_bytes],
            ]
            try:
                length, _, flags, address = sock.recvmsg_into(parts)
            except BlockingIOError:
                return slot - start
            packed = socket.inet_pton(sock.family, address[0].partition("%")[0])
            if len(packed) == 4:
                packed = _V4_MAPPED + packed
            name = _SOCKADDR_IN6.pack(socket.AF_INET6, packed)
            self._names[slot, : len(name)] = np.frombuffer(name, np.uint8)
            self._names[slot, 2:4] = tuple(address[1].to_bytes(2, "big"))
            self._headers["length"][slot] = length
            self._headers["flags"][slot] = flags
        return room

    def take(self) -> DatagramBatch:
        """What was received; all slots are free afterwards."""
        count = self.filled
        data = self._data[: count * self._stride + SPARE_BYTES]
        lengths = self._lengths[:count].copy()
        senders, ports = self._senders(count)
        times = self._times[:count].copy()
        taken = DatagramBatch(data, self._starts[:count], lengths, senders, ports, times)
        if self._large:
            lengths[list(self._large)] = 0
            payloads = [self._large.get(slot, view) for slot, view in enumerate(taken.payloads)]
            taken = DatagramBatch.of(payloads, senders, ports, times)
            self._large = {}
        elif count < self.slots // 4:
            taken.buffer = data.copy()
        else:
            self._use_fresh_memory()
        self.filled = 0
        self._bytes = 0
        return taken

    def _senders(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Addresses and ports of the first datagrams, from ``sockaddr_in`` and ``sockaddr_in6``."""
        names = self._names[:count]
        ports: NDArray[np.uint16] = names.view(">u2")[:, 1].astype(np.uint16)
        mapped = np.zeros((count, 4), np.uint32)
        mapped[:, 2] = _MAPPED_WORD
        mapped[:, 3] = names.view(np.uint32)[:, 1]
        senders = mapped.view(np.uint8)
        v6 = names.view(np.uint16)[:, 0] != socket.AF_INET
        if v6.any():
            senders[v6] = names[v6, 8:24]
        return senders, ports
