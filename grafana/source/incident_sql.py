"""SQL about one alert: its state, and the evidence that was kept of it."""

from __future__ import annotations

from .flows_sql import variable

#: Label matchers of the alert's key, as PromQL writes them: pairs of name and value.
_KEY = rf"extractAllGroups({variable('key')}, '(\\w+)=\"([^\"]*)\"')"

#: The alerts of the policy and key that fired at some time in the range.
_WHERE = f"""policy = {variable("policy")}
  AND arrayAll(pair -> labels[pair[1]] = pair[2], {_KEY})
  AND starts_at <= $__toTime AND ifNull(ends_at, now()) >= $__fromTime"""


def alerts_query(limit: int = 50) -> str:
    """The alerts that the dashboard is about, latest first."""
    return f"""\
SELECT starts_at AS "Since", ends_at AS "Until",
  dateDiff('second', starts_at, ifNull(ends_at, least(now(), $__toTime))) AS "Duration",
  toString(severity) AS "Severity", toString(alertname) AS "Alert", toString(status) AS "Status",
  annotations['description'] AS "Description", toString(incident) AS "Incident"
FROM alerts FINAL
WHERE {_WHERE}
ORDER BY starts_at DESC, fingerprint
LIMIT {limit}"""


def evidence_query(limit: int = 200) -> str:
    """What was kept of the alerts: the largest contributors before and during each.

    Whoever freezes evidence may know an alert's start a little differently than the history does.
    """
    return f"""\
SELECT began AS "Since", toString(about) AS "By", value AS "Key",
  toFloat64(sumIf(bytes, window = 'before')) AS "Bytes before",
  toFloat64(sumIf(bytes, window = 'during')) AS "Bytes during",
  toFloat64(sumIf(packets, window = 'before')) AS "Packets before",
  toFloat64(sumIf(packets, window = 'during')) AS "Packets during",
  toFloat64(sumIf(flows, window = 'before')) AS "Flows before",
  toFloat64(sumIf(flows, window = 'during')) AS "Flows during"
FROM (
  SELECT starts_at AS began, dimension AS about, window, value, bytes, packets, flows
  FROM incident_evidence FINAL
  WHERE fingerprint IN (SELECT fingerprint FROM alerts FINAL WHERE {_WHERE})
    AND starts_at >= (SELECT min(starts_at) FROM alerts FINAL WHERE {_WHERE}) - 120
    AND starts_at <= $__toTime
)
GROUP BY began, about, value
ORDER BY began DESC, about, "Bytes during" DESC, value
LIMIT {limit}"""
