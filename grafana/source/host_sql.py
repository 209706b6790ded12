"""SQL about one host: the ``address`` variable as source and as destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.explore.drawn import ESTIMATED as IS_ESTIMATED
from exporter.explore.drawn import LOOKED_AT, WEIGHT
from exporter.explore.expressions import TIME, text
from exporter.explore.owners import owners

from .flows_sql import ESTIMATED, RANGE, variable

HOST = replace(RANGE, address=variable("address"))

#: Constants of queries whose sums may be estimates, and what a flow counts for in them.
_SUMMED = f"{HOST.address_constants()},\n  ({ESTIMATED}) AS {IS_ESTIMATED}"
_OCTETS = f"bytes * {WEIGHT}"


def _of_host(sent: str, received: str, further: str = LOOKED_AT) -> str:
    """What the host's flows give, as two reads: those it sent and those it received."""
    return f"""\
    SELECT {sent} FROM flows PREWHERE {HOST.address_matches("src")}
    WHERE {HOST.in_range()} AND {further}
    UNION ALL
    SELECT {received} FROM flows PREWHERE {HOST.address_matches("dst")}
    WHERE {HOST.in_range()} AND {further}"""


def series_query() -> str:
    """``time``, ``series`` (Sent, Received), ``Value`` in bits per second, every bucket."""
    reads = _of_host(
        f"'Sent' AS series, {HOST.bucket} AS time, {_OCTETS} AS octets",
        f"'Received' AS series, {HOST.bucket} AS time, {_OCTETS} AS octets",
    )
    return f"""\
WITH
{_SUMMED}
SELECT time, series, Value FROM (
  SELECT series, time, toFloat64(sum(octets)) * 8 / $__interval_s AS Value
  FROM (
{reads}
  )
  GROUP BY series, time
  ORDER BY series, time
    WITH FILL FROM {HOST.first}
      TO {HOST.past} STEP $__interval_s
)
ORDER BY time, series"""


def summary_query() -> str:
    """One row about the host of the ``address`` variable."""
    seconds = HOST.seconds
    reads = _of_host(
        f"{TIME}, bytes AS sent, 0 AS received, dst_addr AS peer",
        f"{TIME}, 0 AS sent, bytes AS received, src_addr AS peer",
        "1",
    )
    return f"""\
WITH
{HOST.address_constants()}
SELECT
  toFloat64(sum(sent)) * 8 / {seconds} AS "Sent bits/s",
  toFloat64(sum(received)) * 8 / {seconds} AS "Received bits/s",
  toFloat64(count()) AS "Flows",
  toFloat64(uniq(peer)) AS "Peers",
  toFloat64(toUnixTimestamp64Milli(min({TIME}))) AS "First seen",
  toFloat64(toUnixTimestamp64Milli(max({TIME}))) AS "Last seen"
FROM (
{reads}
)"""


def breakdown_query(sent: Sequence[str], received: Sequence[str], limit: int = 50) -> str:
    """The host's traffic by a pair of columns: (key, name) of flows sent and of those received."""
    seconds = HOST.seconds
    reads = _of_host(
        f"{sent[0]} AS key, toString({sent[1]}) AS name, {_OCTETS} AS sent, 0 AS received,"
        f" {WEIGHT} AS stands_for",
        f"{received[0]} AS key, toString({received[1]}) AS name, 0 AS sent, {_OCTETS} AS received,"
        f" {WEIGHT} AS stands_for",
    )
    return f"""\
WITH
{_SUMMED}
SELECT {text("key")} AS "Key", name AS "Name",
  toFloat64(sum(sent)) * 8 / {seconds} AS "Sent",
  toFloat64(sum(received)) * 8 / {seconds} AS "Received",
  toFloat64(sum(stands_for)) AS "Flows"
FROM (
{reads}
)
GROUP BY key, name
ORDER BY sum(sent) + sum(received) DESC, key, name
LIMIT {limit}"""


def path_query(limit: int = 50) -> str:
    """How the host's traffic passes each device: interfaces, MAC address, provider, rate."""
    seconds = HOST.seconds
    columns = (
        "device AS at, in_if, out_if, in_if_name, out_if_name,"
        f" {_OCTETS} AS octets, {WEIGHT} AS stands_for"
    )
    reads = _of_host(
        f"'Sent' AS way, out_if AS far, src_mac AS mac, {columns}",
        f"'Received' AS way, in_if AS far, dst_mac AS mac, {columns}",
    )

    def name(side: str) -> str:
        return f"if(max({side}_if_name) != '', toString(max({side}_if_name)), toString({side}_if))"

    return f"""\
WITH
{_SUMMED}
SELECT way AS "Way", toString(at) AS "Device", entry AS "Comes in by", exit AS "Leaves by",
  ifNull(behind, '') AS "Provider", macs AS "MAC", bits AS "Bits/s", told AS "Flows"
FROM (
  SELECT way, at, far, {name("in")} AS entry, {name("out")} AS exit,
    if(max(mac) = 0, '', MACNumToString(max(mac))) AS macs,
    toFloat64(sum(octets)) * 8 / {seconds} AS bits, toFloat64(sum(stands_for)) AS told
  FROM (
{reads}
  )
  GROUP BY way, at, in_if, out_if, far
) AS passed
LEFT JOIN (
  SELECT device AS known_device, interface, provider AS behind FROM interfaces FINAL
) AS known ON passed.at = known.known_device AND passed.far = known.interface
ORDER BY bits DESC, way, at, entry, exit
LIMIT {limit}"""


def names_query(limit: int = 200) -> str:
    """DNS names that the host asked for, most frequent first; from resolvers and from flows.

    ``Clients`` is how many asked for the name: 1 is nobody else.
    """
    return f"""\
WITH
{HOST.address_constants()}
SELECT dns_name AS "Name asked", toFloat64(questions) AS "Questions", everybody AS "Clients",
  answer AS "Usual answer", first_asked AS "First asked", last_asked AS "Last asked"
FROM (
  SELECT dns_name, count() AS questions, toString(topK(1)(dns_rcode)[1]) AS answer,
    min({TIME}) AS first_asked, max({TIME}) AS last_asked
  FROM dns_queries
  WHERE {HOST.in_range()} AND {HOST.matches("src_addr", "src_host", "src_network")}
  GROUP BY dns_name
) AS asked
LEFT JOIN (
  SELECT dns_name, toFloat64(uniq(src_addr)) AS everybody
  FROM dns_queries
  WHERE {HOST.in_range()}
  GROUP BY dns_name
) AS all_clients USING (dns_name)
ORDER BY questions DESC, dns_name
LIMIT {limit}"""


def seen_query(limit: int = 100) -> str:
    """Internal addresses of the ``address`` variable with their first and last flow ever."""
    return f"""\
WITH
{HOST.address_constants()}
SELECT {text("seen_addr")} AS "Address", toString(seen_host) AS "Name",
  owned_by.1 AS "Role", owned_by.2 AS "Owner",
  toString(seen_network) AS "Network", toString(seen_device) AS "Device",
  seen_first AS "First seen", seen_last AS "Last seen"
FROM (
  SELECT addr AS seen_addr, anyLast(host) AS seen_host, anyLast(network) AS seen_network,
    anyLast(device) AS seen_device, min(first_seen) AS seen_first, max(last_seen) AS seen_last
  FROM hosts_seen
  WHERE {HOST.matches("addr", "host", "network")}
  GROUP BY addr
) AS seen
LEFT JOIN (
{owners()}
) AS owners ON toString(seen_addr) = owners.subject
ORDER BY seen_first DESC
LIMIT {limit}"""
