"""SQL about alerts that are stored."""

from __future__ import annotations

from .flows_sql import RANGE

#: The alert's link around the time at which it began: three hours before it to one after it, as
#: in notifications. The annotation is as new as the last evaluation.
_AT_START = """replaceRegexpOne(replaceRegexpOne(annotations['dashboard_url'],
    'from=[0-9]+&to=[0-9]+', format('from={}&to={}',
      toString(toUnixTimestamp64Milli(starts_at) - 10800000),
      toString(toUnixTimestamp64Milli(starts_at) + 3600000))),
    'var-since=[0-9]+', concat('var-since=', toString(toUnixTimestamp64Milli(starts_at))))"""

#: The alert's labels as Alertmanager's page for a new silence takes them.
_MATCHERS = r"""concat('{', arrayStringConcat(arrayMap(pair -> concat(pair.1, '="',
    replaceRegexpAll(pair.2, '(["\\\\])', '\\\\\\1'), '"'),
    arraySort(arrayZip(mapKeys(labels), mapValues(labels)))), ', '), '}')"""


def history_query(limit: int = 500) -> str:
    """Alerts that fired within the range, those that fire first, then the latest; a row a start."""
    return f"""\
SELECT starts_at AS "Since", ends_at AS "Until",
  dateDiff('second', starts_at, ifNull(ends_at, least(now(), $__toTime))) AS "Duration",
  toString(severity) AS "Severity",
  if(match(annotations['dashboard_url'], '^(https?:/)?/'), {_AT_START}, '') AS "Dashboard",
  if(isNull(ends_at), {_MATCHERS}, '') AS "Silence",
  toString(alertname) AS "Alert", toString(policy) AS "Policy",
  toString(incident) AS "Incident", annotations['summary'] AS "Summary",
  annotations['description'] AS "Description", value AS "Last value", toString(status) AS "Status"
FROM alerts FINAL
WHERE starts_at <= $__toTime AND ifNull(ends_at, now()) >= $__fromTime
ORDER BY isNull(ends_at) DESC, starts_at DESC, fingerprint
LIMIT {limit}"""


def count_query() -> str:
    """``time``, ``series`` (severity), ``Value``: alerts that began, per bucket."""
    bucket = "toStartOfInterval(toDateTime(starts_at), INTERVAL $__interval_s second)"
    return f"""\
SELECT time, series, Value FROM (
  SELECT {bucket} AS time, CAST(severity, 'String') AS series, toFloat64(count()) AS Value
  FROM alerts FINAL
  WHERE starts_at >= {RANGE.first} AND starts_at < {RANGE.past}
  GROUP BY series, time
  ORDER BY series, time
    WITH FILL FROM {RANGE.first}
      TO {RANGE.past} STEP $__interval_s
)
ORDER BY time, series"""
