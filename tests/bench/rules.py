"""What the rules cost: the real Prometheus evaluates all groups for many keys.

``python -m tests.bench.rules --keys 10000`` writes the history that the rules look up, tells that
many values to one Prometheus with the rules and to one without, and prints how long each group
takes beside its interval, and the CPU time that the rules cost: of the one less that of the other.
"""

from __future__ import annotations

import argparse
import http.server
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.policies.blocks import write_blocks
from exporter.policies.past import HOUR_METRIC, Labels, Sample
from exporter.resources import resource
from tests.support.prometheus import Prometheus, running_prometheus

_RULES = ("policies.yml", "baselines.yml")
_LOOKED_UP = [hours * 3600 for hours in (24, 48, 72, 96, 144, 168, 336, 504, 672)]
_TOTALS = (
    "prometheus_rule_evaluation_failures_total",
    "prometheus_tsdb_head_series",
    "process_resident_memory_bytes",
)
_MISSED = "prometheus_rule_group_iterations_missed_total"
#: The slowest group but one has run by then, and there are bands.
_WARM_UP_SECONDS = 360
_SETTINGS = """\
flow_policy_minimum{policy="bench"} 1
flow_policy_static_threshold{policy="bench",bound="above"} 1e6
flow_policy_baseline_ratio{policy="bench",bound="above"} 3
flow_policy_baseline_ratio{policy="bench",bound="below"} 0.5
flow_policy_breach_needed{policy="bench",of="5m"} 2
flow_policy_info{policy="bench",severity="info",team="t",incident="i",dashboard="d",\
measure="bits_per_second",combine="all",no_baseline="skip"} 1
"""


def _labels(key: int) -> Labels:
    return (("policy", "bench"), ("dst_addr", f"10.{key >> 16}.{key >> 8 & 255}.{key & 255}"))


def _history(keys: int, now: int, back: int) -> Iterator[Sample]:
    """The recorded hours around one look-up."""
    for time_ in range(now - back, now - back + 3601, 1800):
        for key in range(keys):
            for quantile, value in (("0.05", 90.0), ("0.5", 100.0), ("0.95", 120.0)):
                yield Sample(HOUR_METRIC, (*_labels(key), ("quantile", quantile)), time_, value)


def _last_hour(keys: int, now: int) -> Iterator[Sample]:
    for time_ in range(now - 3600, now, 60):
        for key in range(keys):
            yield Sample("key:flow_policy_value:clamped", _labels(key), time_, 100.0)


class _Metrics(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _own_metrics(prometheus: Prometheus) -> list[tuple[str, dict[str, str], float]]:
    """What Prometheus tells of itself."""
    with urllib.request.urlopen(f"{prometheus.url}/metrics") as answer:
        text = answer.read().decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _total(own: list[tuple[str, dict[str, str], float]], name: str) -> float:
    return sum(value for found, _, value in own if found == name)


def _cpu_seconds(prometheus: Prometheus) -> float:
    return _total(_own_metrics(prometheus), "process_cpu_seconds_total")


def measure(keys: int, seconds: int, folder: Path) -> None:
    """Run the rules at their intervals for ``seconds`` and print what they took."""
    now = int(time.time()) // 1800 * 1800
    data = folder / "with" / "data"
    data.mkdir(parents=True)
    (folder / "without" / "data").mkdir(parents=True)
    for back in _LOOKED_UP:
        write_blocks(_history(keys, now, back), data)
    write_blocks(_last_hour(keys, int(time.time())), data)
    files = [resource(f"alerting/rules/{name}") for name in _RULES]
    intervals = {
        group["name"]: group.get("interval", "1m")
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
    }
    lines = []
    for key in range(keys):
        labels = ",".join(f'{name}="{text}"' for name, text in _labels(key))
        lines.append(f"flow_policy_value{{{labels}}} {100 + key % 20}\n")
    _Metrics.body = ("".join(lines) + _SETTINGS).encode()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "1m"},
        "scrape_configs": [
            {"job_name": "exporter", "static_configs": [
                {"targets": [f"127.0.0.1:{server.server_address[1]}"]}]},
        ],
    }  # fmt: skip
    with (
        running_prometheus(folder / "without", configuration) as idle,
        running_prometheus(
            folder / "with", configuration | {"rule_files": [str(file) for file in files]}
        ) as prometheus,
    ):
        time.sleep(_WARM_UP_SECONDS)
        began, before, scraped = time.monotonic(), _cpu_seconds(prometheus), _cpu_seconds(idle)
        time.sleep(seconds)
        passed = time.monotonic() - began
        used, scraped = _cpu_seconds(prometheus) - before, _cpu_seconds(idle) - scraped
        own = _own_metrics(prometheus)
        (bands,) = prometheus.query("count(key:flow_policy_baseline:upper)", time.time())
    server.shutdown()
    print(f"{keys} keys; seconds that the latest evaluation took, of its interval:")
    for name, told, value in own:
        if name == "prometheus_rule_group_last_duration_seconds":
            group = told["rule_group"].rpartition(";")[2]
            print(f"  {group:28} {value:6.2f} of {intervals[group]}")
    failures, series, memory = (_total(own, name) for name in _TOTALS)
    if missed := _total(own, _MISSED):
        print(f"  too little CPU time: {missed:.0f} evaluations were left out, what they cost too")
    print(
        f"  {bands['value'][1]} bands, {failures:.0f} failures, {series:.0f} series in memory, "
        f"{memory / 1e6:.0f} MB\n"
        f"  the rules used {(used - scraped) / passed * 60:.1f} s of CPU time a minute, "
        f"{(used - scraped) / passed:.1%} of a core; scrapes and storage {scraped / passed:.1%}; "
        f"load {os.getloadavg()[1]:.0f}"
    )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=900)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-rules-") as folder:
        measure(arguments.keys, arguments.seconds, Path(folder))


if __name__ == "__main__":
    main()
