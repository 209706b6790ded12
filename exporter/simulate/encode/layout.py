"""Record layouts of NetFlow v9 and IPFIX templates, and flows written in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch
from exporter.schema import BY_NAME, Kind
from exporter.simulate.encode.columns import (
    fits,
    icmp_type_code,
    octets,
    reported,
    scatter,
    uptime,
)

#: Length in a template that says "in each record" (RFC 7011, section 7).
VARIABLE: Final = 65535


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a template.

    ``column`` is a flow column or one of ``uptime_start``, ``uptime_end`` (flow times relative
    to the device's start), ``icmp_type_code`` and ``sampler`` (the id of the one sampler).
    ``enterprise`` other than 0 is a private enterprise number (IPFIX only).
    """

    element: int
    length: int
    column: str
    enterprise: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """What of a device enters its records."""

    boot: int
    sampling_rate: int
    sampler: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """A template: its id and fields. Fields of variable length come last."""

    template: int
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        lengths = [field.length for field in self.fields]
        if VARIABLE in lengths and any(n != VARIABLE for n in lengths[lengths.index(VARIABLE) :]):
            raise ValueError("fields of variable length come last")

    def records(self, batch: FlowBatch, origin: Origin) -> tuple[bytes, NDArray[np.int64]]:
        """All flows as data records, back to back, and the end of each in them.

        Raises:
            ValueError: a value does not fit its field.
        """
        fixed = self._fixed(batch, origin)
        variable = [f for f in self.fields if f.length == VARIABLE]
        width = fixed.shape[1]
        if not variable:
            return fixed.tobytes(), (np.arange(len(batch), dtype=np.int64) + 1) * width
        texts = [_texts(batch, field) for field in variable]
        sizes = np.full(len(batch), width, np.int64)
        for codes, lengths, _ in texts:
            sizes += lengths[codes]
        ends = np.cumsum(sizes)
        flat = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        position = ends - sizes
        scatter(flat, position, fixed)
        position += width
        for codes, lengths, table in texts:
            row_lengths = lengths[codes]
            for length in np.unique(row_lengths):
                rows = np.flatnonzero(row_lengths == length)
                scatter(flat, position[rows], table[codes[rows], :length])
            position += row_lengths
        return flat.tobytes(), ends

    def _fixed(self, batch: FlowBatch, origin: Origin) -> NDArray[np.uint8]:
        fields = [f for f in self.fields if f.length != VARIABLE]
        matrix = np.zeros((len(batch), sum(f.length for f in fields)), np.uint8)
        offset = 0
        for field in fields:
            target = matrix[:, offset : offset + field.length]
            offset += field.length
            values = _values(batch, field.column, origin)
            if values.ndim == 2:
                target[:] = values[:, 16 - field.length :]
            elif field.length in (1, 2, 4, 8):
                # One typed store per field is several times cheaper than octet by octet.
                fits(values, field.length, field.column)
                typed = np.ndarray((len(batch),), f">u{field.length}", matrix,
                                   offset - field.length, matrix.strides[:1])  # fmt: skip
                typed[:] = values
            else:
                fits(values, field.length, field.column)
                target[:] = octets(values, field.length)
        return matrix


def _values(batch: FlowBatch, column: str, origin: Origin) -> Array:
    match column:
        case "uptime_start":
            return uptime(batch.array("time_flow_start"), origin.boot)
        case "uptime_end":
            return uptime(batch.array("time_flow_end"), origin.boot)
        case "icmp_type_code":
            return icmp_type_code(batch)
        case "sampler":
            return np.full(len(batch), origin.sampler, np.uint64)
        case "bytes" | "packets":
            return reported(batch, column, origin.sampling_rate)
        case "direction":
            # The element has 0 ingress and 1 egress; the column keeps 0 for "not told".
            return np.maximum(batch.array(column), 1).astype(np.uint8) - 1
        case _:
            return batch.array(column)


def _texts(batch: FlowBatch, field: Field) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Codes, encoded length per value, and the encoded values (RFC 7011, section 7), padded."""
    if BY_NAME[field.column].kind not in (Kind.TEXT, Kind.NAME):
        raise ValueError(f"column {field.column} is no text")
    dictionary = batch.dictionary(field.column)
    encoded = [variable_length(value.encode()) for value in dictionary.values]
    lengths = np.array([len(value) for value in encoded], np.int64)
    table = np.zeros((len(encoded), int(lengths.max(initial=0))), np.uint8)
    for row, value in zip(table, encoded, strict=True):
        row[: len(value)] = np.frombuffer(value, np.uint8)
    return dictionary.codes, lengths, table


def variable_length(value: bytes) -> bytes:
    """A value behind its length: one octet, or 255 and two octets (RFC 7011, section 7)."""
    if len(value) < 255:
        return bytes([len(value)]) + value
    return b"\xff" + len(value).to_bytes(2, "big") + value


def of_ipv6(fields: Sequence[Field]) -> tuple[Field, ...]:
    """What tells of an IPv6 flow as ``fields`` do of one of IPv4, in NetFlow v9 as in IPFIX."""
    exchange = {
        8: Field(27, 16, "src_addr"),
        12: Field(28, 16, "dst_addr"),
        15: Field(62, 16, "next_hop"),
        9: Field(29, 1, "src_prefix_len"),
        13: Field(30, 1, "dst_prefix_len"),
        32: Field(139, 2, "icmp_type_code"),
    }
    return tuple(exchange.get(field.element, field) for field in fields)
