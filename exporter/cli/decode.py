"""``flow-exporter decode``: flows in files as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config

if TYPE_CHECKING:
    from exporter.decode.files import FileDecoder


@app.command()
def decode(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="Raw datagrams (one UDP payload a file), pcap or pcapng."
        ),
    ],
    config: ConfigOption = None,
) -> None:
    """Print one JSON object per flow in FILE…; several files are one stream, in order.

    Raw datagrams are taken as received when they were exported. Faults go to standard error with
    file and offset. Exit codes: 0 all was decoded, 1 something was not, 2 the configuration is
    wrong.

    Try it:

    flow-exporter decode flows.pcap | head
    """
    import json

    from exporter.decode.files import FileDecoder

    settings = read_config(config)
    decoder = FileDecoder(
        settings.decode, settings.devices, lambda text: typer.echo(text, err=True)
    )
    for row in _rows(decoder, files):
        typer.echo(json.dumps(row, ensure_ascii=False))
    decoder.finish()
    if decoder.faults:
        raise typer.Exit(1)


def _rows(decoder: FileDecoder, files: list[Path]) -> Iterator[dict[str, object]]:
    for batch in decoder.decode(files):
        yield from batch.rows()
