"""``python -m tests.bench.score``: how quiet the baselines are, and what they find.

First four weeks of normal traffic of all shipped policies: false alarms are counted, and bounded.
Then four weeks with labelled anomalies, which our rules and those of others are to find.
docs/reference/baseline-score.md says what is measured and how.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from exporter.policies.model import Policy, load_policies
from tests.bench.anomalies import Score, insert, score
from tests.support.prometheus import version
from tests.support.quiet_weeks import DAY, WEEK
from tests.support.remote_write import Series
from tests.support.rule_replay import Alerts, Replay, Rule, load_rules, replay
from tests.support.tracked import MONDAY, Key, keys_of, settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/baseline-score.md"
BEGIN, END = "<!-- score:begin -->", "<!-- score:end -->"
OURS = "these rules"
FIRST = 4 * WEEK
#: Of all minutes of all keys in quiet weeks, how many may alarm.
MOST_FALSE = 1e-4

#: Watches both sides, as generic as can be.
POLICY = Policy.model_validate(
    {
        "name": "score", "dimensions": ["dst_addr"], "measure": "bits_per_second",
        "window": "1m", "minimum": 1e6, "breach": {"minutes": 3, "of": 5},
        "bounds": {"above": {"baseline_ratio": 2}, "below": {"baseline_ratio": 0.5}},
    }
)  # fmt: skip
PEER_LABELS = {"anomaly_name": "bench", "anomaly_type": "requests", "anomaly_strategy": "adaptive"}


def our_rules() -> list[Rule]:
    """The rules as they are."""
    folder = ROOT / "alerting/rules"
    return load_rules(folder / "baselines.yml", folder / "policies.yml")


@contextmanager
def _replay() -> Iterator[Replay]:
    with tempfile.TemporaryDirectory(prefix="flow-score-") as folder, replay(Path(folder)) as run:
        yield run


def _ours(run: Replay, policies: list[Policy], keys: list[Key], last: int) -> Alerts:
    """Our rules from week five on, after four weeks of recorded hours."""
    run.write(series for key in keys for series in key.hours(0, FIRST))
    run.write(settings(policies, FIRST, last))
    run.write(key.told(FIRST, last) for key in keys)
    return run.run(our_rules(), MONDAY + FIRST * 60, MONDAY + last * 60)


@dataclass(frozen=True)
class Quiet:
    """What alarmed in normal traffic."""

    keys: int
    policies: int
    key_minutes: int
    false: Counter[tuple[str, str]]
    seconds: float

    @property
    def share(self) -> float:
        """Of all minutes of all keys."""
        return sum(self.false.values()) / self.key_minutes


def quiet(days: int, seed: int) -> Quiet:
    """Normal traffic of all shipped policies with a baseline."""
    began = time.monotonic()
    policies = [
        p for p in load_policies(ROOT / "alerting/policies.yaml").policies if p.has_baseline
    ]
    keys = keys_of(policies, 8, seed)
    last = FIRST + days * DAY
    with _replay() as run:
        alerts = _ours(run, policies, keys, last)
    false: Counter[tuple[str, str]] = Counter()
    for labels, minutes in alerts.firing():
        if minutes.any():
            false[labels["policy"], labels.get("dst_host", "most keys")] += int(minutes.sum())
    return Quiet(len(keys), len(policies), len(keys) * days * DAY, false, time.monotonic() - began)


def _firing(
    alerts: Alerts, names: tuple[str, ...], first: int
) -> dict[int, NDArray[np.bool_]]:  # fmt: skip
    """By key, in which minutes since ``first`` one of these alerts fired."""
    firing: dict[int, NDArray[np.bool_]] = {}
    skip = first - (alerts.start - MONDAY) // 60
    for labels, minutes in alerts.firing():
        if labels["alertname"] in names:
            key = int(labels["dst_addr"])
            firing[key] = firing.get(key, np.zeros(len(minutes) - skip, np.bool_)) | minutes[skip:]
    return firing


def replayed(
    per_habit: int, days: int, seed: int, peer: Path | None
) -> tuple[dict[str, Score], list[Key]]:
    """Each way of alerting on the same keys with the same anomalies."""
    keys = keys_of([POLICY] * per_habit, 8, seed)
    last = FIRST + days * DAY
    for place, key in enumerate(keys):
        key.labels = {"policy": POLICY.name, "dst_addr": str(place)}
    anomalies = insert(keys, FIRST, last, seed)
    ends = dict.fromkeys(range(len(keys)), last)
    ends |= {a.key: a.start + a.minutes for a in anomalies if a.kind == "level shift"}

    def scored(alerts: Alerts, *names: str) -> Score:
        return score(_firing(alerts, names, FIRST), anomalies, FIRST, last, ends)

    scores = {}
    before = FIRST - 8 * DAY
    with _replay() as run:
        alerts = _ours(run, [POLICY], keys, last)
        scores[OURS] = scored(alerts, "FlowPolicyAbove", "FlowPolicyBelow")
    with _replay() as run:
        run.write(_renamed(key, "bench_value", {}, before, last) for key in keys)
        alerts = run.run(
            load_rules(Path(__file__).with_name("peer_rules.yml")),
            MONDAY + FIRST * 60, MONDAY + last * 60,
        )  # fmt: skip
        scores["z-score, 7 days"] = scored(alerts, "ZScore7d")
        scores["z-score, 1 hour"] = scored(alerts, "ZScore1h")
    if peer is not None:
        with _replay() as run:
            run.write(_renamed(key, "bench_value", PEER_LABELS, before, last) for key in keys)
            alerts = run.run(load_rules(peer), MONDAY + before * 60, MONDAY + last * 60)
            scores["promql-anomaly-detection"] = scored(alerts, "AnomalyDetected")
    return scores, keys


def _renamed(key: Key, name: str, labels: dict[str, str], first: int, last: int) -> Series:
    own = {"__name__": name, "dst_addr": key.labels["dst_addr"]}
    return key.told(first, last)._replace(labels=own | labels)


def markdown(found: Quiet, scores: dict[str, Score], keys: list[Key], seed: int, days: int) -> str:
    """The tables of the page."""
    ours = scores[OURS]
    alarmed = [f"{policy} {habit} {minutes}" for (policy, habit), minutes in found.false.items()]
    lines = [
        f"{days} days, seed {seed}, Prometheus {version()}.",
        "",
        f"Quiet weeks: of {found.key_minutes:,} minutes of {found.keys} keys of {found.policies} "
        f"policies alarmed {sum(found.false.values()):,}{': ' if alarmed else ''}"
        f"{', '.join(sorted(alarmed))}.",
        "",
        f"{len(ours.anomalies)} anomalies in {len(keys)} keys:",
        "",
    ]
    who = list(scores)
    lines += _table(
        ["", *who],
        [
            ["found (recall)", *(f"{scores[w].recall:.0%}" for w in who)],
            ["precision", *(f"{scores[w].precision:.0%}" for w in who)],
            ["median delay, minutes", *(f"{scores[w].delay:.0f}" for w in who)],
            ["false alerts", *(f"{sum(scores[w].false_alerts.values()):,}" for w in who)],
            ["false key-minutes", *(f"{sum(scores[w].false_minutes.values()):,}" for w in who)],
            ["of quiet key-minutes", *(f"{scores[w].minutes:,}" for w in who)],
        ],
    )
    names = sorted({(a.kind, a.factor, a.name) for a in ours.anomalies})
    lines += ["", "Found, and the median delay, by the kind of anomaly:", ""]
    lines += _table(
        ["anomaly", "how many", *who],
        [
            [name, str(len(ours.of(name=name).anomalies))]
            + [_found(scores[w].of(name=name)) for w in who]
            for _, _, name in names
        ],
    )
    lines += ["", "Found, and false alerts, by the habit of the key:", ""]
    rows = []
    for habit in dict.fromkeys(key.habit for key in keys):
        places = {place for place, key in enumerate(keys) if key.habit == habit}
        row = [habit, str(len(ours.of(keys=places).anomalies))]
        for w in who:
            some = scores[w].of(keys=places)
            recall = f"{some.recall:.0%}, " if some.anomalies else ""
            row.append(f"{recall}{sum(some.false_alerts.values())} false")
        rows.append(row)
    lines += _table(["habit", "how many", *who], rows)
    return "\n".join(lines)


def _found(some: Score) -> str:
    return f"{some.recall:.0%}" + (f", {some.delay:.0f} min" if some.delays else "")


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [" | ".join(header), "---|" + "---:|" * (len(header) - 1), *map(" | ".join, rows)]
    return [f"| {line} |" if not line.endswith("|") else f"|{line}" for line in lines]


def main(
    days: Annotated[int, typer.Option(help="Days after the four weeks of history.")] = 28,
    per_habit: Annotated[int, typer.Option(help="Keys of each habit with anomalies.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed makes the same traffic.")] = 1,
    peer: Annotated[
        Path | None,
        typer.Option(
            envvar="PROMQL_ANOMALY_DETECTION",
            help="A copy of the repository grafana/promql-anomaly-detection.",
        ),
    ] = None,
    update_docs: Annotated[
        bool, typer.Option(help="Write the tables into docs/reference/baseline-score.md.")
    ] = False,
) -> None:
    """Score the baselines; fails where normal traffic alarms for more than a ten thousandth."""
    rules = peer / "rules/adaptive.yml" if peer else None
    if rules is None:
        typer.echo("promql-anomaly-detection is left out: name a copy of it with --peer", err=True)
    elif not rules.is_file():
        raise typer.BadParameter(f"{rules} is not there", param_hint="--peer")
    with ProcessPoolExecutor(2) as pool:
        quietly = pool.submit(quiet, days, seed)
        scores, keys = pool.submit(replayed, per_habit, days, seed, rules).result()
        found = quietly.result()
    text = markdown(found, scores, keys, seed, days)
    typer.echo(text)
    if update_docs:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    if found.share > MOST_FALSE:
        typer.echo(f"too many false alarms: {found.share:.4%} of all key-minutes", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
