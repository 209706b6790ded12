"""Two VMs of interns push to the registry over and over in small packets, then stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from exporter.simulate.pools import hosts
from exporter.simulate.scenarios.scenario import Scenario
from exporter.simulate.streams import AGENTS, STEADY, Stream, Window
from exporter.simulate.traffic import both_ways, registry

#: The VMs, and what they send: bits per second in packets of 80 octets.
VMS: Final = {"k122": 1.1e6, "k212": 0.9e6}
#: Told from 8:00 on: three hours of it, until shortly after 11:00.
BEGIN: Final = 10.0
END: Final = 3 * 3600 + 3 * 60.0


def _pushes() -> Iterator[Stream]:
    for name, bits_per_second in VMS.items():
        yield from both_ways(
            Stream(f"pushes-{name}", AGENTS, hosts(name), registry(), "https", bits_per_second,
                   8.0, packet_size=80, inbound=False, rhythm=STEADY,
                   windows=(Window(BEGIN, END),), only_in_windows=True),
            0.85 * bits_per_second, 8.0, packet_size=80,
        )  # fmt: skip


SCENARIO: Final = Scenario(
    "registry-429",
    f"{' and '.join(VMS)} wear out the registry's quota with small packets for three hours.",
    hour=8.0,
    added=tuple(_pushes()),
)
