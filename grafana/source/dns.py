"""DNS: which names are asked for, by whom, and how they are answered."""

from __future__ import annotations

from dataclasses import replace

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.expressions import TIME, text

from .flows_sql import RANGE, ad_hoc_values_query, variable
from .parts import (
    CLICKHOUSE,
    WIDTH,
    ClickHouseQuery,
    address_box,
    finish,
    link,
    links_property,
    prop,
    start,
    table_panel,
    time_series,
)

UID = "flow-dns"

#: How far back a name must be unknown to be new.
NEW_DAYS = 7

_SETTINGS = "SETTINGS $__adHocFilters('dns_queries')"

_HERE = replace(RANGE, address=variable("address"))
_ASKS = _HERE.matches("src_addr", "src_host", "src_network")
_WHERE = f"{_HERE.in_range()} AND {_ASKS}"
_FILL = f"WITH FILL FROM {_HERE.first} TO {_HERE.past} STEP {_HERE.step}"


def rate_query() -> str:
    """``time``, ``series`` (response code), ``Value``: questions per second."""
    return f"""\
WITH
{_HERE.address_constants()}
SELECT time, series, Value FROM (
  SELECT {_HERE.bucket} AS time, if(dns_rcode = '', '(none)', toString(dns_rcode)) AS series,
    toFloat64(count()) / {_HERE.step} AS Value
  FROM dns_queries
  WHERE {_WHERE}
  GROUP BY series, time
  ORDER BY series, time {_FILL}
)
ORDER BY time, series
{_SETTINGS}"""


def latency_query() -> str:
    """``time``, ``series`` (Median, 95th percentile), ``Value`` in seconds."""
    return f"""\
WITH
{_HERE.address_constants()}
SELECT time, pair.1 AS series, pair.2 AS Value FROM (
  SELECT {_HERE.bucket} AS time,
    quantiles(0.5, 0.95)(toFloat64(dns_latency)) AS seconds
  FROM dns_queries
  WHERE dns_latency > 0 AND {_WHERE}
  GROUP BY time
)
ARRAY JOIN [('Median', seconds[1]), ('95th percentile', seconds[2])] AS pair
ORDER BY time, series
{_SETTINGS}"""


def names_query(*, new: bool, limit: int = 100) -> str:
    """Names, most frequent first; or those unknown in the days before, rarest clients first."""
    known = f"""\
  AND dns_name NOT IN (
    SELECT dns_name FROM dns_queries
    WHERE {TIME} >= {_HERE.first} - INTERVAL {NEW_DAYS} DAY AND {TIME} < {_HERE.first}
  )
"""
    order = '"First asked" DESC' if new else '"Questions" DESC'
    return f"""\
WITH
{_HERE.address_constants()}
SELECT dns_name AS "Name", toFloat64(count()) AS "Questions",
  toFloat64(uniq(src_addr)) AS "Clients", countIf(dns_rcode = 'NXDOMAIN') / count() AS "NXDOMAIN",
  min({TIME}) AS "First asked", {text("argMin(src_addr, time_received)")} AS "First by"
FROM dns_queries
WHERE {_WHERE}
{known if new else ""}GROUP BY dns_name
ORDER BY {order}, dns_name
LIMIT {limit}
{_SETTINGS}"""


def pairs_query(*, rare: bool, limit: int = 100) -> str:
    """Which client asked for which name, most frequent first; or names of one client only."""
    only = f"""\
  AND dns_name IN (
    SELECT dns_name FROM dns_queries WHERE {_HERE.in_range()}
    GROUP BY dns_name HAVING min(src_addr) = max(src_addr)
  )
"""
    # What else is told of a pair is costly, for millions of them: first which ones are shown.
    largest = f"""\
  AND (src_addr, dns_name) IN (
    SELECT src_addr, dns_name FROM dns_queries WHERE {_WHERE}
    GROUP BY src_addr, dns_name ORDER BY count() DESC, dns_name, src_addr LIMIT {limit}
  )
"""
    order = '"Questions", dns_name' if rare else '"Questions" DESC, dns_name'
    return f"""\
WITH
{_HERE.address_constants()}
SELECT {text("client")} AS "Client", dns_name AS "Name", client_host AS "Host",
  "Questions", "Answer", "First asked", "Last asked"
FROM (
  SELECT src_addr AS client, dns_name, toString(max(src_host)) AS client_host,
    toFloat64(count()) AS "Questions", toString(topK(1)(dns_rcode)[1]) AS "Answer",
    min({TIME}) AS "First asked", max({TIME}) AS "Last asked"
  FROM dns_queries
  WHERE {_WHERE}
{only if rare else largest}  GROUP BY client, dns_name
)
ORDER BY {order}, client
LIMIT {limit}
{_SETTINGS}"""


def clients_query(limit: int = 100) -> str:
    """Who asks: questions, different names, share that do not exist."""
    return f"""\
WITH
{_HERE.address_constants()}
SELECT {text("client")} AS "Client", client_host AS "Name", "Questions", "Names", "NXDOMAIN"
FROM (
  SELECT src_addr AS client, toString(max(src_host)) AS client_host,
    toFloat64(count()) AS "Questions", toFloat64(uniq(dns_name)) AS "Names",
    countIf(dns_rcode = 'NXDOMAIN') / count() AS "NXDOMAIN"
  FROM dns_queries
  WHERE {_WHERE}
  GROUP BY client
)
ORDER BY "Questions" DESC, "Client"
LIMIT {limit}
{_SETTINGS}"""


def dashboard() -> Dashboard:
    """``flow-dns``."""
    target = "/d/flow-host?${__url_time_range}&var-address=${__value.raw:percentencode}"
    profile = links_property(link("Host profile", target))
    share = prop("unit", "percentunit")
    made = (
        start(
            UID,
            "Flow DNS",
            "Which names are asked for, by whom, and how they are answered.",
            "now-3h",
            refresh="",
        )
        .with_variable(address_box())
        .with_variable(
            builders.AdHocVariable("filters")
            .label("Filters")
            .description("Conditions on any column of DNS questions; all of them hold.")
            .datasource(CLICKHOUSE)
        )
        .with_variable(
            builders.ConstantVariable("clickhouse_adhoc_query").value(
                ad_hoc_values_query("dns_queries")
            )
        )
        .with_panel(
            time_series(
                "Questions by answer",
                "DNS questions per second by response code. A rise of NXDOMAIN is a host that"
                " guesses names.",
                "cps",
                [ClickHouseQuery(rate_query(), series=True)],
                source=CLICKHOUSE,
                stacked=True,
            ).display_name("${__field.labels.series}")
        )
        .with_panel(
            time_series(
                "Time to answer",
                "Median and 95th percentile of the time from question to answer, where it is"
                " known.",
                "s",
                [ClickHouseQuery(latency_query(), series=True)],
                source=CLICKHOUSE,
            ).display_name("${__field.labels.series}")
        )
        .with_panel(
            table_panel(
                "New names",
                f"Names that nobody asked for in the {NEW_DAYS} days before the range, the latest"
                " first, with who was the first to ask.",
                "short",
                [ClickHouseQuery(names_query(new=True))],
                size=(12, 10),
            )
            .override_by_name("NXDOMAIN", [share])
            .override_by_name("First by", [profile])
        )
        .with_panel(
            table_panel(
                "Names",
                "Names by number of questions, with how many hosts asked and the share that does"
                " not exist.",
                "short",
                [ClickHouseQuery(names_query(new=False))],
                size=(12, 10),
            )
            .override_by_name("NXDOMAIN", [share])
            .override_by_name("First by", [profile])
        )
        .with_panel(
            table_panel(
                "Names by client",
                "Which client asked for which name, most frequent first, with the usual answer.",
                "short",
                [ClickHouseQuery(pairs_query(rare=False))],
                size=(12, 10),
            ).override_by_name("Client", [profile])
        )
        .with_panel(
            table_panel(
                "Rare names",
                "Names that one client alone asked for in the range, the least often first.",
                "short",
                [ClickHouseQuery(pairs_query(rare=True))],
                size=(12, 10),
            ).override_by_name("Client", [profile])
        )
        .with_panel(
            table_panel(
                "Clients",
                "Who asks, with the number of different names and the share that does not exist.",
                "short",
                [ClickHouseQuery(clients_query())],
                size=(WIDTH, 9),
            )
            .override_by_name("NXDOMAIN", [share])
            .override_by_name("Client", [profile])
        )
    )
    return finish(made)
