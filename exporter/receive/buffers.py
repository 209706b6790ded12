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

from exporter.receive.datagrams import DatagramBatch

#: Largest datagram that is received whole. Devices stay below their MTU, at most a jumbo frame.
SLOT_BYTES: Final = 16_384

_NAME_BYTES: Final = 32
_SOCKADDR_IN6: Final = struct.Struct("=H2x4x16s4x")
_V4_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)

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

    The memory is reserved once and touched by the kernel only as far as datagrams reach.
    ``batched=False`` reads one datagram a call, as on systems without ``recvmmsg``.
    """

    def __init__(
        self, slots: int, slot_bytes: int = SLOT_BYTES, *, batched: bool = _RECVMMSG is not None
    ) -> None:
        self.slots = slots
        self.filled = 0
        # One cache line more than the slot: else the heads of all slots share few cache sets.
        self._stride = slot_bytes + 64
        self._slot_bytes = slot_bytes
        self._view = memoryview(mmap.mmap(-1, slots * self._stride))
        self._names = np.zeros((slots, _NAME_BYTES), np.uint8)
        self._headers = np.zeros(slots, _MMSGHDR)
        self._lengths = self._headers["length"]
        self._flags = self._headers["flags"]
        self._times = np.zeros(slots, np.int64)
        self._batched = batched
        self._slot_views = [
            self._view[start : start + slot_bytes]
            for start in range(0, slots * self._stride, self._stride)
        ]
        index = np.arange(slots, dtype=np.uint64)
        data = np.frombuffer(self._view, np.uint8)
        self._iov = np.zeros((slots, 2), np.uint64)
        self._iov[:, 0] = data.ctypes.data + index * self._stride
        self._iov[:, 1] = slot_bytes
        self._headers["name"] = self._names.ctypes.data + index * _NAME_BYTES
        self._headers["iov"] = self._iov.ctypes.data + index * 16
        self._headers["iovlen"] = 1
        self._address = self._headers.ctypes.data

    def clear(self) -> None:
        """Make all slots free; views handed out before become worthless."""
        self.filled = 0

    def read(self, sock: socket.socket) -> tuple[int, int, int]:
        """Fill free slots with what waits in a non-blocking socket.

        Returns:
            datagrams read, their bytes, and how many were longer than a slot and lost their end.

        Raises:
            OSError: the socket cannot be read.
        """
        start = self.filled
        read = self._read_many if self._batched else self._read_singly
        count = read(sock, start)
        if not count:
            return 0, 0, 0
        end = self.filled = start + count
        self._times[start:end] = time.time_ns() // 1_000_000
        cut = int(np.count_nonzero(self._flags[start:end] & socket.MSG_TRUNC))
        return count, int(self._lengths[start:end].sum()), cut

    def _read_many(self, sock: socket.socket, start: int) -> int:
        self._headers["namelen"][start:] = _NAME_BYTES
        count: int = _RECVMMSG(
            sock.fileno(), self._address + start * 64, self.slots - start, socket.MSG_DONTWAIT, None
        )
        if count >= 0:
            return count
        error = ctypes.get_errno()
        try:
            raise OSError(error, "recvmmsg")
        except (BlockingIOError, InterruptedError):
            return 0

    def _read_singly(self, sock: socket.socket, start: int) -> int:
        for slot in range(start, self.slots):
            try:
                length, _, flags, address = sock.recvmsg_into([self._slot_views[slot]])
            except BlockingIOError:
                return slot - start
            packed = socket.inet_pton(sock.family, address[0].partition("%")[0])
            if len(packed) == 4:
                packed = _V4_MAPPED.tobytes() + packed
            name = _SOCKADDR_IN6.pack(socket.AF_INET6, packed)
            self._names[slot, : len(name)] = np.frombuffer(name, np.uint8)
            self._names[slot, 2:4] = tuple(address[1].to_bytes(2, "big"))
            self._lengths[slot] = length
            self._flags[slot] = flags
        return self.slots - start

    def batch(self) -> DatagramBatch:
        """What was received; its payloads are views that :meth:`clear` ends."""
        count = self.filled
        payloads = [
            view[:length]
            for view, length in zip(self._slot_views, self._lengths[:count].tolist(), strict=False)
        ]
        names = self._names[:count]
        senders = names[:, 8:24].copy()
        v4 = names[:, :2].copy().view(np.uint16)[:, 0] == socket.AF_INET
        if v4.any():
            senders[v4, :12] = _V4_MAPPED
            senders[v4, 12:] = names[v4, 4:8]
        ports: NDArray[np.uint16] = names[:, 2:4].copy().view(">u2")[:, 0].astype(np.uint16)
        return DatagramBatch(payloads, senders, ports, self._times[:count].copy())
