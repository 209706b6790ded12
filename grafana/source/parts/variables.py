"""Variables: choices, boxes, and those that fill themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from exporter.explore.columns import MEASURES
from exporter.explore.drawn import ALL_FLOWS, ENOUGH
from exporter.explore.rollups import ROLLUP_SECONDS

from .queries import CLICKHOUSE, PROMETHEUS


def datasource_variable(name: str, label: str, kind: str, shown: str, uid: str) -> Any:
    """Which datasource of a kind is asked; out of sight."""
    return (
        builders.DatasourceVariable(name)
        .label(label)
        .type(kind)
        .hide(dashboard.VariableHide.HIDE_VARIABLE)
        .current(dashboard.VariableOption(selected=True, text=shown, value=uid))
    )


def custom(
    name: str, label: str, description: str, options: Sequence[tuple[str, str]], current: str
) -> builders.CustomVariable:
    """A choice among (text, value) pairs and nothing else."""
    text_of = {value: text for text, value in options}
    return (
        builders.CustomVariable(name)
        .label(label)
        .description(description)
        .values(", ".join(f"{text} : {value}" for text, value in options))
        .allow_custom_value(False)
        .current(dashboard.VariableOption(selected=True, text=text_of[current], value=current))
    )


def text_box(name: str, label: str, description: str, default: str = "") -> Any:
    """A box for free text."""
    return (
        builders.TextBoxVariable(name)
        .label(label)
        .description(description)
        .default_value(default)
        .current(dashboard.VariableOption(selected=True, text=default, value=default))
    )


def measure_choice() -> builders.CustomVariable:
    """What a dashboard shows of the flows: ``measure``."""
    return custom(
        "measure",
        "Measure",
        "What is summed or counted. Small packets in large numbers show in Packets/s only.",
        [(m.label, m.name) for m in MEASURES],
        MEASURES[0].name,
    )


def address_box(name: str = "address", label: str = "Host, address or prefix") -> Any:
    """A box for an address, a prefix or a name, looked for as source and as destination."""
    return text_box(
        name,
        label,
        "Source or destination: an IPv4 or IPv6 address, a prefix such as 10.0.0.0/8, the name"
        " of a host or of a network. Empty: everything.",
    )


def matcher_box(name: str = "key") -> Any:
    """A box for the label matchers of one key of a policy."""
    return text_box(
        name,
        "Key",
        'Labels of the policy\'s key as PromQL matches them, such as dst_addr="10.0.0.1". Empty:'
        " the largest keys.",
    )


def policy_variable() -> builders.QueryVariable:
    """One policy of those that the collectors evaluate."""
    query = "label_values(flow_policy_info, policy)"
    return (
        builders.QueryVariable("policy")
        .label("Policy")
        .description("Which policy.")
        .datasource(PROMETHEUS)
        .query({"refId": "policy", "qryType": 5, "query": query})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .current(dashboard.VariableOption(selected=True, text="", value=""))
    )


def policy_text(name: str, label: str, description: str, series: str) -> builders.QueryVariable:
    """What a label, called as the variable, of a policy's ``series`` says; empty without one."""
    query = f"label_values({series}, {name})"
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"refId": name, "qryType": 5, "query": query})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .current(dashboard.VariableOption(selected=True, text="", value=""))
    )


#: What panels say whose values may be estimates.
ESTIMATES = (
    f" Over {ROLLUP_SECONDS // 3600} hours and more, where no rollup answers and"
    f" {ENOUGH:,} drawn flows match, rates are estimates from flows drawn by size unless Precision"
    " is Exact: usually within 6 % (flows/s 10 %) for a key with a hundredth of the traffic, more"
    " off in one bucket of many. Different values are counted of all flows."
)


def precision() -> builders.CustomVariable:
    """Whether estimates are welcome: ``precision``."""
    return custom(
        "precision",
        "Precision",
        "Auto: over very many flows estimates from drawn ones, in seconds. Exact: all flows are"
        " summed, whatever it takes.",
        [("Auto", "auto"), ("Exact", "exact")],
        "auto",
    )


def looked_at(sql: str) -> builders.QueryVariable:
    """Which flows the panels look at: what ``sql`` answers for the range and all else chosen."""
    return (
        builders.QueryVariable("looked_at")
        .label("Looks at")
        .description(
            "Of very many flows over a long range some are drawn, large ones more likely, and stand"
            " for all: values are estimates. Precision Exact looks at all of them, as is done where"
            " few flows match. No flows before: what was earlier is gone, and only rollups"
            " tell of it."
        )
        .datasource(CLICKHOUSE)
        .query({"refId": "looked_at", "queryType": "sql", "rawSql": sql})
        .definition(sql)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .current(dashboard.VariableOption(selected=True, text=ALL_FLOWS, value=ALL_FLOWS))
    )


def query_variable(
    name: str, label: str, description: str, sql: str, *, multi: bool = True
) -> builders.QueryVariable:
    """A choice that fills itself from ClickHouse for the range; ``All`` reads ``*``."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(CLICKHOUSE)
        .query({"refId": name, "queryType": "sql", "rawSql": sql})
        .definition(sql)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(multi)
        .include_all(True)
        .all_value("*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
