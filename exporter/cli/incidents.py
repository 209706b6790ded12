"""``flow-exporter incidents``: the history of alerts in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.connection import connected
from exporter.cli.output import JsonOption, fail, show_json, show_line, show_table

if TYPE_CHECKING:
    from rich.table import Table

    from exporter.config import Config

incidents_app = typer.Typer(help="List and show alerts, present and past.", no_args_is_help=True)
app.add_typer(incidents_app, name="incidents")

_LIST = """SELECT
    fingerprint, status, starts_at,
    if(status = 'firing', '', formatReadableTimeDelta(dateDiff('second', starts_at, ends_at)))
        AS lasted,
    severity, alertname, policy, team, incident, labels
FROM alerts FINAL
WHERE (status = 'firing' OR ends_at >= now() - toIntervalHour({hours:UInt32}))
  AND ({firing:UInt8} = 0 OR status = 'firing')
ORDER BY starts_at DESC, fingerprint
LIMIT {limit:UInt32}"""

_SHOW = """SELECT *
FROM alerts FINAL
WHERE startsWith(fingerprint, {fingerprint:String})
ORDER BY starts_at DESC
LIMIT 20"""

# Taken once per alert; should two collectors have done so at once, either will do.
_EVIDENCE = """SELECT
    dimension, value,
    maxIf(e.bytes, window = 'during') AS bytes, maxIf(e.bytes, window = 'before') AS bytes_before,
    maxIf(e.packets, window = 'during') AS packets,
    maxIf(e.packets, window = 'before') AS packets_before,
    maxIf(e.flows, window = 'during') AS flows, maxIf(e.flows, window = 'before') AS flows_before,
    minIf(e.rank, window = 'during') AS rank, max(e.captured_at) AS captured_at
FROM incident_evidence AS e FINAL
WHERE fingerprint = {fingerprint:String}
  AND abs(toUnixTimestamp64Milli(starts_at) - {starts_ms:Int64}) <= 120000
GROUP BY dimension, value
ORDER BY dimension != 'total', dimension, rank = 0, rank, bytes_before DESC, value
LIMIT 1000"""

#: Characters of a fingerprint that tell alerts apart well enough to be typed.
_SHORT = 8

#: Labels that have a column of their own in the list.
_SHOWN = frozenset(
    {"alertname", "severity", "policy", "team", "incident", "dashboard", "measure", "bound"}
)


@incidents_app.command("list")
def list_incidents(
    config: ConfigOption = None,
    firing: Annotated[bool, typer.Option("--firing", help="Only what has not ended.")] = False,
    hours: Annotated[int, typer.Option(min=1, help="How far to look back.")] = 24,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show alerts by incident, the latest first; times are UTC.

    Try it:

    flow-exporter incidents list --firing --config flow-exporter.yaml

    flow-exporter incidents list --hours 168 --json --config flow-exporter.yaml
    """
    parameters = {"hours": hours, "firing": int(firing), "limit": limit}
    rows = _ask(read_config(config), _LIST, parameters)
    if as_json:
        show_json(rows)
        return
    incidents: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        incidents.setdefault((row["team"], row["incident"]), []).append(row)
    for (team, incident), alerts in incidents.items():
        show_line(f"{incident or 'no incident'} (team {team or 'none'}), {len(alerts)} alerts:")
        show_table(_alerts_table(alerts))
    typer.echo(f"{len(rows)} alerts")


def _alerts_table(alerts: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in ("alert", "since", "lasted", "severity", "policy"):
        table.add_column(name, no_wrap=True)
    table.add_column("key", overflow="fold")
    for row in alerts:
        labels = row["labels"].items()
        table.add_row(
            row["fingerprint"][:_SHORT],
            f"{row['starts_at']:%m-%d %H:%M}",
            row["lasted"] or "firing",
            row["severity"],
            row["policy"] + (" below" if row["labels"].get("bound") == "below" else "")
            or row["alertname"],
            " ".join(f"{name}={text}" for name, text in labels if name not in _SHOWN),
        )
    return table


@incidents_app.command("show")
def show_incident(
    fingerprint: Annotated[str, typer.Argument(help="The alert's fingerprint, or its beginning.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of an alert, its evidence, and when it fired before; times are UTC.

    Try it:

    flow-exporter incidents show 04347e2b --config flow-exporter.yaml
    """
    settings = read_config(config)
    rows = _ask(settings, _SHOW, {"fingerprint": fingerprint})
    if not rows:
        fail(f"no alert has a fingerprint that begins with {fingerprint!r}", 1)
    if len({row["fingerprint"] for row in rows}) > 1:
        fail("several alerts begin so: " + ", ".join({row["fingerprint"] for row in rows}), 1)
    latest = rows[0]
    started_ms = int(latest["starts_at"].timestamp() * 1000)
    evidence = _ask(
        settings, _EVIDENCE, {"fingerprint": latest["fingerprint"], "starts_ms": started_ms}
    )
    if as_json:
        show_json({"times": rows, "evidence": evidence})
        return
    for name in ("fingerprint", "alertname", "status", "severity", "team", "incident", "source"):
        show_line(f"{name:12} {latest[name]}")
    for title in ("labels", "annotations"):
        typer.echo(f"{title}:")
        for name, text in latest[title].items():
            show_line(f"  {name}: {text}")
    typer.echo("times:")
    for row in rows:
        ends = f"{row['ends_at']:%Y-%m-%d %H:%M:%S}" if row["ends_at"] else "now"
        typer.echo(f"  {row['starts_at']:%Y-%m-%d %H:%M:%S} to {ends}")
    _print_evidence(evidence)


def _print_evidence(contributors: list[dict[str, Any]]) -> None:
    """Each dimension's largest contributors, during the alert and in a time as long before it."""
    from rich.table import Table

    if not contributors:
        return
    captured = max(row["captured_at"] for row in contributors)
    typer.echo(f"evidence, taken {captured:%Y-%m-%d %H:%M:%S}; before: a time as long before it:")
    table = Table("dimension", "value", box=None)
    for name in ("bytes", "before", "packets", "before", "flows", "before"):
        table.add_column(name, justify="right")
    previous = ""
    for row in contributors:
        if previous not in ("", row["dimension"]):
            table.add_section()
        table.add_row(
            row["dimension"] if row["dimension"] != previous else "",
            row["value"] or ("" if row["dimension"] == "total" else "(none)"),
            *(f"{row[name]:,}" for name in (
                "bytes", "bytes_before", "packets", "packets_before", "flows", "flows_before",
            )),
        )  # fmt: skip
        previous = row["dimension"]
    show_table(table)


def _ask(settings: Config, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with connected(settings.clickhouse) as client:
        return list(client.query(sql, parameters=parameters).named_results())
