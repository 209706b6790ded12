"""SQL about one host: the ``address`` variable as source and as destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.explore.expressions import TIME, text

from .flows_sql import RANGE, variable

HOST = replace(RANGE, address=variable("address"))


def _of_host(sent: str, received: str) -> str:
    """What the host's flows give, as two reads: those it sent and those it received."""
    return f"""\
    SELECT {sent} FROM flows
    WHERE {HOST.in_range()} AND {HOST.address_matches("src")}
    UNION ALL
    SELECT {received} FROM flows
    WHERE {HOST.in_range()} AND {HOST.address_matches("dst")}"""


def series_query() -> str:
    """``time``, ``series`` (Sent, Received), ``Value`` in bits per second, every bucket."""
    reads = _of_host(
        f"'Sent' AS series, {HOST.bucket} AS time, bytes",
        f"'Received' AS series, {HOST.bucket} AS time, bytes",
    )
    return f"""\
WITH
{HOST.address_constants()}
SELECT time, series, Value FROM (
  SELECT series, time, toFloat64(sum(bytes)) * 8 / $__interval_s AS Value
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
        f"{sent[0]} AS key, toString({sent[1]}) AS name, bytes AS sent, 0 AS received",
        f"{received[0]} AS key, toString({received[1]}) AS name, 0 AS sent, bytes AS received",
    )
    return f"""\
WITH
{HOST.address_constants()}
SELECT {text("key")} AS "Key", name AS "Name",
  toFloat64(sum(sent)) * 8 / {seconds} AS "Sent",
  toFloat64(sum(received)) * 8 / {seconds} AS "Received",
  toFloat64(count()) AS "Flows"
FROM (
{reads}
)
GROUP BY key, name
ORDER BY sum(sent) + sum(received) DESC, key, name
LIMIT {limit}"""


def names_query(limit: int = 200) -> str:
    """DNS names that the host asked for, most frequent first; from resolvers and from flows."""
    return f"""\
WITH
{HOST.address_constants()}
SELECT dns_name AS "Name asked", toFloat64(count()) AS "Questions",
  toString(topK(1)(dns_rcode)[1]) AS "Usual answer",
  min({TIME}) AS "First asked", max({TIME}) AS "Last asked"
FROM dns_queries
WHERE {HOST.in_range()} AND {HOST.matches("src_addr", "src_host", "src_network")}
GROUP BY dns_name
ORDER BY count() DESC, dns_name
LIMIT {limit}"""


def seen_query(limit: int = 100) -> str:
    """Internal addresses of the ``address`` variable with their first and last flow ever."""
    return f"""\
WITH
{HOST.address_constants()}
SELECT {text("seen_addr")} AS "Address", toString(seen_host) AS "Name",
  toString(seen_network) AS "Network", toString(seen_device) AS "Device",
  seen_first AS "First seen", seen_last AS "Last seen"
FROM (
  SELECT addr AS seen_addr, anyLast(host) AS seen_host, anyLast(network) AS seen_network,
    anyLast(device) AS seen_device, min(first_seen) AS seen_first, max(last_seen) AS seen_last
  FROM hosts_seen
  WHERE {HOST.matches("addr", "host", "network")}
  GROUP BY addr
)
ORDER BY seen_first DESC
LIMIT {limit}"""
