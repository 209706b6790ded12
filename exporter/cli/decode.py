"""``flow-exporter decode``: flows in files as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.output import show_error, show_json


@app.command()
def decode(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Raw datagrams (one UDP payload a file), pcap, pcapng, or *.ipfix.",
        ),
    ],
    config: ConfigOption = None,
    options: Annotated[
        bool,
        typer.Option(
            "--options",
            help="Print what devices tell about themselves too: samplers, interfaces, "
            "applications. Such objects have a member options.",
        ),
    ] = False,
) -> None:
    """Print one JSON object per flow in FILE…; several files are one stream, in order.

    Raw datagrams are taken as received when they were exported. Faults go to standard error with
    file and offset. Exit codes: 0 all was decoded, 1 something was not, 2 the configuration is
    wrong.

    Try it:

    flow-exporter decode flows.pcap | head

    flow-exporter decode --options flows.pcap | grep '"options"'
    """
    from exporter.decode.files import FileDecoder
    from exporter.decode.option_names import describe

    settings = read_config(config)
    decoder = FileDecoder(
        settings.decode, settings.devices, show_error,
        (lambda *record: show_json(describe(*record))) if options else None,
    )  # fmt: skip
    for batch in decoder.decode(files):
        for row in batch.rows():
            show_json(row)
    decoder.finish()
    if decoder.faults:
        raise typer.Exit(1)
