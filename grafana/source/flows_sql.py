"""What Grafana puts into SQL: variables, macros, and questions that they leave open.

How a variable's value gets into a query. Grafana's quoting formats (``sqlstring``,
``singlequote``) leave a backslash alone, which ClickHouse takes as an escape, so ``\\'`` would end
the string. Hence every value is percent-encoded by Grafana (only letters, digits, ``-_.~%``
remain) and decoded by ClickHouse: :func:`variable`. Names of columns are matched by
``COLUMNS('^name$')``, whose argument is a string too, so an identifier is never pasted. Values
picked from a list are compared with constants.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote as percent_encoded

from exporter.explore.choices import Choice, Dimension, open_dimension, open_measure
from exporter.explore.drawn import DRAWN_FLOWS, ENOUGH, FEW_FLOWS, HOURLY_ROLLUPS, ROLLUPS
from exporter.explore.expressions import TIME
from exporter.explore.question import Question
from exporter.explore.rollups import is_long

#: Ad-hoc filters reach every read of the table, in whichever subquery.
SETTINGS = "SETTINGS $__adHocFilters('flows')"

#: Constant: no ad-hoc filter is set. They are meant for ``flows``, no other table heeds them.
NO_AD_HOC_FILTERS = "toString(getSetting('additional_table_filters')) IN ('', '{}')"


def variable(name: str) -> str:
    """A dashboard variable's value as an SQL string expression, whatever characters it has."""
    return f"decodeURLComponent('${{{name}:percentencode}}')"


#: A question about the range of the dashboard.
RANGE = Question(start="$__fromTime", end="$__toTime", step="$__interval_s")

#: Constants: drawn flows stand for all, few match, as variable ``looked_at`` found; they may.
#: Flows of the range are gone and rollups answer; those by hour. All this is compared as it comes,
#: percent-encoded, since it stands in many places.
ESTIMATED, FEW, BEYOND, HOURLY = (
    f"startsWith('${{looked_at:percentencode}}', '{percent_encoded(said)}')"
    for said in (DRAWN_FLOWS, FEW_FLOWS, ROLLUPS, HOURLY_ROLLUPS)
)
AUTO = f"{variable('precision')} != 'exact'"


def within_filters(question: Question, alone: str) -> Question:
    """The question, of drawn flows or of few ones, where there may be ad-hoc filters.

    Variables' queries do not know these, so each query counts what they leave; drawn flows stand
    for all only where they are ``alone``, a constant, and nothing else filters.
    """
    enough = f"""(
    SELECT count() = {ENOUGH} FROM (
      SELECT 1 FROM flows
      WHERE NOT ({NO_AD_HOC_FILTERS}) AND {is_long(RANGE)} AND drawn AND {RANGE.in_range()}
      LIMIT {ENOUGH}
    )
  )"""
    return replace(
        question,
        estimated=f"({ESTIMATED} AND ({NO_AD_HOC_FILTERS} OR {alone} AND {enough}))",
        few=f"({FEW} OR NOT ({NO_AD_HOC_FILTERS}) AND {is_long(RANGE)} AND {enough} = 0)",
    )


def chosen_dimension(name: str, *, optional: bool = False) -> Dimension:
    """The dimension that a dashboard's variable names."""
    return open_dimension(variable(name), f"${{{name}:percentencode}}", optional=optional)


def chosen_measure(name: str = "measure") -> Choice:
    """The measure that a dashboard's variable names."""
    return open_measure(variable(name), f"${{{name}:percentencode}}")


def devices_query() -> str:
    """Names of the devices that reported in the range."""
    return (
        "SELECT DISTINCT toString(device) FROM flows_1h"
        " WHERE time >= toStartOfHour($__fromTime) AND time <= $__toTime ORDER BY 1"
    )


def ad_hoc_values_query(table: str = "flows") -> str:
    """Values of the column that the plugin puts for ``$__adhoc_column``: recent ones, not all.

    The plugin parses it as PostgreSQL's dialect, so no ``INTERVAL 6 HOUR``. Without a database it
    is the datasource's own; the plugin then lists columns of each such table that its user may see.
    """
    recent = f"{TIME} > subtractHours(now(), 6)"
    return f"SELECT DISTINCT $__adhoc_column FROM {table} WHERE {recent} LIMIT 1000"
