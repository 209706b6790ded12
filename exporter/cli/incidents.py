"""``flow-exporter incidents``: the history of alerts in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from exporter.cli.app import ConfigOption, app, read_config

if TYPE_CHECKING:
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

#: Labels that have a column of their own in the list.
_SHOWN = frozenset({"alertname", "severity", "policy", "team", "incident", "dashboard", "measure"})


@incidents_app.command("list")
def list_incidents(
    config: ConfigOption = None,
    firing: Annotated[bool, typer.Option("--firing", help="Only what has not ended.")] = False,
    hours: Annotated[int, typer.Option(min=1, help="How far to look back.")] = 24,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at most.")] = 100,
) -> None:
    """Show alerts, the latest first; times are UTC."""
    from rich.console import Console
    from rich.table import Table

    parameters = {"hours": hours, "firing": int(firing), "limit": limit}
    table = Table(
        "fingerprint", "since", "lasted", "severity", "alert", "policy", "key", "team", "incident",
        box=None,
    )  # fmt: skip
    rows = _ask(read_config(config), _LIST, parameters)
    for row in rows:
        key = " ".join(
            f"{name}={text}" for name, text in row["labels"].items() if name not in _SHOWN
        )
        table.add_row(
            row["fingerprint"],
            f"{row['starts_at']:%Y-%m-%d %H:%M:%S}",
            row["lasted"] or "firing",
            row["severity"],
            row["alertname"],
            row["policy"],
            key,
            row["team"],
            row["incident"],
        )
    if rows:
        Console().print(table)
    typer.echo(f"{len(rows)} alerts")


@incidents_app.command("show")
def show_incident(
    fingerprint: Annotated[str, typer.Argument(help="The alert's fingerprint, or its beginning.")],
    config: ConfigOption = None,
) -> None:
    """Show all that is known of an alert, and when it fired before; times are UTC."""
    rows = _ask(read_config(config), _SHOW, {"fingerprint": fingerprint})
    if not rows:
        _fail(f"no alert has a fingerprint that begins with {fingerprint!r}", 1)
    if len({row["fingerprint"] for row in rows}) > 1:
        _fail("several alerts begin so: " + ", ".join({row["fingerprint"] for row in rows}), 1)
    latest = rows[0]
    for name in ("fingerprint", "alertname", "status", "severity", "team", "incident", "source"):
        typer.echo(f"{name:12} {latest[name]}")
    for title in ("labels", "annotations"):
        typer.echo(f"{title}:")
        for name, text in latest[title].items():
            typer.echo(f"  {name}: {text}")
    typer.echo("times:")
    for row in rows:
        ends = f"{row['ends_at']:%Y-%m-%d %H:%M:%S}" if row["ends_at"] else "now"
        typer.echo(f"  {row['starts_at']:%Y-%m-%d %H:%M:%S} to {ends}")


def _ask(settings: Config, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    from clickhouse_connect.driver.exceptions import DatabaseError

    from exporter.store.client import StoreError, connect, explain

    try:
        client = connect(settings.clickhouse)
        try:
            return list(client.query(sql, parameters=parameters).named_results())
        finally:
            client.close()
    except StoreError as error:
        _fail(str(error), 1)
    except DatabaseError as error:
        _fail(str(explain(error, settings.clickhouse)), 1)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)
