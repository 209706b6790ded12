"""What Grafana puts into SQL: variables, macros, and questions that they leave open.

How a variable's value gets into a query. Grafana's quoting formats (``sqlstring``,
``singlequote``) leave a backslash alone, which ClickHouse takes as an escape, so ``\\'`` would end
the string. Hence every value is percent-encoded by Grafana (only letters, digits, ``-_.~%``
remain) and decoded by ClickHouse: :func:`variable`. Names of columns are matched by
``COLUMNS('^name$')``, whose argument is a string too, so an identifier is never pasted. Values
picked from a list are compared with constants.
"""

from __future__ import annotations

from exporter.explore.choices import Choice, Dimension, open_dimension, open_measure
from exporter.explore.expressions import TIME, text, url_filter
from exporter.explore.question import Question

#: Ad-hoc filters reach every read of the table, in whichever subquery.
SETTINGS = "SETTINGS $__adHocFilters('flows')"

#: Constant: no ad-hoc filter is set. They are meant for ``flows``, no other table heeds them.
NO_AD_HOC_FILTERS = "toString(getSetting('additional_table_filters')) IN ('', '{}')"


def variable(name: str) -> str:
    """A dashboard variable's value as an SQL string expression, whatever characters it has."""
    return f"decodeURLComponent('${{{name}:percentencode}}')"


def chosen_dimension(name: str, *, optional: bool = False) -> Dimension:
    """The dimension that a dashboard's variable names."""
    return open_dimension(variable(name), f"${{{name}:percentencode}}", optional=optional)


def chosen_measure(name: str = "measure") -> Choice:
    """The measure that a dashboard's variable names."""
    return open_measure(variable(name), f"${{{name}:percentencode}}")


#: A question about the range of the dashboard.
RANGE = Question(start="$__fromTime", end="$__toTime", step="$__interval_s")


def devices_query() -> str:
    """Names of the devices that reported in the range."""
    return f"SELECT DISTINCT toString(device) FROM flows WHERE $__timeFilter({TIME}) ORDER BY 1"


def ad_hoc_values_query() -> str:
    """Values of the column that the plugin puts for ``$__adhoc_column``: recent ones, not all.

    The plugin parses it as PostgreSQL's dialect, so no ``INTERVAL 6 HOUR``.
    """
    recent = f"{TIME} > subtractHours(now(), 6)"
    return f"SELECT DISTINCT $__adhoc_column FROM flow.flows WHERE {recent} LIMIT 1000"


def top_query(
    key: str, second: str = "", *, name: str = "''", where: str = "1", limit: int = 10
) -> str:
    """The largest values of one column, or of two, in the range, whatever the variables say."""
    seconds = "dateDiff('second', $__fromTime, $__toTime)"
    keys = ["key_1", "key_2"] if second else ["key_1"]
    columns = [f"{key} AS key_1"] + ([f"{second} AS key_2"] if second else [])
    shown = [f'{text("key_1")} AS "Key"'] + ([f'{text("key_2")} AS "With"'] if second else [])
    filters = [f"{url_filter(k)} AS filter_{i}" for i, k in enumerate(keys, start=1)]
    as_name = "joinGet('as_names', 'name', toUInt32OrZero(toString(key_1)))"
    key_name = {
        "src_as": as_name,
        "dst_as": as_name,
        "dst_port": "if(key_name != '', key_name,"
        " joinGet('port_names', 'name', toUInt8(6), toUInt16OrZero(toString(key_1))))",
    }.get(key, "key_name")
    return f"""\
SELECT {", ".join(shown)}, {key_name} AS "Name",
  octets * 8 / {seconds} AS "Bits/s", frames / {seconds} AS "Packets/s",
  {", ".join(filters)}
FROM (
  SELECT {", ".join(columns)}, toString(max({name})) AS key_name,
    toFloat64(sum(bytes)) AS octets, toFloat64(sum(packets)) AS frames
  FROM flows
  WHERE $__timeFilter({TIME}) AND {where}
  GROUP BY {", ".join(keys)}
  ORDER BY octets DESC, {", ".join(keys)}
  LIMIT {limit}
)
ORDER BY "Bits/s" DESC, filter_1"""
