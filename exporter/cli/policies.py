"""``flow-exporter policies``: what is watched, whether it can be, and what it reads now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.connection import connected
from exporter.cli.output import JsonOption, fail, show_json, show_table
from exporter.meant import instead

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.policies.model import Policy, PolicySet

policies_app = typer.Typer(help="List, check and try policies.", no_args_is_help=True)
app.add_typer(policies_app, name="policies")

FileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="Policies; else the configuration's, else the shipped ones."),
]


@policies_app.command("list")
def list_policies(
    config: ConfigOption = None, file: FileOption = None, as_json: JsonOption = False
) -> None:
    """Show the policies, a line each.

    Try it:

    flow-exporter policies list --file alerting/policies.yaml
    """
    from rich.table import Table

    policies = load_chosen(read_config(config), file).policies
    if as_json:
        show_json([policy.model_dump(mode="json") for policy in policies])
        return
    table = Table("policy", "measure", "by", "alerts", "severity", "team", box=None)
    for policy in policies:
        table.add_row(
            policy.name,
            policy.measure,
            ", ".join(policy.dimensions),
            _bounds(policy),
            policy.severity,
            policy.team,
        )
    show_table(table)


@policies_app.command("check")
def check_policies(
    config: ConfigOption = None,
    file: FileOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the file only; connect to nothing.")
    ] = False,
) -> None:
    """Say what is wrong with the policies, and where.

    Exit codes: 0 all is well, 1 ClickHouse does not answer, 2 a policy is wrong.

    Try it:

    flow-exporter policies check --offline --file alerting/policies.yaml
    """
    from exporter.policies.check import refused_queries

    settings = read_config(config)
    loaded = load_chosen(settings, file)
    policies = loaded.policies
    faults: list[str] = []
    if not offline:
        with connected(settings.clickhouse) as client:
            faults = refused_queries(client, chosen_path(settings, file), loaded)
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(2)
    typer.echo(f"ok: {len(policies)} policies in {chosen_path(settings, file)}")


@policies_app.command("evaluate")
def evaluate_policy(
    name: Annotated[str, typer.Argument(help="The policy.")],
    config: ConfigOption = None,
    file: FileOption = None,
    ago: Annotated[
        float, typer.Option(min=0, help="End of the window, seconds before the present.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Evaluate one policy now and show its keys, the largest first. Pinned ones without traffic
    are there, at 0.

    Try it:

    flow-exporter policies evaluate host_bits --config flow-exporter.yaml
    """
    import time

    from rich.table import Table

    from exporter.policies.asking import rows_of
    from exporter.policies.keys import FollowedKeys
    from exporter.policies.list_store import store_lists
    from exporter.policies.query import policy_query

    settings = read_config(config)
    loaded = load_chosen(settings, file)
    policy = _named(loaded, name)
    end = time.time() - ago
    query = policy_query(policy, int(end * 1000), lists=loaded.loaded_lists)
    with connected(settings.clickhouse) as client:
        store_lists(client, policy, loaded.loaded_lists)
        rows = client.query(query.sql, parameters=query.parameters).result_rows
    followed = FollowedKeys(policy)
    followed.update(rows_of(policy, rows), end)
    keys = [
        ({each: key.labels.get(each, "") for each in policy.dimensions}, key.value)
        for key in sorted(followed, key=lambda key: key.value, reverse=True)
    ]
    if as_json:
        show_json([labels | {"value": value} for labels, value in keys])
        return
    table = Table(*policy.dimensions, box=None)
    table.add_column(policy.measured.unit, justify="right")
    for labels, value in keys:
        table.add_row(*labels.values(), f"{value:,.10g}")
    show_table(table)
    typer.echo(f"{len(keys)} keys; alerts {_bounds(policy)}")


@policies_app.command("new-normal")
def say_new_normal(
    name: Annotated[str, typer.Argument(help="The policy.")],
    key: Annotated[
        list[str],
        typer.Argument(metavar="DIMENSION=VALUE…", help="The key, as the alert's labels show it."),
    ],
    config: ConfigOption = None,
    file: FileOption = None,
    hours: Annotated[
        int, typer.Option(min=1, max=7 * 24, help="For how long the level has been so.")
    ] = 6,
) -> None:
    """Make the present level of a policy's key its baseline.

    The key's values of the last hours are taken for what is usual, in place of its history, until
    it has a history of its new level. Written where `policies.new_normal_file` says, else beside
    the policies; reload the collector then. Exit codes: 0 done, 1 it could not be written or
    ClickHouse failed, 2 no such policy or key.

    Try it:

    flow-exporter policies new-normal host_bits dst_addr=10.0.1.13 --hours 12 -c flow-exporter.yaml
    """
    import time
    from datetime import UTC, datetime

    from exporter.config import ConfigError
    from exporter.policies.list_store import store_lists
    from exporter.policies.new_normal import NewNormal, add_new_normal
    from exporter.policies.past import PolicyPast, quantile_of, values_by_key

    settings = read_config(config)
    path = chosen_path(settings, file)
    loaded = load_chosen(settings, file)
    policy = _named(loaded, name)
    wanted = dict(_parse_label(text) for text in key)
    end = int(time.time()) // 60 * 60 - 60
    start = end - hours * 3600
    with connected(settings.clickhouse) as client:
        store_lists(client, policy, loaded.loaded_lists)
        past = PolicyPast(client, policy, start, loaded.loaded_lists)
        values = values_by_key(past.samples(end))
    found = [labels for labels in values if wanted.items() <= dict(labels).items()]
    if len(found) != 1:
        shown = "; ".join(" ".join(f"{n}={t}" for n, t in labels) for labels in found[:10])
        if found:
            fail(f"{len(found)} keys match: {shown}", 2)
        fail(
            f"{name} told no such key in the last {hours} hours; `flow-exporter policies evaluate "
            f"{name}` lists those of now",
            2,
        )
    ordered = sorted(values[found[0]])
    p05, p50, p95 = (quantile_of(ordered, quantile) for quantile in (0.05, 0.5, 0.95))
    written = settings.policies.model_copy(update={"file": str(path)}).new_normals
    try:
        add_new_normal(
            written,
            NewNormal(
                policy=name,
                key=dict(found[0]),
                since=datetime.fromtimestamp(start, UTC),
                p05=p05,
                p50=p50,
                p95=p95,
            ),
        )
    except (ConfigError, OSError) as error:
        fail(str(error), 1)
    unit = policy.measured.unit
    typer.echo(f"{written}: usual is {p50:,.10g} {unit}, from {p05:,.10g} to {p95:,.10g}")


def _parse_label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not DIMENSION=VALUE")
    return name, value


def chosen_path(settings: Config, file: Path | None) -> Path:
    """``file``, else what the configuration names, else the shipped policies."""
    from exporter.resources import resource

    configured = Path(settings.policies.file) if settings.policies.file else None
    return file or configured or resource("alerting/policies.yaml")


def load_chosen(settings: Config, file: Path | None) -> PolicySet:
    """The policies there, or an error on standard error and exit code 2."""
    from exporter.config import ConfigError
    from exporter.policies.model import load_policies

    try:
        return load_policies(chosen_path(settings, file))
    except ConfigError as error:
        fail(str(error), 2)


def _named(policies: PolicySet, name: str) -> Policy:
    known = {policy.name: policy for policy in policies.policies}
    if name not in known:
        fail(f"no policy is named {name!r}{instead(name, known)}", 2)
    return known[name]


def _bounds(policy: Policy) -> str:
    given = [("", policy.bounds)] + ([("critical ", policy.critical)] if policy.critical else [])
    sides = []
    for prefix, word, bound in ((p, *each) for p, bounds in given for each in bounds.sides):
        tests = []
        if bound.static is not None:
            tests.append(f"{bound.static:,.10g}")
        if bound.baseline_ratio is not None:
            tests.append(f"{bound.baseline_ratio:g} x baseline")
        joint = " and " if policy.combine == "all" else " or "
        sides.append(f"{prefix}{word} {joint.join(tests)}")
    return "; ".join(sides)
