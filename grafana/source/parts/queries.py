"""Where panels ask, and queries as their datasources keep them in a dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: Through variables, so that a dashboard also works where the datasources have other uids.
CLICKHOUSE = common.DataSourceRef(type_val="grafana-clickhouse-datasource", uid="${clickhouse}")

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass
class ClickHouseQuery(Dataquery, Builder[Dataquery]):
    """A query as the ClickHouse plugin keeps it in a dashboard."""

    sql: str
    series: bool = False
    ref_id: str = "A"

    def build(self) -> Dataquery:
        """Itself: there is nothing to put together."""
        return self

    def to_json(self) -> dict[str, object]:
        """The plugin's ``CHSqlQuery``; ``format`` is 0 for time series, 1 for tables."""
        return {
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "format": 0 if self.series else 1,
            "pluginVersion": "4.20.0",
            "queryType": "timeseries" if self.series else "table",
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


def promql(
    expression: str, legend: str = "__auto", *, instant: bool = False, ref_id: str = "A"
) -> prometheus.Dataquery:
    """A Prometheus query: a range, or with ``instant`` one table of values now."""
    query = prometheus.Dataquery().expr(expression).ref_id(ref_id).datasource(PROMETHEUS)
    if instant:
        return query.instant().format(PromQueryFormat.TABLE)
    return query.range().legend_format(legend)
