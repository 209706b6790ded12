"""What NetFlow v9 and IPFIX have in common: templates first, then records in their layouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np

from exporter.batch import FlowBatch
from exporter.simulate.encode.columns import cut, families, slices
from exporter.simulate.encode.layout import Layout, Origin

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def padded(content: bytes) -> bytes:
    """A set's content with zeros up to the next multiple of four octets."""
    return content + _PADDING[len(content) % 4]


def a_set(set_id: int, content: bytes) -> bytes:
    """A FlowSet or Set: id, length, content, padding (RFC 3954, 5.2; RFC 7011, 3.3.2)."""
    content = padded(content)
    return set_id.to_bytes(2, "big") + (len(content) + 4).to_bytes(2, "big") + content


class TemplatedEncoder(ABC):
    """Sends templates, options templates and options data before the first record and again
    after ``refresh_packets`` datagrams or ``refresh_seconds`` (RFC 3954, section 9; RFC 7011,
    section 8.4).

    Args:
        boot: when the device started, milliseconds since the epoch.
        observation_domain: the v9 source id or IPFIX observation domain.
        layouts: the template for each address family, 4 and 6.
        sampling_rate: 1 in N, told by options data where it is above 1.
        interfaces: interface names by ifIndex, told by options data.
    """

    header_size: int

    def __init__(
        self,
        *,
        boot: int,
        layouts: Mapping[int, Layout],
        observation_domain: int = 0,
        sampling_rate: int = 1,
        interfaces: Mapping[int, str] | None = None,
        mtu: int = 1400,
        refresh_packets: int = 1000,
        refresh_seconds: float = 60.0,
    ) -> None:
        self._boot = boot
        self._layouts = dict(layouts)
        self._domain = observation_domain
        self._origin = Origin(boot, sampling_rate)
        self._interfaces = dict(interfaces or {})
        self._mtu = mtu
        self._refresh_packets = refresh_packets
        self._refresh_milliseconds = int(refresh_seconds * 1000)
        self._sequence = 0
        self._packets_since_templates = refresh_packets
        self._templates_at = 0

    def encode(self, batch: FlowBatch, now: int) -> list[bytes]:
        """The datagrams that carry ``batch``; see :class:`~exporter.simulate.encode.Encoder`."""
        messages: list[bytes] = []
        for family, part in families(batch):
            layout = self._layouts[family]
            body, ends = layout.records(part, self._origin)
            # Three octets are left for padding.
            parts = cut(ends, self._mtu - self.header_size - 4 - 3)
            while parts:
                if self._due(now):
                    messages += self.templates(now)
                room = self._refresh_packets - self._packets_since_templates
                messages += self._messages(layout.template, body, ends, parts[:room], now)
                self._packets_since_templates += len(parts[:room])
                parts = parts[room:]
        return messages

    def templates(self, now: int) -> list[bytes]:
        """Datagrams with all templates, options templates and options data."""
        self._packets_since_templates = 0
        self._templates_at = now
        messages: list[bytes] = []
        content, template_records, data_records = b"", 0, 0
        for part, templates, data in self._descriptions():
            if content and self.header_size + len(content) + len(part) > self._mtu:
                messages.append(self._message(content, template_records, data_records, now))
                content, template_records, data_records = b"", 0, 0
            content += part
            template_records += templates
            data_records += data
        messages.append(self._message(content, template_records, data_records, now))
        return messages

    def _due(self, now: int) -> bool:
        return (
            self._packets_since_templates >= self._refresh_packets
            or now - self._templates_at >= self._refresh_milliseconds
        )

    def _messages(
        self,
        template: int,
        body: bytes,
        ends: np.ndarray[tuple[int], np.dtype[np.int64]],
        parts: list[tuple[int, int]],
        now: int,
    ) -> list[bytes]:
        rows = np.array(parts, np.int64).reshape(-1, 2)
        first, last = rows[:, 0], rows[:, 1]
        stop = ends[last - 1]
        start = np.where(first > 0, ends[first - 1], 0)
        size = stop - start
        lengths = size + (-size % 4) + 4
        headers = self._headers(last - first, lengths + self.header_size, now)
        sets = np.empty((len(parts), 2), ">u2")
        sets[:, 0] = template
        sets[:, 1] = lengths
        return [
            header + set_header + body[a:b] + _PADDING[(b - a) % 4]
            for header, set_header, a, b in zip(
                slices(headers, self.header_size),
                slices(sets.tobytes(), 4),
                start.tolist(),
                stop.tolist(),
                strict=True,
            )
        ]

    @abstractmethod
    def _descriptions(self) -> Iterator[tuple[bytes, int, int]]:
        """Sets of templates and options data: ``(set, template records, data records)``."""

    @abstractmethod
    def _headers(
        self,
        records: np.ndarray[tuple[int], np.dtype[np.int64]],
        lengths: np.ndarray[tuple[int], np.dtype[np.int64]],
        now: int,
    ) -> bytes:
        """Message headers for data records, back to back; advances the sequence number."""

    @abstractmethod
    def _message(self, content: bytes, templates: int, data: int, now: int) -> bytes:
        """One message of ready sets; advances the sequence number."""
