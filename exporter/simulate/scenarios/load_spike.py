"""One customer's AS sends several times the usual volume to one ingest node."""

from __future__ import annotations

from typing import Final

from exporter.simulate.pools import hosts, neighbours
from exporter.simulate.scenarios.scenario import Scenario
from exporter.simulate.site import SPIKE_AS
from exporter.simulate.streams import STEADY, Stream, Window

#: The node that is hit.
NODE: Final = "fl13"
#: Seconds of quiet before the spike, and when it is over.
BEGIN: Final = 10.0
END: Final = BEGIN + 3 * 3600
#: CPU load of the node meanwhile.
_CPU: Final = 0.93

_SPIKE: Final = Stream(
    "spike",
    "edge1",
    neighbours([SPIKE_AS], 12),
    hosts(NODE),
    "ingest",
    bits_per_second=80e6,
    flows_per_second=60.0,
    packet_size=650,
    rhythm=STEADY,
    windows=(Window(BEGIN, END),),
    only_in_windows=True,
)

SCENARIO: Final = Scenario(
    "load-spike",
    f"AS {SPIKE_AS.asn} sends several times the usual volume to {NODE}.",
    hour=22.25,
    added=(_SPIKE,),
    busy_nodes={NODE: (Window(BEGIN, END, _CPU),)},
)
