"""Time from an incident's first packet to its notification, with everything as shipped.

``python -m tests.e2e.measure`` tells the stories live, waits for the alerts (about ten minutes),
and writes the table of docs/explanation/incidents.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from exporter.simulate.site import ROGUE
from tests.e2e.datacenter import REAL, Site, watched
from tests.support.folders import own_folder
from tests.support.stack import until

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "incidents.md"
BEGIN: Final = "<!-- measured: begin (python -m tests.e2e.measure) -->\n"
END: Final = "<!-- measured: end -->"

#: Seconds that everything may need to start before the first packet of a story.
_LEAD: Final = 300
_LONGEST: Final = 900

_BESIDE: Final = "2, by the alert beside it"

#: By scenario: what alerts, its labels, and the clicks from the notification to the cause, as
#: test_incidents.py follows them.
ALERTS: Final[tuple[tuple[str, str, dict[str, str], str], ...]] = (
    ("load-spike", "bits/s to `fl13`", {"policy": "host_bits", "dst_host": "fl13"}, "1"),
    ("load-spike", "packets/s to `fl13`", {"policy": "host_packets", "dst_host": "fl13"}, "1"),
    ("query-fanin", "slow queries, told by the application", {"alertname": "QueriesSlow"}, _BESIDE),
    (
        "query-fanin", "sum among 20 nodes",
        {"policy": "network_internal_bits", "dst_network": "query-cluster"}, _BESIDE,
    ),
    (
        "query-fanin", "sources of `aggregation` on `ag04`",
        {"policy": "service_sources", "dst_host": "ag04"}, "1",
    ),
    (
        "query-fanin", "dip of `ingest` on `ag04`",
        {"policy": "service_dip", "dst_host": "ag04"}, "2",
    ),
    ("rogue-host", "first seen", {"policy": "new_address", "src_host": ROGUE}, "2"),
    (
        "rogue-host", "sources at its address",
        {"policy": "internal_sources", "dst_host": ROGUE}, "2",
    ),
    (
        "rogue-host", "sources at the NAT",
        {"policy": "gateway_sources", "dst_network": "nat"}, _BESIDE,
    ),
    (
        "rogue-host", "sources at the proxy",
        {"policy": "gateway_sources", "dst_network": "proxy"}, _BESIDE,
    ),
)  # fmt: skip


def measure(site: Site) -> str:
    """The table, once all alerts came."""
    rows = [
        "| incident | alert | first packet to notification | clicks to the cause |",
        "|---|---|---|---|",
    ]
    for scenario, what, labels, clicks in ALERTS:
        until(what, _LONGEST, lambda labels=labels: site.inbox.first(**labels))
        rows.append(f"| {scenario} | {what} | {site.delay(scenario, **labels):.0f} s | {clicks} |")
    rows.append("| registry-429 | none, and none is due: one explores from the symptom | | 1 |")
    day = time.strftime("%F", time.gmtime())
    load = os.getloadavg()[1]
    rows.append("")
    rows.append(
        f"Measured on {day}, {os.cpu_count()} cores with a load of {load:.0f}; rules every minute, "
        "policies every minute, Alertmanager's waits as shipped."
    )
    return "\n".join(rows) + "\n"


def write(page: str, table: str) -> str:
    """The page with the table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table + END + after


def main() -> None:
    """Measure and write."""

    def begins(now: int) -> dict[str, int]:
        first = now + _LEAD
        return {"load-spike": first, "query-fanin": first, "rogue-host": first}

    with (
        own_folder("flow-incidents-") as folder,
        watched(folder, REAL, begins) as site,
    ):
        late = time.time() - site.begins["load-spike"]
        if late > 0:
            raise SystemExit(f"everything was up {late:.0f} s after the first packet: too late")
        table = measure(site)
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
