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
) -> None:
    """Bring the ClickHouse database to the current schema.

    Safe to run at any time, also by several at once: what is applied already is left alone.
    """
    from exporter.config import ConfigError
    from exporter.resources import resource
    from exporter.store.client import StoreError
    from exporter.store.migrate import MigrationError, Migrator

    settings = read_config(config).clickhouse
    try:
        migrator = Migrator(settings, resource("clickhouse/migrations"))
        migrations = migrator.pending() if dry_run else migrator.apply()
    except (ConfigError, StoreError, MigrationError, FileNotFoundError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if not migrations:
        typer.echo(f"database {settings.database} is up to date")
    for migration in migrations:
        verb = "would apply" if dry_run else "applied"
        typer.echo(f"{verb} {migration.path.name}: {len(migration.statements)} statements")
        if dry_run:
            for statement in migration.statements:
                typer.echo(f"\n{statement.sql};\n")
