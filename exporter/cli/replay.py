"""``flow-exporter replay``: captured datagrams once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import app, parse_target


@app.command()
def replay(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="pcap, pcapng, or raw datagrams (one a file)."),
    ],
    to: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Collector to send to.")
    ] = "127.0.0.1:2055",
    speed: Annotated[
        float, typer.Option(min=0.001, help="How many times as fast as captured.")
    ] = 1.0,
    rate: Annotated[
        float, typer.Option(min=0, help="Datagrams per second, whatever the capture's times.")
    ] = 0.0,
    as_fast_as_possible: Annotated[
        bool, typer.Option("--as-fast-as-possible", help="Do not wait at all.")
    ] = False,
    port: Annotated[
        list[int] | None,
        typer.Option(min=1, max=65535, help="Only what was captured on the way to this UDP port."),
    ] = None,
) -> None:  # fmt: skip
    """Send the UDP datagrams in FILE… to a collector, at the pace of their capture.

    To a collector on this machine every sender of the capture gets a loopback address of its
    own. Faults go to standard error with file and offset. Exit codes: 0 all was sent, 1 something
    was not.

    Try it:

    flow-exporter replay flows.pcap --to 127.0.0.1:2055 --speed 60
    """
    import signal
    import threading
    import time

    from exporter.receive.captures import FileError
    from exporter.simulate.replay import Pace, replay

    target = parse_target(to)
    if as_fast_as_possible and (rate or speed != 1.0):
        raise typer.BadParameter("--as-fast-as-possible goes without --rate and --speed")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    faults: list[FileError] = []

    def report(error: FileError) -> None:
        faults.append(error)
        typer.echo(str(error), err=True)

    pace = Pace(0.0 if as_fast_as_possible else speed, rate)
    begin = time.monotonic()
    try:
        sent = replay(files, target, pace, ports=port, stop=stop, report=report)
    except FileError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"flow-exporter replay: {to}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    typer.echo(
        f"{sent.datagrams} datagrams, {sent.bytes} bytes from {sent.senders} senders "
        f"in {time.monotonic() - begin:.1f} s"
    )
    if faults or not sent.datagrams:
        raise typer.Exit(1)
