"""Service names of ports, and which end of a flow is the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.batch import FlowBatch
from exporter.config import Service
from exporter.enrich.texts import Texts
from exporter.enrich.well_known import WELL_KNOWN

_PORTS = 65536
_PROTOCOLS = {"tcp": 6, "udp": 17}


class ServiceNames:
    """Fills ``src_service``, ``dst_service`` and ``service``.

    A port's name comes from the configuration, else from the table of well-known ports, else
    there is none. A flow belongs to the end whose port has a name: a configured name wins over
    a well-known one, then the lower port. A flow without a named port has no service: its lower
    port says little, and a scan would make names of all ports.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        named = {
            (protocol, port): (0, name)
            for port, protocols, name in WELL_KNOWN
            for protocol in protocols
        }
        named |= {(s.protocol, s.port): (1, s.name) for s in services}
        # Ports get ranks such that of two ports the service has the higher rank.
        ranked = sorted(named.items(), key=lambda item: (item[1][0], -item[0][1], item[0][0]))
        self._texts = Texts()
        numbers = [self._texts.number(name) for _, (_, name) in ranked]
        self._number_of_rank = np.array([0, *numbers], np.uint32)
        # Ports of TCP, of UDP, and of other protocols, where none has a name.
        ranks = np.zeros((3, _PORTS), np.uint32)
        rows = {protocol: row for row, protocol in enumerate(_PROTOCOLS, 1)}
        for rank, ((protocol, port), _) in enumerate(ranked, 1):
            ranks[rows[protocol], port] = rank
        self._ranks = ranks.ravel()
        self._row_start = np.zeros(256, np.uint32)
        for protocol, row in rows.items():
            self._row_start[_PROTOCOLS[protocol]] = row * _PORTS

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        row_start = self._row_start[batch.array("proto")]
        source = self._ranks[row_start + batch.array("src_port")]
        destination = self._ranks[row_start + batch.array("dst_port")]
        for column, ranks in (
            ("src_service", source),
            ("dst_service", destination),
            ("service", np.maximum(source, destination)),
        ):
            batch.columns[column] = self._texts.column(self._number_of_rank[ranks])
