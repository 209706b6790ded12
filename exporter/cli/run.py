"""``flow-exporter run``: the collector."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from exporter.cli.app import ConfigOption, app, read_config


@app.command()
def run(
    config: ConfigOption = None,
    migrate: Annotated[
        bool,
        typer.Option("--migrate", help="Bring the database to the current schema at start."),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="Log messages of this level and above, to standard error."),
    ] = "info",
) -> None:
    """Receive flows, write them to ClickHouse, count them for Prometheus, evaluate policies.

    SIGTERM or Ctrl-C: takes in no more, stores what it has, ends. SIGHUP (or POST /-/reload):
    reads the configuration again; when that is wrong, the old one stays.

    Exit codes: 0 ended as told, 1 could not start or a part failed, 2 wrong configuration.

    Try it:

    flow-exporter run --migrate --config flow-exporter.yaml
    """
    settings = read_config(config)

    import queue
    import signal

    from exporter.collector import CollectorProcess
    from exporter.config import ConfigError
    from exporter.http import HttpServerError
    from exporter.logs import configure_logging
    from exporter.memory import keep_freed_memory
    from exporter.receive.udp import ReceiveError
    from exporter.store.statements import MigrationError

    configure_logging(log_level)
    keep_freed_memory()
    try:
        collector = CollectorProcess(settings, config, migrate=migrate)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    except (HttpServerError, MigrationError, OSError, ReceiveError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error

    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: signals.put(received))
    with collector:
        while collector.alive:
            try:
                received = signals.get(timeout=1.0)
            except queue.Empty:
                continue
            if received != signal.SIGHUP:
                return
            try:
                collector.reload()
            except ConfigError:
                continue  # logged where it was found
    raise typer.Exit(1)
