"""``flow-exporter simulate``: a small datacenter's flows, live as real packets or as history."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, parse_target, read_config
from exporter.cli.completion import scenarios
from exporter.cli.connection import connected
from exporter.cli.output import fail
from exporter.cli.times import parse_length, parse_moment

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.simulate.live import Teller
    from exporter.simulate.scenarios import Scenario, Story
    from exporter.simulate.senders import Totals

_DAY = 86400


@app.command()
def simulate(
    scenario: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SCENARIO[@WHEN]]...",
            help="What happens, and when it began: 20m (ago) or 2026-03-01T22:15; without any, "
            "lists the scenarios.",
            autocompletion=scenarios,
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Collector to send packets to.")
    ] = "127.0.0.1:2055",
    agents_to: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT", help="Collector's gRPC port, for agents on hosts; '': none."
        ),
    ] = "127.0.0.1:2056",
    rate: Annotated[
        float,
        typer.Option(min=0, help="Flow records per second at the busiest hour; 0: about 250. "
                     "The traffic's volume stays the same."),
    ] = 0.0,
    speed: Annotated[
        float, typer.Option(min=0.001, help="How much faster the scenario's own time passes.")
    ] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Seconds to send; without it, until Ctrl-C.")
    ] = None,
    history: Annotated[
        str,
        typer.Option(metavar="LENGTH", help="Write so much of the past, such as 4w, into the "
                     "ClickHouse of the configuration instead of sending."),
    ] = "",
    live: Annotated[
        bool, typer.Option("--live", help="After the history, send from where it ends.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="With --history: only what came after the newest simulated flow that "
            "is stored, up to the moment of the end.",
        ),
    ] = False,
    prometheus_data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="With --history: data directory of a Prometheus that does not "
            "run yet, for the past of the nodes' and the application's metrics.",
        ),
    ] = None,
    config: ConfigOption = None,
    dnstap: Annotated[
        str,
        typer.Option(
            metavar="PATH|ADDRESS:PORT", help="Where the collector takes dnstap of the resolvers."
        ),
    ] = "",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve metrics of nodes and application on this loopback port."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same flows.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON.")] = False,
) -> None:  # fmt: skip
    """Tell scenarios as NetFlow v5, v9, IPFIX, sFlow and eBPF agents' flows of a small datacenter.

    To a collector on this machine, every device sends from a loopback address of its own. At the
    end the totals of each device are printed, as estimates (scaled up by the sampling rate).

    Without WHEN a scenario begins now; in history alone, at the hour that its story tells, the last
    time that it was. Several scenarios happen together.

    Exit codes: 0 done, 1 nobody takes the flows, 2 wrong usage.

    Try it:

    flow-exporter simulate load-spike --speed 10

    flow-exporter simulate rogue-host@20m --history 4w --live --config flow-exporter.yaml
    """
    from exporter.simulate.scenarios import SCENARIOS, told_together

    if not scenario:
        for known in SCENARIOS.values():
            typer.echo(f"{known.name:12} {known.summary}")
        return
    with_history = {"--live": live, "--resume": resume, "--prometheus-data": prometheus_data}
    for option, given in with_history.items():
        if given and not history:
            raise typer.BadParameter(f"{option} goes with --history")
    target = parse_target(to)
    agents_target = parse_target(agents_to) if agents_to else None
    past = _length("--history", history) if history else 0
    now = int(time.time())
    chosen = [_chosen(text, now, told_by_hour=bool(history) and not live) for text in scenario]
    story = told_together([(each, begin - now) for each, begin in chosen])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if past:
        _write_past(
            story, now, now - past, read_config(config), seed=seed,
            live=live or resume, resume=resume, prometheus=prometheus_data, stop=stop,
        )  # fmt: skip
        if not live or stop.is_set():
            return
    from exporter.simulate.drawing import Traffic
    from exporter.simulate.live import seconds, tell_live

    if not as_json:
        for each, begin in chosen:
            typer.echo(f"Telling {each.name} since {_text(begin)}: {each.summary}")
    with _others(story, now, seed, dnstap, metrics_port) as others:
        try:
            totals = tell_live(
                Traffic(story.streams, seed=seed, flows_per_second=rate),
                target,
                agents_target,
                seconds(now * 1000, speed=speed, duration=duration, stop=stop),
                others,
            )
        except OSError as error:
            fail(f"flow-exporter simulate: {to}: {error.strerror}", 1)
    _show(totals, agents_to, as_json=as_json)


def _write_past(
    story: Story,
    now: int,
    begin: int,
    settings: Config,
    *,
    seed: int,
    live: bool,
    resume: bool,
    prometheus: Path | None,
    stop: threading.Event,
) -> None:
    from exporter.policies.blocks import BlockError
    from exporter.simulate.write_past import StoppedError, write_past

    began = time.monotonic()
    try:
        with connected(settings.clickhouse) as client:
            rows = write_past(
                client, story, now, begin, settings,
                seed=seed, live=live, resume=resume, prometheus=prometheus, stop=stop,
            )  # fmt: skip
    except StoppedError:
        return
    except BlockError as error:
        fail(f"flow-exporter simulate: {error}", 1)
    typer.echo(f"{rows} flows of the past in {time.monotonic() - began:.0f} s", err=True)


@contextmanager
def _others(
    story: Story, now: int, seed: int, dnstap: str, metrics_port: int | None
) -> Iterator[list[Teller]]:
    """What is told beside the flows: queries of resolvers, metrics of nodes and application."""
    with ExitStack() as opened:
        others: list[Teller] = []
        if dnstap:
            others.append(opened.enter_context(_resolvers(story, now, seed, dnstap)))
        if metrics_port is not None:
            others.append(_served(story, now, seed, metrics_port, opened))
        yield others


@contextmanager
def _resolvers(story: Story, now: int, seed: int, target: str) -> Iterator[Teller]:
    from exporter.simulate.lookups import Asking
    from exporter.simulate.resolver import ResolverTeller

    where = Path(target) if "/" in target else parse_target(target)
    teller = ResolverTeller(Asking(story.lookups, now * 1000, seed), where)
    try:
        yield teller
    finally:
        teller.close()
        if teller.lost:
            typer.echo(f"{teller.lost} DNS queries were not taken at {target}", err=True)


def _served(story: Story, now: int, seed: int, port: int, opened: ExitStack) -> Teller:
    from prometheus_client import CollectorRegistry, start_http_server

    from exporter.simulate.telemetry import SiteMetrics, Telemetry

    metrics = SiteMetrics(Telemetry(story, now * 1000, seed))
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        fail(f"flow-exporter simulate: 127.0.0.1:{port}: {error.strerror}", 1)
    opened.callback(server.shutdown)
    typer.echo(f"Metrics: http://127.0.0.1:{server.server_port}/metrics", err=True)
    return metrics


def _chosen(text: str, now: int, *, told_by_hour: bool) -> tuple[Scenario, int]:
    """A scenario and when it began or begins, in seconds since the epoch."""
    from exporter.simulate.scenarios import SCENARIOS

    name, _, when = text.partition("@")
    if name not in SCENARIOS:
        raise typer.BadParameter(f"no scenario is named {name!r}: {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    if when:
        try:
            is_length = when[-1:].isalpha() and when[-1] != "Z"
            return scenario, now - parse_length(when) if is_length else parse_moment(when)
        except ValueError as error:
            raise typer.BadParameter(f"{text}: {error}") from error
    if told_by_hour:
        today = now // _DAY * _DAY + int(scenario.hour * 3600)
        return scenario, today if today <= now else today - _DAY
    return scenario, now


def _length(option: str, text: str) -> int:
    try:
        return parse_length(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def _show(totals: dict[str, Totals], agents_to: str, *, as_json: bool) -> None:
    lost = sum(total.lost for total in totals.values())
    if lost:
        typer.echo(f"{lost} messages of agents were not taken at {agents_to}", err=True)
    if as_json:
        typer.echo(json.dumps({name: asdict(total) for name, total in totals.items()}))
        return
    for name, total in totals.items():
        typer.echo(
            f"{name:8} {total.messages} messages, {total.flows} flows, "
            f"{total.bytes} bytes, {total.packets} packets"
        )


def _text(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
