"""``flow-exporter check``: is everything as the collector needs it?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.policies.model import PolicySet


@app.command()
def check(
    config: ConfigOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check files only; connect to nothing.")
    ] = False,
) -> None:
    """Say what is wrong, and where, with configuration, policies, ClickHouse and its schema.

    With --offline, as in a CI, a missing password or token file is only a warning.

    Exit codes: 0 all is well, 1 ClickHouse is not as it should be, 2 a file is wrong.

    Try it:

    flow-exporter check --config flow-exporter.yaml

    flow-exporter check --offline --config flow-exporter.yaml
    """
    settings = read_config(config)
    _say("configuration", str(config) if config else "defaults")
    policies = _check_files(settings, secrets_needed=not offline)
    if not offline:
        _check_store(settings, policies)


def _say(what: str, state: str) -> None:
    typer.echo(f"ok: {what}: {state}")


def _check_files(settings: Config, *, secrets_needed: bool) -> PolicySet:
    from exporter.config import ConfigError, read_secret
    from exporter.policies.model import PolicySet, load_policies
    from exporter.web_config import load_web_config, tls_context

    faults: list[str] = []
    policies = PolicySet()
    file = settings.policies.file
    try:
        policies = load_policies(Path(file)) if file else policies
        _say("policies", f"{len(policies.policies)} in {file}" if file else "none configured")
    except ConfigError as error:
        faults.append(str(error))
    try:
        web = load_web_config(settings.http.web_config_file)
        if web.tls_server_config:
            tls_context(web.tls_server_config)
        _say("web configuration", settings.http.web_config_file or "none: plain HTTP, no users")
    except ConfigError as error:
        faults.append(str(error))
    faults += _check_names(settings)
    secrets = (
        (settings.http.webhook_token_file, "FLOW_WEBHOOK_TOKEN"),
        (settings.clickhouse.password_file, "FLOW_CLICKHOUSE_PASSWORD"),
        *((file, "") for access in settings.snmp.access for file in access.secret_files),
        *((server.token_file, "") for server in settings.host_targets.http),
    )
    for path, variable in secrets:
        try:
            read_secret(path, variable)
        except ConfigError as error:
            if secrets_needed:
                faults.append(str(error))
            else:
                typer.echo(f"warning: {error}", err=True)
    if faults:
        typer.echo("\n".join(faults), err=True)
        raise typer.Exit(2)
    return policies


def _check_names(settings: Config) -> list[str]:
    """What is wrong with the files of names, of gRPC and of countries and AS."""
    from exporter.config import ConfigError
    from exporter.enrich.geo_as_names import read_names
    from exporter.enrich.geo_mmdb import MmdbFile
    from exporter.enrich.name_files import NameFiles
    from exporter.receive.grpc.server import check_tls

    checks: list[Callable[[], object]] = [partial(MmdbFile, path) for path in settings.geo.files]
    if settings.geo.as_names_file:
        checks.append(partial(read_names, settings.geo.as_names_file))
    if settings.receive.grpc and settings.receive.grpc.tls:
        checks.append(partial(check_tls, settings.receive.grpc.tls))
    files = NameFiles()
    files.read(settings)
    faults = files.faults()
    for check_one in checks:
        try:
            check_one()
        except ConfigError as error:
            faults.append(str(error))
    count = len(checks) + files.count
    if count and not faults:
        _say("files of names, gRPC, countries and AS", f"{count} checked")
    return faults


def _check_store(settings: Config, policies: PolicySet) -> None:
    from exporter.config import ConfigError
    from exporter.policies.check import check_queries
    from exporter.resources import resource
    from exporter.store.client import StoreError, connect
    from exporter.store.migrate import Migrator
    from exporter.store.schema_check import schema_differences
    from exporter.store.statements import MigrationError

    try:
        migrator = Migrator(settings.clickhouse, resource("clickhouse/migrations"))
        pending = migrator.pending()
    except (ConfigError, FileNotFoundError, MigrationError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    _say("ClickHouse", settings.clickhouse.url)
    if pending:
        names = ", ".join(migration.path.name for migration in pending)
        typer.echo(
            f"error: database {settings.clickhouse.database!r} lacks {names}: "
            "run `flow-exporter migrate`",
            err=True,
        )
        raise typer.Exit(1)
    _say("migrations", f"database {settings.clickhouse.database} is up to date")
    client = connect(settings.clickhouse)
    try:
        differences = schema_differences(client, settings.clickhouse, migrator.migrations)
        faults = (
            {} if differences else check_queries(client, policies.policies, policies.loaded_lists)
        )
    except StoreError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    finally:
        client.close()
    for difference in differences:
        typer.echo(f"error: {settings.clickhouse.database}.{difference}", err=True)
    if differences:
        raise typer.Exit(1)
    _say("schema", "tables and views are as the migrations make them")
    for name, fault in faults.items():
        typer.echo(f"error: {settings.policies.file}: policy {name}: {fault}", err=True)
    if faults:
        raise typer.Exit(1)
    _say("policies' queries", f"ClickHouse takes all {len(policies.policies)}")
