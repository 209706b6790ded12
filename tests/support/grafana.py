"""What Grafana and its ClickHouse plugin do to a query before a database sees it.

Variables are replaced as Grafana's format registry does, macros as ``pkg/macros`` of the plugin
(4.20) and ``$__adHocFilters`` as its ``adHocFilter.ts``. Only the formats and macros that our
dashboards use are known: anything else is an error, so that a new one is added here knowingly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Value = str | list[str]

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<format>\w+))?\}|\$(?P<bare>[a-zA-Z]\w*)")
_MACRO = re.compile(r"\$__(\w+)(?:\(([^()]*)\))?")


@dataclass(frozen=True)
class AdHoc:
    """One ad-hoc filter."""

    key: str
    operator: str
    value: str


@dataclass(frozen=True)
class Context:
    """The dashboard's state: range in epoch seconds, bucket length, variables, filters."""

    start: int
    end: int
    interval: int = 60
    variables: Mapping[str, Value] = field(default_factory=dict)
    filters: Sequence[AdHoc] = ()


def expand_sql(sql: str, context: Context) -> str:
    """The SQL that reaches ClickHouse."""
    sql = _VARIABLE.sub(lambda match: _replace(match, context), sql)
    return _MACRO.sub(lambda match: _macro(match, context), sql)


def expand_promql(expression: str, context: Context) -> str:
    """The PromQL that reaches Prometheus; multiple values become an alternation."""
    rate_interval = f"{max(context.interval + 15, 60)}s"
    for name, value in (
        ("$__rate_interval", rate_interval),
        ("$__interval", f"{context.interval}s"),
        ("$__range", f"{context.end - context.start}s"),
    ):
        expression = expression.replace(name, value)
    return _VARIABLE.sub(lambda match: _promql_value(match, context), expression)


def _lookup(match: re.Match[str], context: Context) -> Value:
    name = match["name"] or match["bare"]
    if name not in context.variables:
        raise KeyError(f"no variable {name!r}")
    return context.variables[name]


def _replace(match: re.Match[str], context: Context) -> str:
    value = _lookup(match, context)
    if match["format"] != "percentencode":
        raise ValueError(f"{match[0]}: only percentencode is safe inside ClickHouse's strings")
    joined = value if isinstance(value, str) else "{" + ",".join(value) + "}"
    return quote(joined, safe="-_.~")


def _promql_value(match: re.Match[str], context: Context) -> str:
    value = _lookup(match, context)
    if match["format"] == "raw":
        return str(value)
    values = [value] if isinstance(value, str) else value
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}]", r"\\\\\g<0>", text) for text in values]
    if escaped in (["\\\\.\\\\+"], ["\\\\.\\\\*"]):  # the variable's allValue, inserted as it is
        return str(values[0])
    return escaped[0] if len(escaped) == 1 else "(" + "|".join(escaped) + ")"


def _macro(match: re.Match[str], context: Context) -> str:
    name, argument = match[1], match[2]
    if name == "interval_s":
        return str(max(context.interval, 1)) + (f"({argument})" if argument else "")
    if name == "fromTime":
        return f"toDateTime({context.start})"
    if name == "toTime":
        return f"toDateTime({context.end})"
    if name == "timeFilter":
        return (
            f"{argument} >= toDateTime({context.start}) AND {argument} <= toDateTime({context.end})"
        )
    if name == "adHocFilters":
        return _ad_hoc(str(argument).strip("'"), context.filters)
    raise ValueError(f"unknown macro {match[0]}")


def _ad_hoc(table: str, filters: Sequence[AdHoc]) -> str:
    if not filters:
        return "additional_table_filters={}"
    operators = {"=~": "REGEXP", "!~": "NOT REGEXP"}
    conditions = " AND".join(
        f" {f.key} {operators.get(f.operator, f.operator)} \\'{f.value}\\' " for f in filters
    )
    return f"additional_table_filters={{'{table}': '{conditions}'}}"


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but rows, those inside collapsed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def variables(dashboard: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The dashboard's variables by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}
