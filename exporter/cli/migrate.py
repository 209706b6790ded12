"""``flow-exporter migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config


@app.command()
def migrate(
    config: ConfigOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the statements; change nothing.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Run all migrations again: makes the tables and views that are missing, "
            "such as those of a new node of a cluster.",
        ),
    ] = False,
) -> None:
    """Bring the ClickHouse database to the current schema and to the configured retention.

    Safe to run at any time, also by several at once: what is applied already is left alone.

    Try it:

    flow-exporter migrate --dry-run --config flow-exporter.yaml

    flow-exporter migrate --config flow-exporter.yaml
    """
    from exporter.config import ConfigError
    from exporter.resources import resource
    from exporter.store.client import StoreError
    from exporter.store.migrate import Migrator
    from exporter.store.statements import MigrationError

    settings = read_config(config).clickhouse
    try:
        migrator = Migrator(settings, resource("clickhouse/migrations"))
        if dry_run:
            migrations = migrator.migrations if again else migrator.pending()
            changes = migrator.retention()
        else:
            migrations = migrator.apply(again=again)
            changes = migrator.set_retention()
    except (ConfigError, StoreError, MigrationError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    if not migrations and not changes:
        typer.echo(f"database {settings.database} is up to date")
    for migration in migrations:
        verb = "would apply" if dry_run else "applied"
        typer.echo(f"{verb} {migration.path.name}: {len(migration.statements)} statements")
        if dry_run:
            for statement in migration.statements:
                typer.echo(f"\n{statement.sql};\n")
    for change in changes:
        verb = "would change" if dry_run else "changed"
        typer.echo(f"{verb} {change.table}: {change.text}")
        if dry_run:
            typer.echo(f"\n{change.sql};\n")
