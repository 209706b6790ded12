"""dnstap as a resolver would send it, for what real resolvers do not send in a test."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from exporter.proto import dnstap_pb2 as pb
from exporter.receive.dnstap.frame_stream import Control, control_frame, data_frame


def query(name: str, kind: str = "A", number: int = 1) -> dns.message.Message:
    return dns.message.make_query(name, kind, id=number)


def response(
    asked: dns.message.Message, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    """``records`` as in a zone file: ``a.example. 60 IN A 192.0.2.1``."""
    answer = dns.message.make_response(asked)
    answer.set_rcode(rcode)
    for record in records:
        owner, ttl, kind_class, kind, data = record.split(maxsplit=4)
        answer.answer.append(dns.rrset.from_text(owner, int(ttl), kind_class, kind, data))
    return answer


def frame(
    message: dns.message.Message,
    *,
    client: str = "10.1.2.3",
    port: int = 40000,
    time: float = 1000.0,
    resolver: str = "10.0.0.53",
    identity: str = "r1",
    kind: int | None = None,
) -> bytes:
    """One message between ``client`` and ``resolver``, as the payload of a frame."""
    address = ipaddress.ip_address(client)
    tap = pb.Dnstap(identity=identity.encode(), type=pb.Dnstap.MESSAGE)
    tap.message.socket_family = pb.INET if address.version == 4 else pb.INET6
    tap.message.socket_protocol = pb.UDP
    tap.message.query_address = address.packed
    tap.message.query_port = port
    tap.message.response_address = ipaddress.ip_address(resolver).packed
    tap.message.response_port = 53
    seconds, nanoseconds = int(time), round(time % 1 * 1e9)
    if message.flags & dns.flags.QR:
        tap.message.type = pb.Message.CLIENT_RESPONSE
        tap.message.response_time_sec, tap.message.response_time_nsec = seconds, nanoseconds
        tap.message.response_message = message.to_wire()
    else:
        tap.message.type = pb.Message.CLIENT_QUERY
        tap.message.query_time_sec, tap.message.query_time_nsec = seconds, nanoseconds
        tap.message.query_message = message.to_wire()
    if kind is not None:
        tap.message.type = kind
    return tap.SerializeToString()


class Sender:
    """A peer with a connection of its own; a context manager."""

    def __init__(self, where: Path | int) -> None:
        if isinstance(where, int):
            self.socket = socket.create_connection(("127.0.0.1", where), timeout=60)
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(60)
            self.socket.connect(str(where))

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def shake_hands(self) -> None:
        """READY, ACCEPT, START."""
        self.socket.sendall(control_frame(Control.READY))
        self.expect(control_frame(Control.ACCEPT))
        self.socket.sendall(control_frame(Control.START))

    def send(self, *payloads: bytes) -> None:
        self.socket.sendall(b"".join(map(data_frame, payloads)))

    def finish(self) -> None:
        """STOP, FINISH."""
        self.socket.sendall(control_frame(Control.STOP))
        self.expect(control_frame(Control.FINISH))

    def expect(self, data: bytes) -> None:
        received = b""
        while len(received) < len(data):
            part = self.socket.recv(4096)
            assert part, f"closed after {received!r}"
            received += part
        assert received == data

    def closed(self) -> bool:
        """Wait until the other side has closed the connection."""
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionError:
            pass
        return True
