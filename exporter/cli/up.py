"""``flow-exporter up``: everything on one machine."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.output import fail, of_files
from exporter.cli.times import parse_length
from exporter.config import Config, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.up.plan import Plan
    from exporter.up.ports import HeldPorts
    from exporter.up.supervisor import Child, Task


@app.command()
def up(
    config: ConfigOption = None,
    demo: Annotated[
        bool | None,
        typer.Option(
            help="Send demo traffic.", show_default="demo traffic only without a configuration"
        ),
    ] = None,
    demo_history: Annotated[
        str,
        typer.Option(
            metavar="LENGTH",
            help="How much of the past the demo has, such as 2d; 0: none. Four weeks take some "
            "minutes of work, at the first start.",
        ),
    ] = "4w",
    data_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for all data, settings and passwords; the demo has its own in it."
        ),
    ] = Path(".data"),
) -> None:
    """Run store, collector, Prometheus, Alertmanager and, where installed, Grafana.

    All of them listen on loopback only, on their usual ports or the next free ones. Programs that
    die are started again. Ctrl-C ends everything, in an order that loses nothing.

    Try it:

    flow-exporter up

    flow-exporter up --no-demo --config flow-exporter.yaml
    """
    from rich.console import Console

    from exporter.up.demo import make_demo
    from exporter.up.errors import UpError
    from exporter.up.lock import locked
    from exporter.up.plan import make_plan
    from exporter.up.ports import HeldPorts, Ports, check_udp

    console = Console(highlight=False, soft_wrap=True)
    with_demo = config is None if demo is None else demo
    settings = read_config(config)
    past = _length(demo_history)
    # The demo's data are apart, so that nothing of it is among one's own flows later.
    data, told = data_dir.absolute() / ("demo" if with_demo else ""), None
    try:
        with locked(data), HeldPorts() as ports:
            if not settings.receive.reuse_port:
                check_udp(settings.receive.udp)
            if with_demo:
                settings = _with_demo(settings, ports)
                told = make_demo(data, int(time.time()), past)
            plan = make_plan(settings, data, Ports.choose(settings, ports), demo=told)
            asyncio.run(_run(plan, ports, console))
    except (ConfigError, UpError) as error:
        fail(f"flow-exporter up: {error}", 1)
    except OSError as error:
        fail(f"flow-exporter up: {of_files(error)}", 1)


def _length(text: str) -> int:
    try:
        return 0 if text == "0" else parse_length(text)
    except ValueError as error:
        raise typer.BadParameter(f"--demo-history: {error}") from error


def _with_demo(config: Config, ports: HeldPorts) -> Config:
    """``config`` with the demo's names for what it does not name itself, and all receivers."""
    from exporter.simulate.demo import demo_config

    document = config.model_dump(mode="json", exclude_unset=True)
    receive = document.setdefault("receive", {})
    if config.receive.grpc is None:
        receive["grpc"] = {"port": ports.pick("collector", 2056)}
    if not any(listener.port for listener in config.receive.dnstap):
        receive["dnstap"] = [*receive.get("dnstap", []), {"port": ports.pick("collector", 6053)}]
    for section, entries in demo_config().items():
        known = {_identity(entry) for entry in document.get(section, [])}
        document[section] = document.get(section, []) + [
            entry for entry in entries if _identity(entry) not in known
        ]
    return Config.model_validate(document)


def _identity(entry: dict[str, object]) -> tuple[object, ...]:
    return tuple(entry.get(key) for key in ("address", "port", "protocol")) + (
        () if "address" in entry else (entry.get("name"),)
    )


async def _run(plan: Plan, ports: HeldPorts, console: Console) -> None:
    from rich.markup import escape

    from exporter.up.errors import UpError
    from exporter.up.lines import readable, shortened
    from exporter.up.supervisor import StartError, Supervisor, Task

    width = max(len(step.name) for step in plan.steps)

    def log(name: str, line: str) -> None:
        for part in readable(line).splitlines():
            console.print(f"[cyan]{name:<{width}}[/] │ {escape(shortened(part))}")

    supervisor = Supervisor(log)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)

    async def take(step: Child | Task) -> None:
        if isinstance(step, Task):
            log(step.name, step.about)
            try:
                await supervisor.run(step)
            except StartError as error:
                raise UpError(f"{error}\nThe next start goes on where this one stopped.") from error
        else:
            log(step.name, "starting")
            ports.release(step.name)
            await supervisor.start(step)

    try:
        for step in plan.steps:
            taking = asyncio.create_task(take(step))
            waiting = asyncio.create_task(ended.wait())
            await asyncio.wait({taking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if ended.is_set():
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
                return
            await taking
        print_places(plan, console)
        await ended.wait()
    finally:
        console.print("Ending everything")
        await supervisor.stop()
        console.print("All ended")


def print_places(plan: Plan, console: Console) -> None:
    """Say where everything is that runs."""
    from rich.markup import escape

    # No table: it would cut paths, which are for copying.
    width = max(len(what) for what, _ in plan.places)
    console.print("Everything runs. Where to look:")
    for what, where in plan.places:
        console.print(f"  [cyan]{what:<{width}}[/]  {escape(where)}")
    if not any(step.name == "grafana" for step in plan.steps):
        console.print(
            "Grafana is not installed here, so the dashboards are not shown: "
            "docs/how-to/provision-grafana.md tells how to add it."
        )
    with_demo = any(step.name == "demo" for step in plan.steps)
    when = " (the first come in two to six minutes)" if with_demo else ""
    program = Path(sys.executable).parent / "flow-exporter"
    console.print(f"What alerts{when}:", markup=False)
    console.print(f"  {program} incidents list --firing --config {plan.config_file}", markup=False)
    console.print("Ctrl-C ends all of it.")
