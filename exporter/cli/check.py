"""``flow-exporter check``: is everything as the collector needs it?"""

from __future__ import annotations

import glob
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exporter.cli.app import ConfigOption, app
from exporter.cli.output import JsonOption, show_error, show_json, show_line

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.policies.model import PolicySet


@app.command()
def check(
    config: ConfigOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check files only; connect to nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong, and where, with configuration, policies, ClickHouse and its schema.

    With --offline, as in a CI, a missing password or token file is only a warning.

    Exit codes: 0 all is well, 1 ClickHouse is not as it should be, 2 a file is wrong.

    Try it:

    flow-exporter check --config flow-exporter.yaml

    flow-exporter check --offline --config flow-exporter.yaml
    """
    from exporter.config import ConfigError, load_config

    report = _Report(as_json=as_json)
    try:
        settings = load_config(config)
        report.ok("configuration", str(config) if config else "defaults")
        policies = _check_files(settings, report, secrets_needed=not offline)
        if not offline:
            _check_store(settings, policies, report)
    except ConfigError as error:
        report.fault(str(error))
        raise typer.Exit(2) from error
    finally:
        report.close()


class _Report:
    """What was found: told as it is found, or as one JSON object at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._ok: dict[str, str] = {}
        self._warnings: list[str] = []
        self._faults: list[str] = []

    def ok(self, what: str, state: str) -> None:
        """``what`` is as it should be."""
        self._ok[what] = state
        if not self._as_json:
            show_line(f"ok: {what}: {state}")

    def warning(self, text: str) -> None:
        """Something may be wrong elsewhere."""
        self._warnings.append(text)
        if not self._as_json:
            show_error(f"warning: {text}")

    def fault(self, text: str, prefix: str = "") -> None:
        """Something is wrong; ``prefix`` is for people."""
        self._faults.append(text)
        if not self._as_json:
            show_error(f"{prefix}{text}")

    def close(self) -> None:
        """Print the JSON object, if that was asked for."""
        if self._as_json:
            show_json({"ok": self._ok, "warnings": self._warnings, "faults": self._faults})


def _check_files(settings: Config, report: _Report, *, secrets_needed: bool) -> PolicySet:
    from exporter.config import ConfigError
    from exporter.policies.model import PolicySet, load_policies
    from exporter.policies.new_normal import idle_new_normals, load_new_normals
    from exporter.web_config import load_web_config, tls_context

    faults: list[str] = []
    policies = PolicySet()
    file = settings.policies.file
    try:
        if file:
            policies = load_policies(Path(file))
            said = settings.policies.new_normals
            entries = load_new_normals(said)
            for text in idle_new_normals(said, entries, policies.policies, time.time()):
                report.warning(text)
        report.ok("policies", f"{len(policies.policies)} in {file}" if file else "none configured")
    except ConfigError as error:
        faults.append(str(error))
    try:
        web = load_web_config(settings.http.web_config_file)
        if web.tls_server_config:
            tls_context(web.tls_server_config)
        report.ok(
            "web configuration", settings.http.web_config_file or "none: plain HTTP, no users"
        )
    except ConfigError as error:
        faults.append(str(error))
    faults += _check_names(settings, report)
    unread = _check_secrets(settings, report)
    named = dict(_named_files(settings.model_dump()))
    if secrets_needed:
        faults += unread
    else:
        for fault in unread:
            report.warning(_with_setting(fault, named))
    for fault in faults:
        report.fault(_with_setting(fault, named))
    if faults:
        raise typer.Exit(2)
    return policies


def _named_files(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Texts of the configuration, files among them, and the settings that they are."""
    if isinstance(value, str):
        yield value, place
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _named_files(inner, f"{place}.{key}".lstrip("."))


def _with_setting(fault: str, named: dict[str, str]) -> str:
    """A fault of a whole file with the setting that names it: ``file:line`` has no need of it."""
    file, _, text = fault.partition(": ")
    return f"{file}: {text} ({named[file]})" if file in named else fault


def _check_secrets(settings: Config, report: _Report) -> list[str]:
    """What cannot be read; a warning for what anybody on this machine can."""
    from exporter.config import ConfigError, read_secret

    faults = []
    files = [
        settings.http.webhook_token_file,
        settings.clickhouse.password_file,
        *(file for access in settings.snmp.access for file in access.secret_files),
        *(server.token_file for server in settings.host_targets.http),
    ]
    for file in filter(None, files):
        try:
            read_secret(file, "")
        except ConfigError as error:
            faults.append(str(error))
        else:
            if Path(file).stat().st_mode & stat.S_IROTH:
                report.warning(f"{file}: everybody here can read it: chmod o= {file}")
    return faults


def _check_names(settings: Config, report: _Report) -> list[str]:
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
    for setting, pattern, found in _matches(settings):
        if not found:
            report.warning(f"{pattern}: there is no such file ({setting})")
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
        report.ok("files of names, gRPC, countries and AS", f"{count} checked")
    return faults


def _matches(settings: Config) -> Iterator[tuple[str, str, bool]]:
    """Each pattern of files with its setting, and whether there is such a file by now."""
    patterns = {
        "device_files": settings.device_files,
        "network_files": settings.network_files,
        "host_files": settings.host_files,
        "host_targets.files": settings.host_targets.files,
    }
    for setting, names in patterns.items():
        for name in names:
            yield setting, name, bool(glob.glob(name))  # noqa: PTH207


def _check_store(settings: Config, policies: PolicySet, report: _Report) -> None:
    from exporter.config import ConfigError
    from exporter.policies.check import refused_queries
    from exporter.resources import resource
    from exporter.store.client import StoreError, connect
    from exporter.store.insert import refused_insert
    from exporter.store.migrate import Migrator
    from exporter.store.schema_check import schema_differences
    from exporter.store.statements import MigrationError

    try:
        migrator = Migrator(settings.clickhouse, resource("clickhouse/migrations"))
        pending = migrator.pending()
    except (ConfigError, FileNotFoundError, MigrationError, StoreError) as error:
        report.fault(str(error), "error: ")
        raise typer.Exit(1) from error
    report.ok("ClickHouse", settings.clickhouse.url)
    if pending:
        names = ", ".join(migration.path.name for migration in pending)
        report.fault(
            f"database {settings.clickhouse.database!r} lacks {names}: run `flow-exporter migrate`",
            "error: ",
        )
        raise typer.Exit(1)
    report.ok("migrations", f"database {settings.clickhouse.database} is up to date")
    try:
        with connect(settings.clickhouse) as client:
            differences = schema_differences(client, settings.clickhouse, migrator.migrations)
            file = Path(settings.policies.file)
            refused = None if differences else refused_insert(client, settings.clickhouse)
            faults = [] if differences else refused_queries(client, file, policies)
    except StoreError as error:
        report.fault(str(error), "error: ")
        raise typer.Exit(1) from error
    for difference in differences:
        report.fault(f"{settings.clickhouse.database}.{difference}", "error: ")
    if differences:
        raise typer.Exit(1)
    report.ok("schema", "tables and views are as the migrations make them")
    if refused is not None:
        report.fault(str(refused), "error: ")
        raise typer.Exit(1)
    report.ok("rights", f"user {settings.clickhouse.user} may insert")
    for fault in faults:
        report.fault(fault, "error: ")
    if faults:
        raise typer.Exit(1)
    report.ok("policies' queries", f"ClickHouse takes all {len(policies.policies)}")
