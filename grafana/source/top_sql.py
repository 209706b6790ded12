"""SQL of what is largest over a range, whatever the variables say.

Whole hours come from the hourly rollups where one has the columns, what is before the first and
after the last of them from the flows. Sums by hour of reception are those of the flows exactly, and
over a day a twentieth of the rows. ``flows_1h`` divides a flow that crosses an end of an hour:
a few seconds' traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.explore.columns import EXPRESSIONS, PORT
from exporter.explore.expressions import TIME, text, url_filter

#: Only conversations of so many sources with so many destinations are looked at: no other one can
#: carry more than the last of these sources sends, or the last of these destinations receives.
SOURCES = 10
DESTINATIONS = 1000


@dataclass(frozen=True)
class _Hourly:
    """A rollup and what of it stands for the columns of flows."""

    table: str
    columns: dict[str, str]
    where: str = "1"


def _hosts(way: str) -> dict[str, str]:
    return {"bytes": f"bytes_{way}", "packets": f"packets_{way}"}


#: By the columns of the key.
_HOURLY = {
    ("src_addr",): _Hourly(
        "hosts_1h", {"src_addr": "addr", "src_host": "host", **_hosts("sent")}, "flows_sent > 0"
    ),
    ("dst_addr",): _Hourly(
        "hosts_1h",
        {"dst_addr": "addr", "dst_host": "host", **_hosts("received")},
        "flows_received > 0",
    ),
    ("src_as",): _Hourly("networks_1h", {}),
    ("dst_as",): _Hourly("networks_1h", {}),
    ("device", "in_if"): _Hourly("flows_1h", {}),
    (PORT,): _Hourly("flows_1h", {}),
}

# The rollups' hours are of UTC, whatever the server's zone.
_HOURS = """\
  toStartOfHour(toDateTime($__fromTime + 3599, 'UTC')) AS first_hour,
  greatest(first_hour, toStartOfHour(toDateTime($__toTime, 'UTC'))) AS past_hour"""


def top_query(
    key: str, second: str = "", *, name: str = "''", where: str = "1", limit: int = 10
) -> str:
    """The largest values of one column, or of two, in the range.

    Of pairs of addresses only those of the largest sources and destinations are looked at: all
    pairs of a day are more than fit into memory.
    """
    seconds = "dateDiff('second', $__fromTime, $__toTime)"
    keys = ["key_1", "key_2"] if second else ["key_1"]
    shown = [f'{text("key_1")} AS "Key"'] + ([f'{text("key_2")} AS "With"'] if second else [])
    filters = [f"{url_filter(k)} AS filter_{i}" for i, k in enumerate(keys, start=1)]
    as_name = "joinGet('as_names', 'name', toUInt32OrZero(toString(key_1)))"
    key_name = {
        "src_as": as_name,
        "dst_as": as_name,
        PORT: "if(key_name != '', key_name,"
        " joinGet('port_names', 'name', toUInt8(6), toUInt16OrZero(toString(key_1))))",
    }.get(key, "key_name")
    if (key, second) == ("src_addr", "dst_addr"):
        only = where
        for end, most in ((key, SOURCES), (second, DESTINATIONS)):
            largest = _largest((end,), "''", only, most)
            where += f" AND {end} IN (SELECT key_1 FROM (\n{largest}\n))"
    return f"""\
WITH
{_HOURS}
SELECT {", ".join(shown)}, {key_name} AS "Name",
  octets * 8 / {seconds} AS "Bits/s", frames / {seconds} AS "Packets/s",
  {", ".join(filters)}
FROM (
{_largest((key, second) if second else (key,), name, where, limit)}
)
ORDER BY "Bits/s" DESC, filter_1"""


def _largest(columns: tuple[str, ...], name: str, where: str, limit: int) -> str:
    keys = [f"key_{number}" for number in range(1, len(columns) + 1)]
    return f"""\
  SELECT {", ".join(keys)}, toString(max(name)) AS key_name,
    toFloat64(sum(bytes)) AS octets, toFloat64(sum(packets)) AS frames
  FROM (
{_rows(columns, name, where)}
  )
  GROUP BY {", ".join(keys)}
  ORDER BY octets DESC, {", ".join(keys)}
  LIMIT {limit}"""


def _rows(columns: tuple[str, ...], name: str, where: str) -> str:
    """The range's rows with ``key_1`` and so on, ``name``, ``bytes`` and ``packets``."""

    def read(table: str, named: dict[str, str], condition: str) -> str:
        selected = [f"{named.get(c, c)} AS key_{i}" for i, c in enumerate(columns, start=1)]
        selected.append(f"{named.get(name, name)} AS name")
        selected += [
            f"toUInt64({named.get(sum_, sum_)}) AS {sum_}" for sum_ in ("bytes", "packets")
        ]
        return f"    SELECT {', '.join(selected)}\n    FROM {table}\n    WHERE {condition}"

    in_range = f"$__timeFilter({TIME}) AND {where}"
    hourly = _HOURLY.get(columns)
    if hourly is None:
        return read("flows", EXPRESSIONS, in_range)
    edges = read(
        "flows", EXPRESSIONS, f"{in_range} AND ({TIME} < first_hour OR {TIME} >= past_hour)"
    )
    hours = f"time >= first_hour AND time < past_hour AND {hourly.where} AND {where}"
    return f"{read(hourly.table, hourly.columns, hours)}\n    UNION ALL\n{edges}"
