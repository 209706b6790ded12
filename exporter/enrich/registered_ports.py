"""All ports below 32768 that IANA has registered; ``registered_ports.txt`` tells the source.

Few people ever meet most of them, and many hosts take such ports for their own end of a connection:
these names count less than those of :mod:`exporter.enrich.well_known`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

_TRANSPORTS: Final = {"t": "tcp", "u": "udp"}


def registered_ports() -> Iterator[tuple[int, str, str]]:
    """``(port, transport, name)``; transport is ``tcp`` or ``udp``."""
    text = files("exporter.enrich").joinpath("registered_ports.txt").read_text("ascii")
    for line in text.splitlines():
        if not line.startswith("#"):
            port, transports, name = line.split(" ", 2)
            for letter in transports:
                yield int(port), _TRANSPORTS[letter], name
