"""What reading a datagram costs: ``python -m tests.bench.reading``.

CPU time, kernel's included, of the thread that empties a socket in which datagrams of 1,400 octets
wait, by how they are read and how many the kernel gives as one message; the median of rounds in
turns. Between two rounds other memory is touched, as after a nap.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from exporter.receive.buffers import DatagramBuffer, take_coalesced
from tests.bench.receivers import BUFFER_BYTES, LOOPBACK

_SIZE = 1_400
_WAITING = 4_096
_OTHER_BYTES = 48 << 20
# Linux' numbers; Python's socket module has no names for them.
_SO_RCVBUFFORCE = 33
_UDP_SEGMENT = 103

Read = Callable[[socket.socket], int]


def _by_buffer() -> Read:
    """As the receive thread does, up to the batch that it hands over."""
    buffer = DatagramBuffer(_WAITING)

    def read(sock: socket.socket) -> int:
        while buffer.read(sock)[0]:
            pass
        return len(buffer.take())

    return read


def _one_by_one(sock: socket.socket) -> int:
    """What Python offers by itself."""
    memory, count = bytearray(2_048), 0
    while True:
        try:
            sock.recvfrom_into(memory)
        except BlockingIOError:
            return count
        count += 1


#: What is compared: how it is read, whether joined datagrams are asked for, and of how many
#: datagrams the messages are.
_WAYS: dict[str, tuple[Read, bool, int]] = {
    "recvmmsg": (_by_buffer(), False, 1),
    "recvmmsg, joined datagrams asked for": (_by_buffer(), True, 1),
    "the same, messages of 2": (_by_buffer(), True, 2),
    "the same, messages of 16": (_by_buffer(), True, 16),
    "recvfrom_into": (_one_by_one, False, 1),
}


def _pair(stack: ExitStack, *, coalesced: bool, together: int) -> tuple[socket.socket, ...]:
    """A socket to read, and one that sends to it that many datagrams in a message."""
    receiver, sender = (
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
    )
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    if coalesced and not take_coalesced(receiver):
        raise typer.BadParameter("this kernel joins no datagrams")
    receiver.bind((LOOPBACK, 0))
    receiver.setblocking(False)
    if together > 1:
        sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE)
    sender.connect(receiver.getsockname())
    return receiver, sender


def main(rounds: Annotated[int, typer.Option(help="How often each way is measured.")] = 40) -> None:
    """Measure what reading a datagram costs (takes CAP_NET_ADMIN for the socket's buffer)."""
    other = np.zeros(_OTHER_BYTES, np.uint8)
    costs: dict[str, list[float]] = {name: [] for name in _WAYS}
    with ExitStack() as stack:
        pairs = {
            name: _pair(stack, coalesced=coalesced, together=together)
            for name, (_, coalesced, together) in _WAYS.items()
        }
        for _ in range(rounds):
            for name, (read, _, together) in _WAYS.items():
                receiver, sender = pairs[name]
                for _ in range(_WAITING // together):
                    sender.send(bytes(_SIZE * together))
                other += 1
                begin = time.thread_time()
                count = read(receiver)
                costs[name].append((time.thread_time() - begin) / count * 1e6)
                assert count == _WAITING, f"{name}: {count} datagrams"
    table = Table("read by", "µs a datagram")
    for name, measured in costs.items():
        table.add_row(name, f"{statistics.median(measured):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
