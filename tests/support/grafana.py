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
from urllib.parse import parse_qs, quote, urlsplit

Value = str | list[str]

#: The plugin, as datasources name it.
CLICKHOUSE = "grafana-clickhouse-datasource"

#: What parts a filter in a URL has are told apart by, and how a value has them.
_IN_FILTERS = (("|", "__gfp__"), (",", "__gfc__"), ("#", "__gfh__"))

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
    if match["format"] == "raw" and match["name"] == "condition":
        return str(value)  # held against a list by the query itself
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


def opened_values(dashboard: Mapping[str, Any]) -> dict[str, Value]:
    """What the variables hold when the dashboard is opened by its name."""
    values: dict[str, Value] = {}
    for name, variable in variables(dashboard).items():
        if variable["type"] != "adhoc":
            value = variable.get("current", {}).get("value", variable.get("query"))
            values[name] = variable["allValue"] if value == "$__all" else value
    return values


def clickhouse_queries(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """SQL of the panels by "title/refId"."""
    return {
        f"{panel['title']}/{target['refId']}": target["rawSql"]
        for panel in panels(dashboard)
        for target in panel.get("targets", [])
        if target["datasource"]["type"] == CLICKHOUSE
    }


def clickhouse_variables(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """SQL of the variables that fill themselves, by "$name"."""
    return {
        f"${name}": variable["query"]["rawSql"]
        for name, variable in variables(dashboard).items()
        if variable["type"] == "query" and variable["datasource"]["type"] == CLICKHOUSE
    }


def opened(url: str) -> tuple[str, Context]:
    """The dashboard's uid and state that a link opens: absolute range, variables, filters."""
    parts = urlsplit(url)
    found = re.search(r"/d/([\w-]+)$", parts.path)
    if found is None:
        raise ValueError(f"{url}: not a dashboard")
    chosen = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True)
    filters = []
    for condition in chosen.pop("var-filters", []):
        key, operator, value = condition.split("#")[0].split("|")
        value = value.split(",")[0]
        for character, escape in _IN_FILTERS:
            value = value.replace(escape, character)
        filters.append(AdHoc(key, operator, value))
    start, end = (int(chosen.pop(name)[0]) // 1000 for name in ("from", "to"))
    held: dict[str, Value] = {
        name.removeprefix("var-"): values[0] for name, values in chosen.items()
    }
    return found[1], Context(start, end, 60, held, filters)


def _filter(made: AdHoc) -> str:
    value = made.value
    for character, escape in _IN_FILTERS:
        value = value.replace(character, escape)
    return quote(f"{made.key}|{made.operator}|{value}", safe="")


def followed(link: str, context: Context, row: Mapping[str, Any] | None = None) -> str:
    """The URL of a link of a dashboard or of a field, as clicked in this state on this row."""
    span = f"from={context.start * 1000}&to={context.end * 1000}"
    if "${__url_time_range}" not in link:  # a dashboard's link that keeps the time
        link = f"{link}{'&' if '?' in link else '?'}{span}"

    def value(match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if name == "__url_time_range":
            return span
        if name.startswith("__data.fields."):
            assert row is not None
            return quote(str(row[name.removeprefix("__data.fields.")]), safe="-_.~")
        if name == "filters":
            return "&".join(f"var-filters={_filter(made)}" for made in context.filters)
        held = str(context.variables[name])
        if form == "queryparam":
            return f"var-{name}={quote(held, safe='')}"
        return quote(held, safe="-_.~")

    return re.sub(r"\$\{([\w.]+)(?::(\w+))?\}", value, link)


def tables_read(plan: str) -> set[str]:
    """The tables of flows of which ClickHouse's EXPLAIN says that it reads some part."""
    reads = re.findall(
        r"ReadFromMergeTree \(flow\.(flows\w*|\w+_1h)\)(?:\n.*){1,2}?Parts: [1-9]", plan
    )
    return set(reads)
