"""dnstap messages: from the bytes of a frame to a query or a response of a client.

Source: dnstap's own definition (dnstap/dnstap.pb); ``exporter/proto/dnstap.proto`` is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from exporter.address import MAPPED_PREFIX
from exporter.proto import dnstap_pb2 as pb
from exporter.receive.dnstap.dns import (
    DnsMessageError,
    Question,
    Response,
    read_question,
    read_response,
)

#: Names that a resolver may give itself are cut off here.
_MAX_IDENTITY: Final = 255
_UNSPECIFIED: Final = bytes(16)

QUERY: Final = pb.Message.CLIENT_QUERY
RESPONSE: Final = pb.Message.CLIENT_RESPONSE


class DnstapError(Exception):
    """A frame that cannot be used; ``reason`` is one of :data:`REASONS`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


#: Why a frame is passed over.
REASONS: Final = ("protobuf", "dns", "address")


@dataclass(frozen=True, slots=True)
class Tap:
    """One DNS message between a client and a resolver, as the resolver tells of it.

    Addresses are 16 bytes, ``resolver`` is ``::`` where it is not told. Times are Unix time in
    seconds by the resolver's clock, ``None`` where they are not told.
    """

    kind: str
    identity: str
    client: bytes
    client_port: int
    protocol: int
    resolver: bytes
    message: Question | Response
    query_time: float | None
    response_time: float | None


def kind_of(number: int) -> str:
    """The type of a message by name, as metrics have it (``client_query``)."""
    return pb.Message.Type.Name(number).lower()


#: All of them.
KINDS: Final = tuple(name.lower() for name in pb.Message.Type.keys())  # noqa: SIM118


def read_frame(frame: bytes) -> Tap | str:
    """The message in a frame; only its kind where it is not one between a client and a resolver.

    Raises:
        DnstapError: it is not as it should be.
    """
    try:
        tap = pb.Dnstap.FromString(frame)
    except DecodeError as error:
        raise DnstapError("protobuf", "not a dnstap message") from error
    message = tap.message
    if not message.HasField("type"):
        raise DnstapError("protobuf", "a message without a type")
    kind = kind_of(message.type)
    if message.type == QUERY:
        content: Question | Response = _dns(read_question, message.query_message)
    elif message.type == RESPONSE:
        content = _dns(read_response, message.response_message)
    else:
        return kind
    client = _address(message.query_address)
    if client is None:
        raise DnstapError("address", "the client's address is missing")
    return Tap(
        kind=kind,
        identity=tap.identity[:_MAX_IDENTITY].decode("utf-8", "replace"),
        client=client,
        client_port=message.query_port,
        protocol=message.socket_protocol,
        resolver=_address(message.response_address) or _UNSPECIFIED,
        message=content,
        query_time=_time(message.query_time_sec, message.query_time_nsec),
        response_time=_time(message.response_time_sec, message.response_time_nsec),
    )


def _dns(read: Callable[[bytes], Question | Response], wire: bytes) -> Question | Response:
    try:
        return read(wire)
    except DnsMessageError as error:
        raise DnstapError("dns", str(error)) from error


def _address(packed: bytes) -> bytes | None:
    if len(packed) == 4:
        return MAPPED_PREFIX + packed
    return packed if len(packed) == 16 else None


def _time(seconds: int, nanoseconds: int) -> float | None:
    return seconds + nanoseconds / 1e9 if seconds else None
