"""Service names of ports, and which end of a flow is the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch
from exporter.config import Service
from exporter.enrich.network_fact import Networks
from exporter.enrich.registered_ports import registered_ports
from exporter.enrich.service_scope import ServiceScope
from exporter.enrich.texts import Texts
from exporter.enrich.well_known import WELL_KNOWN

_PORTS: Final = 65536
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
#: Rows of the table by transport; row 0 is for all other protocols, where no port has a name.
_ROWS: Final = {name: row for row, name in enumerate(_PROTOCOLS, 1)}

# Flags of TCP (RFC 9293). Only a flow of few packets shows who opened: SYN alone is the client's,
# SYN with ACK and nothing else the server's; longer flows have both from either end.
_SYN: Final = 0x02
_FLAGS: Final = 0x1F  # FIN, SYN, RST, PSH, ACK
_SYN_ACK: Final = 0x12

#: How much a name says about where the service is.
_REGISTERED, _WELL_KNOWN, _CONFIGURED = range(3)


class ServiceNames:
    """Fills ``src_service``, ``dst_service`` and ``service``.

    A port's name comes from the configuration: from a service at that address, in that network, or
    anywhere; else from the table of well-known ports, else from the ports that IANA registered,
    else there is none. A flow belongs to the end whose port has a name. Where both have one, a
    configured name wins over a well-known one and that over a registered one, then the lower port;
    of equal ports the end that did not open the connection, where flags tell who did. They also
    tell that a registered port is but the client's own: then it says nothing.

    A flow without a named port has no service: its lower port says little, and a scan would make
    names of all ports. So there are never more names than the tables and the configuration have.
    """

    def __init__(self, services: Sequence[Service], networks: Networks) -> None:
        known = [(_REGISTERED, *entry) for entry in registered_ports()]
        known += [(_WELL_KNOWN, port, t, name) for port, ts, name in WELL_KNOWN for t in ts]
        known += [(_CONFIGURED, s.port, s.protocol, s.name) for s in services]
        #: All names that a flow can get.
        self.names = frozenset(name for *_, name in known)
        # Places are in such an order that of two ports the service has the higher one.
        ordered = sorted(set(known), key=lambda entry: (entry[0], -entry[1], entry[2:]))
        place_of = {entry: place for place, entry in enumerate(ordered, 1)}
        self._last_registered = sum(entry[0] == _REGISTERED for entry in ordered)
        self._texts = Texts()
        self._text_of_place = np.array([0, *(self._texts.number(e[3]) for e in ordered)], np.uint32)
        everywhere = {(_CONFIGURED, s.port, s.protocol, s.name) for s in services if not s.scoped}
        self._places = np.zeros((len(_ROWS) + 1) * _PORTS, np.uint32)
        for entry, place in place_of.items():  # those that count more come later
            if entry[0] != _CONFIGURED or entry in everywhere:
                self._places[_end(entry[2], entry[1])] = place
        self._row_start = np.zeros(256, np.intp)
        for transport, number in _PROTOCOLS.items():
            self._row_start[number] = _end(transport, 0)
        scoped = [
            (s, _end(s.protocol, s.port), place_of[_CONFIGURED, s.port, s.protocol, s.name])
            for s in services
            if s.scoped
        ]
        #: What must be known of addresses before :meth:`apply`, if anything.
        self.scope = ServiceScope(scoped, networks) if scoped else None

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        starts = self._row_start.take(batch.array("proto"), mode="clip")
        places = {}
        for side in ("src", "dst"):
            ports = starts + batch.array(f"{side}_port")
            places[side] = self._places.take(ports, mode="clip")
            if self.scope is not None:
                self.scope.replace(side, ports, places[side])
            column = self._texts.column(self._text_of_place.take(places[side], mode="clip"))
            batch.columns[f"{side}_service"] = column
        source, destination = places["src"], places["dst"]
        if "tcp_flags" in batch.columns:
            flags = batch.array("tcp_flags") & _FLAGS
            self._leave_out(np.flatnonzero(flags == _SYN), source, destination, batch)
            self._leave_out(np.flatnonzero(flags == _SYN_ACK), destination, source, batch)
        service = self._text_of_place.take(np.maximum(source, destination), mode="clip")
        batch.columns["service"] = self._texts.column(service)

    def _leave_out(
        self,
        rows: NDArray[np.intp],
        client: NDArray[np.uint32],
        server: NDArray[np.uint32],
        batch: FlowBatch,
    ) -> None:
        """Where it is known who the client is, its port counts for less."""
        same_port = batch.array("src_port")[rows] == batch.array("dst_port")[rows]
        own = (client[rows] <= self._last_registered) | (same_port & (server[rows] > 0))
        client[rows[own]] = 0


def _end(transport: str, port: int) -> int:
    return _ROWS[transport] * _PORTS + port
