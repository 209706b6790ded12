"""One large query: all workers answer one aggregation node at once, whose ingest suffers."""

from __future__ import annotations

from typing import Final

from exporter.simulate.pools import hosts, pool
from exporter.simulate.scenarios.scenario import Scenario
from exporter.simulate.site import WORKERS
from exporter.simulate.streams import AGENTS, STEADY, Stream, Window
from exporter.simulate.traffic import AGGREGATOR

NODE: Final = AGGREGATOR
#: Seconds of quiet before the query, and when it is answered.
BEGIN: Final = 10.0
END: Final = BEGIN + 45 * 60
#: What is left of the node's ingest meanwhile.
_DIP: Final = 0.04
_CPU: Final = 0.97
#: 95th percentile of query latency meanwhile, seconds.
_LATENCY: Final = 4.8

_ANSWERS: Final = Stream(
    "fan-in",
    AGENTS,
    pool(WORKERS.values()),
    hosts(NODE),
    "aggregation",
    bits_per_second=24e9,
    flows_per_second=30.0,
    packet_size=1450,
    rhythm=STEADY,
    windows=(Window(BEGIN, END),),
    only_in_windows=True,
)
_INGEST: Final = tuple(
    f"ingest-{NODE}-{device}{way}" for device in ("edge1", "edge2") for way in ("", "-replies")
)

SCENARIO: Final = Scenario(
    "query-fanin",
    f"{len(WORKERS)} workers answer {NODE} at once, and its ingest dips.",
    hour=14.5,
    added=(_ANSWERS,),
    changed=dict.fromkeys(_INGEST, (Window(BEGIN, END, _DIP),)),
    busy_nodes={NODE: (Window(BEGIN, END, _CPU),)},
    latency=(Window(BEGIN, END, _LATENCY),),
)
