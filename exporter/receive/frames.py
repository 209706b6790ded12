"""UDP datagrams out of captured frames, IP fragments put together again."""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200, 0x9300})
_MPLS_TYPES: Final = frozenset({0x8847, 0x8848})
_PPPOE: Final = 0x8864
_LARGEST_LENGTH: Final = 1500  # smaller values in an EtherType's place are 802.3 lengths
_SNAP: Final = b"\xaa\xaa\x03\0\0\0"
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
#: PPP's numbers of what are EtherTypes elsewhere.
_PPP_TYPES: Final = {0x0021: _IPV4, 0x0057: _IPV6, 0x0281: 0x8847}
_UDP: Final = 17

# IPv6 extension headers that have their length in the second byte, in units of 8.
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51

#: Bounds on datagrams whose fragments are not complete yet.
MAX_PARTIAL: Final = 1024
MAX_PARTIAL_BYTES: Final = 16 << 20
_FRAGMENT_MILLISECONDS: Final = 30_000

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_PPP_LINKS: Final = frozenset({9, 50})
_ADDRESS_AND_CONTROL: Final = b"\xff\x03"
_ANY_IP_TYPES: Final = frozenset({12, 14, 101})


class FrameError(Exception):
    """A frame that should hold a datagram and does not hold it whole."""


@dataclass(frozen=True, slots=True)
class UdpDatagram:
    """Payload, 16-byte sender (IPv4 mapped), ports. ``missing``: bytes that the capture lacks."""

    payload: bytes
    sender: bytes
    port: int
    destination_port: int
    missing: int


def network_packet(link_type: int, frame: bytes) -> bytes | None:
    """The IP packet in a frame, or None when there is none.

    Raises:
        FrameError: the link type is not supported.
    """
    if link_type == 1:
        return _after_ethertype(frame, 12)
    if link_type in _ANY_IP_TYPES or link_type in (228, 229):
        return frame
    if link_type in (0, 108):
        # An address family in one byte order or the other: the IP version says enough.
        return frame[4:]
    if link_type == 113:
        return _after_ethertype(frame, 14)
    if link_type == 276:
        return _after_ethertype(frame, 0, 20)
    if link_type == 104:  # Cisco's HDLC
        return _after_ethertype(frame, 2)
    if link_type in _PPP_LINKS:
        start = 2 if frame[:2] == _ADDRESS_AND_CONTROL else 0
        return _unwrapped(frame, _ppp_type(frame, start), start + 2)
    raise FrameError(f"link type {link_type} is not supported")


def _after_ethertype(frame: bytes, position: int, start: int | None = None) -> bytes | None:
    """What follows the EtherType at ``position`` (or ``start``), if it is IP in the end."""
    after = position + 2 if start is None else start
    return _unwrapped(frame, _number(frame, position), after)


def _unwrapped(frame: bytes, ethertype: int, after: int) -> bytes | None:
    """The IP packet behind VLAN tags, SNAP, PPPoE and MPLS labels, as ``ethertype`` says."""
    while after < len(frame):
        if ethertype in (_IPV4, _IPV6):
            return frame[after:]
        if ethertype in _VLAN_TYPES:
            ethertype = _number(frame, after + 2)
            after += 4
        elif ethertype <= _LARGEST_LENGTH and frame[after : after + 6] == _SNAP:
            ethertype = _number(frame, after + 6)
            after += 8
        elif ethertype == _PPPOE:
            ethertype = _ppp_type(frame, after + 6)
            after += 8
        elif ethertype in _MPLS_TYPES:
            if _number(frame, after + 2) & 0x100:  # the last label: an IP packet tells what it is
                ethertype = _IPV4
            after += 4
        else:
            return None
    return None


def _number(frame: bytes, position: int) -> int:
    return int.from_bytes(frame[position : position + 2], "big")


def _ppp_type(frame: bytes, position: int) -> int:
    return _PPP_TYPES.get(_number(frame, position), 0)


@dataclass(slots=True)
class _Partial:
    offset: int
    time: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    total: int | None = None
    size: int = 0

    def whole(self) -> bytes | None:
        """All bytes, once every piece is there."""
        if self.total is None or self.size < self.total:
            return None
        data = bytearray()
        for start in sorted(self.pieces):
            if start > len(data):
                return None
            data[start:] = self.pieces[start]
        return bytes(data) if len(data) == self.total else None


class UdpReader:
    """Takes IP packets in the order of their capture and gives the datagrams that they complete."""

    def __init__(self) -> None:
        self._partial: OrderedDict[tuple[bytes, bytes, int], _Partial] = OrderedDict()
        self._partial_bytes = 0
        self.given_up: list[int] = []
        """Offsets of first fragments whose datagrams stayed incomplete; the reader empties it."""

    def read(self, offset: int, time: int, packet: bytes) -> UdpDatagram | None:
        """The datagram that ``packet`` holds or completes, or None.

        Raises:
            FrameError: the packet is cut within its headers, or makes no sense.
        """
        if not packet:
            return None
        try:
            if packet[0] >> 4 == 4:
                return self._read_v4(offset, time, packet)
            if packet[0] >> 4 == 6:
                return self._read_v6(offset, time, packet)
        except (struct.error, IndexError) as error:
            raise FrameError("packet is cut within its headers") from error
        return None

    def finish(self) -> None:
        """Give up what is still incomplete."""
        while self._partial:
            self._give_up()

    def _read_v4(self, offset: int, time: int, packet: bytes) -> UdpDatagram | None:
        header = (packet[0] & 15) * 4
        total, identification, fragment = struct.unpack_from("!HHH", packet, 2)
        if packet[9] != _UDP:
            return None
        # 0: left to the network card, which the capture came before.
        total = total or len(packet)
        if header < 20 or total < header:
            raise FrameError("IPv4 header makes no sense")
        sender = _V4_MAPPED + packet[12:16]
        data = packet[header:total]
        missing = total - max(header, min(len(packet), total))
        if fragment & 0x3FFF:
            start = (fragment & 0x1FFF) * 8
            key = (sender, packet[16:20], identification)
            return self._fragment(offset, time, key, start, data, bool(fragment & 0x2000), missing)
        return _udp(sender, data, missing)

    def _read_v6(self, offset: int, time: int, packet: bytes) -> UdpDatagram | None:
        length, following = struct.unpack_from("!HB", packet, 4)
        sender = packet[8:24]
        end = 40 + length if length else len(packet)
        position = 40
        fragment: tuple[int, int] | None = None
        while following != _UDP:
            if following in _EXTENSIONS:
                size = 8 + 8 * packet[position + 1]
            elif following == _AUTHENTICATION:
                size = 8 + 4 * packet[position + 1]
            elif following == _FRAGMENT:
                size = 8
                place, identification = struct.unpack_from("!HI", packet, position + 2)
                if place & 0xFFF9:
                    fragment = place, identification
            else:
                return None
            following = packet[position]
            position += size
            if fragment is not None:
                break
        data = packet[position:end]
        missing = end - max(position, min(len(packet), end))
        if fragment is not None:
            if following != _UDP:
                return None
            place, identification = fragment
            key = (sender, packet[24:40], identification)
            return self._fragment(offset, time, key, place & 0xFFF8, data, bool(place & 1), missing)
        return _udp(sender, data, missing)

    def _fragment(
        self, offset: int, time: int, key: tuple[bytes, bytes, int],
        start: int, data: bytes, more: bool, missing: int,
    ) -> UdpDatagram | None:  # fmt: skip
        if missing:
            raise FrameError(f"fragment lacks {missing} bytes")
        if start + len(data) > 65_535 or (more and not data):
            raise FrameError("fragment makes no sense")
        while self._partial:
            oldest = next(iter(self._partial.values()))
            if oldest.time + _FRAGMENT_MILLISECONDS > time:
                break
            self._give_up()
        partial = self._partial.get(key)
        if partial is None:
            partial = self._partial[key] = _Partial(offset, time)
        previous = partial.pieces.get(start, b"")
        if len(previous) < len(data) or not previous:
            partial.pieces[start] = data
            partial.size += len(data) - len(previous)
            self._partial_bytes += len(data) - len(previous)
        if not more:
            partial.total = start + len(data)
        whole = partial.whole()
        if whole is not None:
            del self._partial[key]
            self._partial_bytes -= partial.size
            return _udp(key[0], whole, 0)
        while len(self._partial) > MAX_PARTIAL or self._partial_bytes > MAX_PARTIAL_BYTES:
            self._give_up()
        return None

    def _give_up(self) -> None:
        _, partial = self._partial.popitem(last=False)
        self._partial_bytes -= partial.size
        self.given_up.append(partial.offset)


def _udp(sender: bytes, data: bytes, missing: int) -> UdpDatagram:
    port, destination, length = struct.unpack_from("!HHH", data)
    if length < 8 or length > len(data) + missing:
        raise FrameError(f"UDP length {length} makes no sense")
    missing = max(0, length - len(data))
    return UdpDatagram(data[8:length], sender, port, destination, missing)
