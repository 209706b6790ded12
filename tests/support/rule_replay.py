"""Rule files over weeks of the past in minutes: each rule by range queries of a real Prometheus.

Prometheus evaluates rules at the present only, and ``promtool test rules`` takes one step of time
after the other. Here one range query evaluates a rule over half a day, its result is written back
under the rule's name, and the next rule sees it: in the order in which rules read one another.
What a rule reads of itself or of later rules it reads with an offset that is longer than the half
day. Groups run at full multiples of their intervals.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.remote_write import STALE, Series, write

#: Seconds that one query covers.
CHUNK = 12 * 3600

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_COMMENT = re.compile(r"#.*")
_NAME = re.compile(
    r"(?<![\w:])([a-z]\w*(?::\w+)+)(?:\{[^}]*\})?(?:\[[^\]]*\])?(?:\s*offset\s+(\w+))?"
)
# Without blocks on disk: what is written stays in memory, and is seen at once.
_FLAGS = (
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.min-block-duration=100d",
    "--storage.tsdb.max-block-duration=100d",
    "--storage.tsdb.retention.time=200d",
)

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rule:
    """A rule of a group; ``seconds`` is the group's interval, ``alert`` whether it is an alert."""

    name: str
    expression: str
    labels: Mapping[str, str]
    seconds: int
    alert: bool
    held: int
    kept: int

    def reads(self, names: set[str]) -> set[str]:
        """Those of ``names`` that it reads of the same half day."""
        found = set()
        for name, offset in _NAME.findall(_STRING.sub('""', _COMMENT.sub("", self.expression))):
            if name in names:
                if not offset:
                    found.add(name)
                elif _seconds(offset) < CHUNK:
                    raise ValueError(f"{self.name} reads {name} of {offset} ago")
        return found


def load_rules(*files: Path) -> list[Rule]:
    """The rules of ``files``, those that are read before those that read them.

    Raises:
        ValueError: rules read one another in a circle.
    """
    rules = [
        Rule(
            rule.get("record") or rule["alert"],
            rule["expr"],
            rule.get("labels", {}),
            _seconds(group.get("interval", "1m")),
            "alert" in rule,
            _seconds(rule.get("for", "0s")),
            _seconds(rule.get("keep_firing_for", "0s")),
        )
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    ordered: list[Rule] = []
    while rules:
        waited_for = {rule.name for rule in rules}
        ready = [rule for rule in rules if not rule.reads(waited_for)]
        if not ready:
            raise ValueError(f"in a circle: {sorted(waited_for)}")
        ordered += ready
        rules = [rule for rule in rules if rule not in ready]
    return ordered


class Alerts:
    """When alerts fired: by their name and labels, whether they did in each minute."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self._minutes = (end - start) // 60
        self._true: dict[Key, NDArray[np.bool_]] = {}
        self._rules: dict[str, Rule] = {}

    def add(self, rule: Rule, series: Series) -> None:
        """The expression was true at these times, where the value is not NaN."""
        self._rules[rule.name] = rule
        key = tuple(sorted({**series.labels, **rule.labels, "alertname": rule.name}.items()))
        true = self._true.setdefault(key, np.zeros(self._minutes, np.bool_))
        true[(series.times - self.start) // 60] = True

    def firing(self) -> Iterator[tuple[dict[str, str], NDArray[np.bool_]]]:
        """The labels of each alert, and each minute whether it fired."""
        for key, true in self._true.items():
            rule = self._rules[dict(key)["alertname"]]
            yield dict(key), _fires(true, rule.held // 60, rule.kept // 60)


def _fires(true: NDArray[np.bool_], held: int, kept: int) -> NDArray[np.bool_]:
    """True for longer than ``held`` minutes; and for ``kept`` minutes after it was last true."""
    fires = np.zeros_like(true)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], true, [False])).astype(np.int8)))
    ended = -1
    for begin, end in edges.reshape(-1, 2):
        # Kept firing, it does not have to wait again.
        first = begin if begin <= ended else begin + held
        if first < end:
            ended = end + kept
            fires[first:ended] = True
    return fires


class Replay:
    """A running Prometheus that rules are evaluated on."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.prometheus = prometheus
        #: Samples written, and read.
        self.samples = 0
        # Per rule, the labels of what its last evaluation gave.
        self._last: dict[int, set[Key]] = {}

    def write(self, series: Iterable[Series]) -> None:
        """Store samples; those of one series in the order of their times."""
        self.samples += write(self.prometheus.url, series)

    def run(self, rules: Iterable[Rule], start: int, end: int) -> Alerts:
        """Evaluate ``rules`` from ``start`` up to but not including ``end``."""
        rules = list(rules)
        alerts = Alerts(start, end)
        for begin in range(start, end, CHUNK):
            self._chunk(rules, alerts, begin, min(begin + CHUNK, end))
        return alerts

    def _chunk(self, rules: list[Rule], alerts: Alerts, start: int, end: int) -> None:
        waiting = list(rules)
        with ThreadPoolExecutor(2) as pool:
            while waiting:
                names = {rule.name for rule in waiting}
                ready = [rule for rule in waiting if not rule.reads(names)]
                waiting = [rule for rule in waiting if rule not in ready]
                asked = [pool.submit(self.ask, r.expression, start, end, r.seconds) for r in ready]
                for rule, answer in zip(ready, asked, strict=True):
                    found = answer.result()
                    self.samples += sum(len(one.times) for one in found)
                    if rule.alert:
                        for one in found:
                            alerts.add(rule, one)
                    else:
                        self._record(rule, found, start, end)

    def _record(self, rule: Rule, found: list[Series], start: int, end: int) -> None:
        """Store a rule's result under its name; where a series ends, Prometheus says so."""
        first, last = (-(-time // rule.seconds) * rule.seconds for time in (start, end))
        # A rule of several branches may give the same series under several names of metrics.
        parts: dict[Key, list[Series]] = {}
        for one in found:
            key = tuple(sorted({**one.labels, "__name__": rule.name, **rule.labels}.items()))
            parts.setdefault(key, []).append(one)
        begun: set[Key] = set()
        going_on: set[Key] = set()
        series = []
        for key, same in parts.items():
            times = np.concatenate([one.times for one in same])
            order = np.argsort(times)
            times = times[order]
            values = np.concatenate([one.values for one in same])[order]
            series.append(_with_ends(Series(dict(key), times, values), rule.seconds, last))
            if times[0] == first:
                begun.add(key)
            if times[-1] == last - rule.seconds:
                going_on.add(key)
        ended = self._last.get(id(rule), set()) - begun
        stale = (np.array([first]), np.array([STALE]))
        self.write([*(Series(dict(key), *stale) for key in ended), *series])
        self._last[id(rule)] = going_on

    def ask(self, expression: str, start: int, end: int, step: int = 60) -> list[Series]:
        """The series of a range query from ``start`` up to but not including ``end``."""
        first = -(-start // step) * step
        query = urllib.parse.urlencode(
            {"query": expression, "start": first, "end": end - 1, "step": step}
        )
        url = f"{self.prometheus.url}/api/v1/query_range"
        with urllib.request.urlopen(url, data=query.encode()) as answer:
            return list(_parse(answer.read()))


def _parse(body: bytes) -> Iterator[Series]:
    """The series of an answer; ``json`` would make an object of each number."""
    for part in body.split(b'{"metric":')[1:]:
        metric, _, rest = part.partition(b',"values":[[')
        numbers = rest.partition(b"]]")[0].replace(b"],[", b",").replace(b'"', b"")
        pairs = np.fromstring(numbers, sep=",").reshape(-1, 2)
        yield Series(json.loads(metric), pairs[:, 0].astype(np.int64), pairs[:, 1].copy())


def _with_ends(series: Series, step: int, end: int) -> Series:
    labels, times, values = series
    gaps = np.flatnonzero(np.diff(times, append=end) > step) + 1
    return Series(
        labels, np.insert(times, gaps, times[gaps - 1] + step), np.insert(values, gaps, STALE)
    )


def _seconds(text: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))


@contextmanager
def replay(folder: Path, configuration: Mapping[str, Any] | None = None) -> Iterator[Replay]:
    """A Prometheus for a replay, with its data in ``folder``."""
    (folder / "data").mkdir(exist_ok=True)
    with running_prometheus(folder, configuration, *_FLAGS) as prometheus:
        yield Replay(prometheus)
