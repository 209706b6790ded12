"""NetFlow v5: a fixed record, read with the same means as a template's.

Source: Cisco, NetFlow Services Solutions Guide, "NetFlow Export Version 5 Record Format".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Datagrams
from exporter.decode.elements import V9
from exporter.decode.layout import Field
from exporter.decode.records import Offsets

_PADDING: Final = 210

#: The record as (element, octets), in the numbers of NetFlow v9.
LAYOUT_FIELDS: Final = tuple(
    Field(V9, element, length)
    for element, length in (
        (8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2),
        (11, 2), (_PADDING, 1), (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1),
        (_PADDING, 2),
    )
)  # fmt: skip

RECORD_SIZE: Final = 48
#: Most records that Cisco devices put in a datagram.
_MAX_RECORDS: Final = 30
#: The upper two bits of the header's sampling field are a mode.
_INTERVAL: Final = 0x3FFF


def usable_counts(datagrams: Datagrams) -> tuple[Offsets, NDArray[np.bool_]]:
    """Records to read per datagram, and where the count in the header is wrong.

    A datagram that holds less than its header tells was cut: what there is is read, unless the
    count is beyond anything that is sent.
    """
    told = datagrams.header["count"].astype(np.int64)
    fit = (datagrams.end - datagrams.body) // RECORD_SIZE
    wrong = told > fit
    counts = np.where(wrong, np.where(told <= _MAX_RECORDS, fit, 0), told)
    return counts, wrong


def header_rates(datagrams: Datagrams) -> Offsets:
    """Sampling rates by the headers; 0 where they tell none."""
    return datagrams.header["sampling"].astype(np.int64) & _INTERVAL
