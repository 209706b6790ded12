"""Links that are no Ethernet, as sampled packets begin with them: IEEE 802.11 and PPP.

Many frames at once, as in :mod:`exporter.decode.packet`. Sources: IEEE 802.11-2020, section 9.2;
RFC 1661 and 1662 (PPP), RFC 2684 and 1042 (LLC and SNAP).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode.gather import Index, rows_at

#: What a packet begins with, beside EtherTypes.
PPP: Final = 0x880B  # the EtherType of PPP in Ethernet
WIRELESS: Final = 1  # no EtherType: an IEEE 802.11 frame

#: PPP's numbers of what are EtherTypes elsewhere.
_PPP_TYPES: Final = {0x0021: 0x0800, 0x0057: 0x86DD, 0x0281: 0x8847, 0x0283: 0x8848}
_ADDRESS_AND_CONTROL: Final = 0xFF03

# The first octet of an 802.11 header's frame control has the type, the second one flags.
_TYPE: Final = 0x0C
_DATA: Final = 0x08
_NO_DATA: Final = 0x40
_QUALITY: Final = 0x80
_TO_DISTRIBUTION: Final = 0x01
_FROM_DISTRIBUTION: Final = 0x02
_PROTECTED: Final = 0x40
_ORDER: Final = 0x80
_HEADER: Final = np.dtype(
    {
        "names": ["control", "flags", "first", "second", "third", "fourth"],
        "formats": ["u1", "u1", ">u8", ">u8", ">u8", ">u8"],
        "offsets": [0, 1, 4, 10, 16, 24],
        "itemsize": 32,
    }
)
_HEADER_SIZE: Final = 24


def unframe(
    data: NDArray[np.uint8], rows: Index, first: NDArray[np.uint16], position: Index,
    ends: Index, etype: NDArray[np.uint16], columns: dict[str, Array | DictColumn],
) -> None:  # fmt: skip
    """Move ``position`` of those ``rows`` behind the headers of such links.

    ``first`` tells what the packets begin with. Then ``etype`` is that of what follows PPP; it is 0
    for frames of 802.11, behind whose header LLC and SNAP follow. Where nothing that could be read
    follows, ``position`` is the end. ``src_mac`` and ``dst_mac`` of ``columns`` get the addresses
    that an 802.11 frame comes from and goes to, from which those of its radio hop may differ.
    """
    kind = first[rows]
    wireless = rows[kind == WIRELESS]
    if len(wireless):
        _wireless(data, wireless, position, ends, etype, columns)
    dialled = rows[kind == PPP]
    if len(dialled):
        _ppp(data, dialled, position, ends, etype)


def _ppp(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index, etype: NDArray[np.uint16]
) -> None:
    word = np.dtype(">u2")
    at = position[rows]
    # Address and control of HDLC-like framing may be there, or compressed away.
    at = at + np.where(rows_at(data, at, word) == _ADDRESS_AND_CONTROL, 2, 0)
    protocol = rows_at(data, at, word).astype(np.int64)
    # Protocols below 256 may have one octet only: the low one, which is odd.
    short = protocol >> 8 & 1 == 1
    protocol = np.where(short, protocol >> 8, protocol)
    at += np.where(short, 1, 2)
    kind = np.select([protocol == number for number in _PPP_TYPES], list(_PPP_TYPES.values()), 0)
    known = (kind != 0) & (at <= ends[rows])
    etype[rows] = np.where(known, kind, 0)
    position[rows] = np.where(known, at, ends[rows])


def _wireless(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index,
    etype: NDArray[np.uint16], columns: dict[str, Array | DictColumn],
) -> None:  # fmt: skip
    begin = position[rows]
    head = rows_at(data, begin, _HEADER)
    etype[rows], position[rows] = 0, ends[rows]
    is_data = (head["control"] & _TYPE == _DATA) & (ends[rows] - begin >= _HEADER_SIZE)
    rows, begin, head = rows[is_data], begin[is_data], head[is_data]
    flags = head["flags"].astype(np.int64)
    onto, out_of = flags & _TO_DISTRIBUTION != 0, flags & _FROM_DISTRIBUTION != 0
    relayed = onto & out_of
    quality = head["control"] & _QUALITY != 0
    size = _HEADER_SIZE + 6 * relayed + 2 * quality + 4 * (quality & (flags & _ORDER != 0))
    whole = ends[rows] - begin >= size
    third, second = head["third"] >> 16, head["second"] >> 16
    sources = np.where(relayed, head["fourth"] >> 16, np.where(out_of, third, second))
    for name, found in (
        ("src_mac", sources),
        ("dst_mac", np.where(onto, third, head["first"] >> 16)),
    ):
        column = columns[name]
        assert not isinstance(column, DictColumn)
        column[rows[whole]] = found[whole]
    # What follows can be read unless it is enciphered.
    plain = whole & (head["control"] & _NO_DATA == 0) & (flags & _PROTECTED == 0)
    position[rows[plain]] = (begin + size)[plain]
