"""``flow-exporter store``: the embedded ClickHouse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import app
from exporter.cli.output import fail, of_files


@app.command()
def store(
    data_dir: Annotated[
        Path, typer.Option(help="Folder of all data and of the passwords; made if missing.")
    ] = Path("store"),
    listen: Annotated[
        str, typer.Option(help="Address and port of the HTTP interface; port 0 takes a free one.")
    ] = "127.0.0.1:8123",
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM); with it the store speaks HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    max_memory: Annotated[
        str,
        typer.Option(
            help="Memory of all queries together (as 6G); 0: nine tenths of the machine's."
        ),
    ] = "0",
    max_query_memory: Annotated[str, typer.Option(help="Memory of one query.")] = "2G",
    max_query_seconds: Annotated[
        float, typer.Option(min=0, help="Time of one query; 0: no limit.")
    ] = 60.0,
    max_result_rows: Annotated[
        int, typer.Option(min=0, help="Rows of one answer; 0: no limit.")
    ] = 0,
    max_queries: Annotated[int, typer.Option(min=1, help="Queries that run at a time.")] = 16,
    max_inserts: Annotated[int, typer.Option(min=1, help="Inserts that run at a time.")] = 4,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Queries that wait for their turn; more are refused.")
    ] = 128,
    slow_query_seconds: Annotated[
        float, typer.Option(min=0, help="Queries that take longer are logged.")
    ] = 5.0,
) -> None:
    """Serve the ClickHouse engine from one folder over ClickHouse's HTTP interface.

    Whatever speaks to ClickHouse over HTTP speaks to it. There are two users: flow_writer may do
    everything with the data, flow_reader may only read. Their passwords come from the environment
    (FLOW_STORE_WRITER_PASSWORD, FLOW_STORE_READER_PASSWORD), else from the files writer.password
    and reader.password in the data folder, which are made at the first start.

    Try it:

      flow-exporter store --data-dir store

      curl "http://127.0.0.1:8123/?query=SELECT+version()" --user "flow_reader:$(cat
      store/reader.password)"

    /ping answers "Ok.", /metrics is for Prometheus. Ctrl-C or SIGTERM lets running queries end.
    """
    from exporter.logs import configure_logging

    try:
        from exporter.store.server.app import Options
        from exporter.store.server.errors import EngineError
        from exporter.store.server.folder import StoreInUseError
        from exporter.store.server.serve import Listen, StoreOptions, serve
        from exporter.store.server.settings import Limits
    except ImportError as error:
        typer.echo(
            f"flow-exporter store: {error}; install the engine with "
            "`pip install '.[embedded]'` in the checkout",
            err=True,
        )
        raise typer.Exit(2) from error

    configure_logging("warning")
    address, port = _address(listen)
    if (tls_certificate is None) != (tls_key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together")
    options = StoreOptions(
        data_dir=data_dir,
        listen=Listen(address, port, tls_certificate, tls_key),
        server_memory_bytes=_size(max_memory),
        options=Options(
            limits=Limits(_size(max_query_memory), max_query_seconds, max_result_rows),
            queries=max_queries,
            inserts=max_inserts,
            waiting=max_waiting,
            slow_seconds=slow_query_seconds,
        ),
    )
    try:
        serve(options)
    except (StoreInUseError, EngineError) as error:
        fail(f"flow-exporter store: {error}", 1)
    except OSError as error:
        fail(f"flow-exporter store: {of_files(error)}", 1)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not ADDRESS:PORT", param_hint="--listen")
    return host.strip("[]"), int(port)


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _size(text: str) -> int:
    """Bytes of a number with K, M, G or T."""
    number, unit = text.rstrip("KMGTkmgt"), text.lstrip("0123456789.").upper()
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError) as error:
        raise typer.BadParameter(f"{text!r} is not a size such as 512M or 2G") from error
