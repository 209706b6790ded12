"""SQL about services: a port of a host, who talks to it, and from how many.

All pairs of a host and a port of a day, with the ports of each client among them, are more than can
be counted while somebody waits. So of long ranges only what busy hosts offer is looked at, of drawn
flows where there are too many (:mod:`exporter.explore.drawn`), and sources are counted by host, as
the hourly rollup has them.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.changes import changes_query
from exporter.explore.choices import by, measuring
from exporter.explore.columns import PORT
from exporter.explore.drawn import WEIGHT
from exporter.explore.expressions import TIME, text
from exporter.explore.rollups import is_long
from exporter.explore.series import series_query

from .flows_sql import ESTIMATED, RANGE, chosen_measure, variable

#: So many lines of a graph.
LINES = 12
HERE = replace(
    RANGE,
    address=variable("address"),
    measure=chosen_measure(),
    top=f"'{LINES}'",
    estimated=ESTIMATED,
)

#: Over long ranges so many hosts are looked at.
HOSTS = 500
_LONG = is_long(RANGE)
#: Constant: flows may be too many to look at each.
_MANY = f"({_LONG} AND trim({variable('address')}) = '')"
_HOURS = "time >= toStartOfHour($__fromTime) AND time <= $__toTime"


def _busy(column: str, *ranks: str, where: str = _HOURS) -> str:
    """The hosts that have most by any of ``ranks``."""
    places = ", ".join(
        f"row_number() OVER (ORDER BY sum({by}) DESC, {column}) AS by_{by}" for by in ranks
    )
    held = " OR ".join(f"by_{by} <= {HOSTS}" for by in ranks)
    return f"""\
    SELECT {column} FROM (
      SELECT {column}, {places}
      FROM hosts_1h WHERE {_MANY} AND {where} GROUP BY {column}
    ) WHERE {held}"""


_IS_OFFERED = "(dst_port <= src_port OR dst_service != '')"

_OF_BUSY_HOSTS = f"""\
NOT {_MANY} OR {_IS_OFFERED} AND dst_addr IN (
{_busy("addr", "flows_received", "bytes_received")}
  )"""

#: Hosts without a name are shown by their network, together.
_OF_BUSY_NAMES = f"""\
(NOT {_MANY} OR {_IS_OFFERED} AND (dst_host = '' OR dst_host IN (
{_busy("host", "bytes_received")}
  )))"""

_LISTENERS = replace(HERE, dimension=by("dst_addr"), dimension_2=by("dst_port"))


def ports_query() -> str:
    """The ports that most is sent to in the range."""
    return f"""\
SELECT toString(port) FROM (
  SELECT dst_port AS port, bytes FROM flows
  WHERE NOT ({_LONG}) AND $__timeFilter({TIME})
  UNION ALL
  SELECT {PORT} AS port, bytes FROM flows_1m
  WHERE {_LONG} AND time >= toStartOfMinute($__fromTime) AND time <= $__toTime
)
WHERE port != 0
GROUP BY port
ORDER BY sum(bytes) DESC
LIMIT 12"""


def rises_query(limit: int = 20) -> str:
    """Services by how much they changed: see :func:`exporter.explore.changes.changes_query`."""
    question = replace(_LISTENERS, where=_OF_BUSY_HOSTS)
    return changes_query(question, variable("since"), limit)


def fan_in_query() -> str:
    """``time``, ``series``, ``Value``: different sources of services, over long ranges of hosts."""
    services = replace(_LISTENERS, measure=measuring("unique_src_addr"), only_if=f"NOT {_MANY}")
    bucket = f"greatest(3600, {HERE.step})"
    first = f"toStartOfInterval($__fromTime, INTERVAL {bucket} second)"
    in_range = f"{_MANY} AND time >= {first} AND time < $__toTime"
    return f"""\
SELECT time, series, Value FROM (
  SELECT time, series, Value FROM (
{series_query(services)}
  )
  UNION ALL
  SELECT time, series, Value FROM (
    SELECT told.1 AS time, concat({text("addr")}, if(name = '', '', ' '), name) AS series,
      told.2 AS Value
    FROM (
      SELECT addr, toString(max(host)) AS name,
        groupArray((bucket, toFloat64(finalizeAggregation(sources)))) AS counted
      FROM (
        SELECT addr, toStartOfInterval(time, INTERVAL {bucket} second) AS bucket,
          max(h.host) AS host, uniqCombinedMergeState(12)(unique_src_addr) AS sources
        FROM hosts_1h AS h
        WHERE {in_range} AND addr IN (
{_busy("addr", "flows_received", where=in_range)}
        )
        GROUP BY addr, bucket
      )
      GROUP BY addr
      ORDER BY uniqCombinedMerge(12)(sources) DESC, addr
      LIMIT {LINES}
    )
    ARRAY JOIN counted AS told
    ORDER BY series, time WITH FILL FROM {first} TO $__toTime STEP {bucket}
  )
)
WHERE series != ''
ORDER BY time, series"""


def _edges(limit: int) -> str:
    """The largest pairs of a network and a service of a host, with their bits per second."""
    service = "if(dst_service != '', toString(dst_service), toString(port))"
    host = (
        "multiIf(dst_host != '', toString(dst_host), dst_network != '', toString(dst_network),"
        " 'elsewhere')"
    )
    question = replace(HERE, measure=measuring("bits_per_second"), where=_OF_BUSY_NAMES)
    return f"""\
WITH
{question.constants_list()}
  SELECT if(src_network = '', 'elsewhere', toString(src_network)) AS talks,
    concat({host}, ' ', {service}) AS listens,
    toFloat64(sum(octets)) * 8 / {question.seconds} AS bits
  FROM (
    SELECT src_network, dst_host, dst_network, dst_service,
      if(dst_service = '', dst_port, 0) AS port, sum(bytes * {WEIGHT}) AS octets
    {question.selected_flows()}
    GROUP BY src_network, dst_host, dst_network, dst_service, port
  )
  GROUP BY talks, listens
  ORDER BY bits DESC, talks, listens
  LIMIT {limit}"""


def _stat(bits: str) -> str:
    """Bits per second as text such as ``71.23 Kb/s``: of a number the graph prints each digit."""
    return f"replaceRegexpOne(formatReadableDecimalSize({bits}), 'B$', 'b/s')"


def edges_query(limit: int = 40) -> str:
    """Edges as the node graph takes them, and ``bits``: ``mainstat`` as a number."""
    return f"""\
SELECT concat(talks, ' > ', listens) AS id, concat('from ', talks) AS source, listens AS target,
  {_stat("bits")} AS mainstat, bits
FROM (
{_edges(limit)}
)
ORDER BY bits DESC, id"""


def nodes_query(limit: int = 40) -> str:
    """Nodes as the node graph takes them, and ``bits``: ``mainstat`` as a number."""
    return f"""\
SELECT id, title, {_stat("sum(part)")} AS mainstat, sum(part) AS bits
FROM (
  SELECT end.1 AS id, end.2 AS title, edge.bits AS part
  FROM (
{_edges(limit)}
  ) AS edge
  ARRAY JOIN [(concat('from ', talks), talks), (listens, listens)] AS end
)
GROUP BY id, title
ORDER BY bits DESC, id"""
