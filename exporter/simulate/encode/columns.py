"""Flow columns as the big-endian integers and octets that protocols carry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.address import is_ipv4
from exporter.batch import Array, FlowBatch


def of_ipv4(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the addresses, shape ``(n, 16)``, are sent as IPv4: mapped ones, and ``::``."""
    return is_ipv4(addresses) | ~addresses.any(axis=1)


def families(batch: FlowBatch) -> list[tuple[int, FlowBatch]]:
    """The batch in parts of one address family each, as ``(4 or 6, part)``, IPv4 first.

    Raises:
        ValueError: source and destination of a flow are of different families.
    """
    if not len(batch):
        return []
    ipv4 = of_ipv4(batch.array("src_addr"))
    if not np.array_equal(ipv4, of_ipv4(batch.array("dst_addr"))):
        raise ValueError("source and destination are of different address families")
    if ipv4.all():
        return [(4, batch)]
    if not ipv4.any():
        return [(6, batch)]
    return [(4, batch.take(ipv4)), (6, batch.take(~ipv4))]


def reported(batch: FlowBatch, column: str, sampling_rate: int) -> Array:
    """``bytes`` or ``packets`` as the device counted them, before scaling up.

    Raises:
        ValueError: a value is no multiple of the sampling rate, so that no device could have
            reported it.
    """
    estimate = batch.array(column)
    if sampling_rate == 1:
        return estimate
    counted = estimate // np.uint64(sampling_rate)
    if not np.array_equal(counted * np.uint64(sampling_rate), estimate):
        raise ValueError(f"{column} are no multiples of the sampling rate {sampling_rate}")
    return counted


def fits(values: Array, octets: int, what: str) -> Array:
    """The values, if all fit that many octets, unsigned.

    Raises:
        ValueError: one does not.
    """
    if octets < 8 and len(values) and int(values.max()) >> (8 * octets):
        raise ValueError(f"{what} {int(values.max())} does not fit {octets} octets")
    return values


def icmp_type_code(batch: FlowBatch) -> Array:
    """256 times ICMP type, plus code, as NetFlow puts it into element 32 and v5 into the port."""
    return batch.array("icmp_type").astype(np.uint16) << 8 | batch.array("icmp_code")


def uptime(times: Array, boot: int) -> NDArray[np.uint32]:
    """Milliseconds since the epoch as 32-bit milliseconds since the device started (wrapping)."""
    relative: NDArray[np.int64] = times.astype(np.int64) - boot
    return (relative & 0xFFFFFFFF).astype(np.uint32)


def octets(values: Array, length: int) -> NDArray[np.uint8]:
    """Unsigned integers as ``(n, length)`` big-endian octets."""
    wide = np.ascontiguousarray(values.astype(">u8")).view(np.uint8).reshape(-1, 8)
    if length <= 8:
        return wide[:, 8 - length :]
    padded = np.zeros((len(values), length), np.uint8)
    padded[:, length - 8 :] = wide
    return padded


def scatter(target: NDArray[np.uint8], offsets: Array, rows: NDArray[np.uint8]) -> None:
    """Write row ``i`` of ``rows`` into the flat ``target`` from ``offsets[i]`` on."""
    target[offsets[:, None] + np.arange(rows.shape[1])] = rows


def slices(flat: bytes, size: int) -> list[bytes]:
    """``flat`` in pieces of ``size``."""
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def cut(ends: NDArray[Any], limit: int) -> list[tuple[int, int]]:
    """Rows ``[first, last)`` of each message so that none holds more than ``limit`` octets.

    ``ends`` are the ends of the rows in one flat buffer, in order.

    Raises:
        ValueError: a single row is larger than the limit.
    """
    parts = []
    first = 0
    start = 0
    while first < len(ends):
        last = int(np.searchsorted(ends, start + limit, side="right"))
        if last == first:
            raise ValueError(f"a record is larger than {limit} octets")
        parts.append((first, last))
        first = last
        start = int(ends[last - 1])
    return parts
