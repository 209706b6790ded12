"""Tables of the reference pages, made from the code that they describe.

``python -m tests.support.reference`` writes them between the marks in ``docs/reference``; tests
fail when a page says something else.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reference"
_MARKED = re.compile(r"(<!-- made: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SUFFIXES = {"counter": "_total", "info": "_info"}


def filled(page: str, tables: dict[str, str]) -> str:
    """A page with its marked tables as they should be."""
    return _MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", page)


def marks(page: str) -> set[str]:
    """Names of the tables that a page has a place for."""
    return {found[2] for found in _MARKED.finditer(page)}


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(c.replace("|", r"\|") for c in row) + " |\n" for row in lines)


# Metrics


def metric_tables(metrics: Iterable[Metric]) -> dict[str, str]:
    """One table per group of metrics; a metric belongs to the group of its longest prefix."""
    groups: dict[str, list[tuple[str, ...]]] = {name: [] for name in METRIC_GROUPS}
    for metric in sorted(metrics, key=lambda m: m.name):
        prefix = max(
            (prefix for prefixes in METRIC_GROUPS.values() for prefix in prefixes
             if metric.name.startswith(prefix)),
            key=len,
        )  # fmt: skip
        group = next(name for name, prefixes in METRIC_GROUPS.items() if prefix in prefixes)
        labels = ", ".join(f"`{label}`" for label in getattr(metric, "_labelnames", ()))
        groups[group].append(
            (
                f"`{metric.name}{_SUFFIXES.get(metric.type, '')}`",
                metric.type,
                labels,
                metric.documentation,
            )
        )
    header = ("metric", "type", "labels", "meaning")
    return {f"metrics-{name}": _table(header, rows) for name, rows in groups.items()}


#: Prefixes of metric names by the section of the page that has them.
METRIC_GROUPS = {
    "process": ("flow_exporter_build", "flow_exporter_config", "flow_exporter_ready"),
    "receive": ("flow_exporter_receive_",),
    "grpc": ("flow_exporter_grpc_",),
    "dns": ("flow_exporter_dnstap_", "flow_exporter_dns_", "flow_exporter_reverse_dns_"),
    "names": (
        "flow_exporter_names_",
        "flow_exporter_host_names",
        "flow_exporter_enrich_",
        "flow_exporter_snmp_",
        "flow_exporter_unknown_device",
    ),
    "docker": ("flow_exporter_docker_",),
    "geo": ("flow_exporter_geo_", "flow_exporter_as_name"),
    "decode": ("flow_exporter_",),
    "sflow": ("flow_exporter_sflow_",),
    "sflow-interfaces": ("flow_sflow_interface_",),
    "pipeline": ("flow_exporter_pipeline_", "flow_exporter_counter_"),
    "retention": ("flow_exporter_retention_",),
    "insert": ("flow_exporter_insert_", "flow_exporter_spool_", "flow_exporter_quarantin"),
    "policies": ("flow_policy", "flow_exporter_policy_"),
    "alerts": ("flow_exporter_alert_", "flow_exporter_webhook_"),
    "python": ("process_", "python_"),
}


# Configuration


def setting_tables(config: type[BaseModel], name: str) -> dict[str, str]:
    """A table for the settings of each section, ``<name>-<path of the section>``."""
    tables: dict[str, str] = {}

    def add(model: type[BaseModel], path: str) -> None:
        rows = []
        for key, field in model.model_fields.items():
            nested = _section(field.annotation)
            many = {list: "[]", dict: ".*"}.get(typing.get_origin(field.annotation), "")
            if nested is not None:
                add(nested, f"{path}{key}{many}.")
            rows.append((f"`{path}{key}`", _kind(field), _default(field), field.description or ""))
        title = path.rstrip(".") or "all"
        tables[f"{name}-{title}"] = _table(("setting", "type", "default", "meaning"), rows)

    add(config, "")
    return tables


def _section(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *typing.get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _kind(field: FieldInfo) -> str:
    text = _type_name(field.annotation)
    # Bounds that stand in an annotation come without names of their own.
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(rule, name, None) is not None
    ]
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _type_name(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is list:
        return f"list of {_type_name(parts[0])}"
    if origin is dict:
        return f"{_type_name(parts[1])} by {_type_name(parts[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in parts if part is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if _section(field.annotation) and not isinstance(value, list) else _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "see below" if value else "`[]`"
    if value is None or value in ("", {}):
        return "none" if value is None else ("empty" if value == "" else "`{}`")
    return f"`{value}`"


# Commands


def command_tables(app: typer.Typer) -> dict[str, str]:
    """A section per command: usage, help and options."""
    group: Any = typer.main.get_command(app)
    sections = [_command(path, command) for path, command in _commands(group, "flow-exporter")]
    return {"commands": "\n".join(sections)}


def _command(path: str, command: Any) -> str:
    text = re.sub(r"\s*\n\s*\n\s*", "\n\n", (command.help or "").strip())
    text = re.sub(r"(?<!\n)\n(?!\n)\s*", " ", text)
    arguments = [
        p.name.upper() if p.required else f"[{p.name.upper()}]"
        for p in command.params
        if p.param_type_name == "argument"
    ]
    usage = " ".join([path, "[OPTIONS]", *arguments])
    rows = [row for param in command.params if (row := _option(param))]
    title = path.removeprefix("flow-exporter ")
    options = _table(("option or argument", "default", "meaning"), rows) if rows else ""
    return f"## {title}\n\n```\n{usage}\n```\n\n{text}\n\n{options}"


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _option(param: Any) -> tuple[str, str, str] | None:
    if param.name == "help":
        return None
    if param.param_type_name == "argument":
        names = f"`{param.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    value = param.default() if callable(param.default) else param.default
    if isinstance(value, Enum):
        value = value.value
    default = "required" if param.required else _value(value)
    return names, default, getattr(param, "help", None) or ""


# Elements


def element_table() -> str:
    """The elements that fill columns, by column and in the order in which they do."""
    from exporter.decode.elements import ELEMENTS, V9, WORKING, Fill
    from exporter.schema import COLUMNS

    order = {name: n for n, name in enumerate([*(c.name for c in COLUMNS), *WORKING])}
    rows = []
    for element in sorted(ELEMENTS, key=lambda e: order[e.column]):
        place = WORKING.get(element.column)
        rows.append(
            (
                f"`{element.column}`" if place is None else place,
                {0: "", V9: "NetFlow v9"}.get(element.enterprise, str(element.enterprise)),
                str(element.id),
                element.name,
                element.reading.name.lower().replace("_", " "),
                {Fill.ABSENT: "no other", Fill.BITS: "always"}.get(element.fill, ""),
                element.source,
            )
        )
    header = ("fills", "enterprise", "element", "name", "read as", "only if", "source")
    return _table(header, rows)


def tables() -> dict[str, str]:
    """All tables, of the program as it is."""
    from exporter.cli.app import app
    from exporter.collector import CollectorProcess
    from exporter.config import Config
    from exporter.web_config import WebConfig

    config = Config.model_validate(
        {
            "receive": {
                "udp": [{"port": 0}],
                "socket_buffer_bytes": 65536,
                "grpc": {"port": 0},
                "dnstap": [{"port": 0}],
            },
            "dns": {"reverse": {"enabled": True, "servers": ["127.0.0.1"]}},
            "docker": {"url": "unix:///nowhere"},
            "http": {"port": 0},
            "counters": [],
            "clickhouse": {"url": "http://127.0.0.1:9"},
        }
    )
    with CollectorProcess(config, None) as collector:
        metrics = list(collector.registry.collect())
    return (
        metric_tables(metrics)
        | setting_tables(Config, "settings")
        | setting_tables(WebConfig, "web")
        | command_tables(app)
        | {"elements": element_table()}
    )


def pages() -> list[Path]:
    """Pages with tables."""
    return [page for page in sorted(DOCS.glob("*.md")) if marks(page.read_text())]


if __name__ == "__main__":
    made = tables()
    for file in pages():
        file.write_text(filled(file.read_text(), made))
