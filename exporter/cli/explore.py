"""``flow-exporter explore``: the Data Explorer's question in a terminal."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.completion import dimensions, measures
from exporter.cli.connection import connected
from exporter.cli.output import fail, show_line, show_table
from exporter.cli.times import parse_length, parse_moment


@app.command()
def explore(
    config: ConfigOption = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", help="Flow column to group by; at most two.", autocompletion=dimensions
        ),
    ] = None,
    measure: Annotated[
        str,
        typer.Option(
            help="What is summed or counted, such as packets_per_second.", autocompletion=measures
        ),
    ] = "bits_per_second",
    where: Annotated[
        str, typer.Option(help="Boolean SQL expression over flow columns, as in a policy.")
    ] = "",
    address: Annotated[
        str, typer.Option(help="Source or destination: an address, a prefix, or a name.")
    ] = "",
    last: Annotated[str, typer.Option(help="Length of the range: 30m, 6h, 7d.")] = "1h",
    start: Annotated[
        str, typer.Option("--from", help="Start of the range, ISO 8601, UTC unless it says.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="End of the range; by default now.")] = "",
    top: Annotated[int, typer.Option(help="How many keys.")] = 10,
    compare: Annotated[
        str, typer.Option(help="Compare with the range a day or a week before.")
    ] = "none",
    pin: Annotated[
        list[str] | None, typer.Option("--pin", help="Key that is shown whatever its rank.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="No estimates of very many flows, whatever it takes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
) -> None:
    """Show what is big: the top keys of any dimension, measure, range and filter.

    It sums what was reported: what two devices saw counts twice, unless you ask for one of them.

    Exit codes: 0 answered, 1 ClickHouse does not answer or refuses, 2 the question is wrong.

    Try it:

    flow-exporter explore --by src_as --address fl13 --last 6h

    flow-exporter explore --by dst_port --where "dst_host = 'ag04'" --compare week
    """
    from exporter.explore import show
    from exporter.explore.ask import Asked, ask, looks_at

    settings = read_config(config)
    try:
        if as_json and as_csv:
            raise ValueError("--json or --csv, not both")
        finish = parse_moment(end) if end else int(time.time())
        begin = parse_moment(start) if start else finish - _last(last)
        asked = Asked(
            start=begin,
            end=finish,
            by=tuple(by or ("src_addr",)),
            measure=measure,
            where=where,
            address=address,
            top=top,
            compare=compare,
            pinned=tuple(pin or ()),
            exact=exact,
        )
    except ValueError as error:
        fail(str(error), 2)
    with connected(settings.clickhouse) as client:
        looked_at = looks_at(client, asked)
        keys = ask(client, asked, looked_at)
    if as_json:
        typer.echo(show.as_json(asked, keys, looked_at))
    elif as_csv:
        show_line(show.as_csv(asked, keys).removesuffix("\n"))
    else:
        show_table(show.AnswerTable(asked, keys))
        if not keys:
            typer.echo("no flows match", err=True)
    for remark in show.remarks(looked_at):
        typer.echo(remark, err=True)


def _last(text: str) -> int:
    try:
        return parse_length(text)
    except ValueError as error:
        raise ValueError(f"--last: {error}") from error
