"""Records of both directions (RFC 5103, initiator and responder) as two flows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from exporter.batch import FlowBatch
from exporter.decode.times import Times, flow_times
from exporter.schema import BY_NAME

_PAIRS: Final = (
    ("src_addr", "dst_addr"), ("src_port", "dst_port"), ("in_if", "out_if"),
    ("in_if_name", "out_if_name"), ("src_vlan", "dst_vlan"), ("src_mac", "dst_mac"),
    ("src_as", "dst_as"), ("src_prefix_len", "dst_prefix_len"),
    ("nat_src_addr", "nat_dst_addr"), ("nat_src_port", "nat_dst_port"),
)  # fmt: skip

#: What holds for one direction and is not told for the other.
_ONE_WAY: Final = (
    "next_hop", "tcp_flags", "tos", "ttl", "mpls_labels", "forwarding_status", "flow_label",
    "direction", "drop_bytes", "drop_packets", "bytes", "packets",
)  # fmt: skip

#: What reverse elements may tell of the other direction, which is sampled as the flow itself is.
_TOLD: Final = frozenset(BY_NAME) - {"sampling_rate"}


def reverse_flows(
    columns: dict[str, Any], reverse: dict[str, Any], received: Times
) -> list[FlowBatch]:
    """A batch of the flows in the other direction, for rows that count anything there.

    ``columns`` are those of the flows as reported, complete but for ``reverse_bytes`` and
    ``reverse_packets``, which are taken out. ``reverse`` are reverse elements as columns.
    """
    count = len(received)
    octets = columns.pop("reverse_bytes", reverse.pop("bytes", None))
    packets = columns.pop("reverse_packets", reverse.pop("packets", None))
    if octets is None and packets is None:
        return []
    octets = np.zeros(count, np.uint64) if octets is None else octets
    packets = np.zeros(count, np.uint64) if packets is None else packets
    rows = np.flatnonzero(octets | packets)
    if not len(rows):
        return []
    turned = {name: column for name, column in columns.items() if name not in _ONE_WAY}
    for one, other in _PAIRS:
        turned.pop(one, None)
        turned.pop(other, None)
        if other in columns:
            turned[one] = columns[other]
        if one in columns:
            turned[other] = columns[one]
    rates = columns["sampling_rate"]
    turned["bytes"] = octets * rates
    turned["packets"] = packets * rates
    if reverse.keys() & {"time_flow_start", "time_flow_end", "duration"}:
        start, end, source, _ = flow_times(reverse, received)
        turned |= {"time_flow_start": start, "time_flow_end": end, "time_source": source}
    reverse = {name: column for name, column in reverse.items() if name in _TOLD}
    return [FlowBatch(count, {**turned, **reverse}).take(rows)]
