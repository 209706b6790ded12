"""The files of ``alerting/`` with the addresses of this machine in place of compose's names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exporter.resources import resource

_NOTE = "# Written by `flow-exporter up` from alerting/{name}.\n"


@dataclass(frozen=True, slots=True)
class AlertingFiles:
    """Configuration files to start Prometheus and Alertmanager with."""

    prometheus: Path
    alertmanager: Path


def render_alerting(
    folder: Path,
    *,
    prometheus: str,
    alertmanager: str,
    collector: str,
    store: str,
    grafana_url: str,
    evaluation_interval: str = "",
    baseline_interval: str = "",
    demo: str = "",
) -> AlertingFiles:
    """Write both configurations into ``folder``.

    ``prometheus``, ``alertmanager``, ``collector`` and ``store`` are ``host:port``; an empty
    ``store`` is not scraped. ``evaluation_interval`` replaces that of the rules, which otherwise
    run every minute; ``baseline_interval`` that of the rules that look weeks and days back, every 4
    and 15 minutes, so that baselines are known sooner after a start. ``demo`` is where the
    simulator serves metrics of the demo's nodes and application; with it the application's own
    alert is loaded, too.
    """
    addresses = {
        "exporter:9105": collector,
        "alertmanager:9093": alertmanager,
        "clickhouse:9363": store,
        "localhost:9090": prometheus,
        "http://localhost:3000": grafana_url,
    }
    source = resource("alerting")
    made = _replaced(_read(source / "prometheus.yml"), addresses)
    made["rule_files"] = [str(source / name) for name in made["rule_files"]]
    made["global"]["external_labels"]["docs_url"] = str(source.parent / "docs")
    if not store:
        made["scrape_configs"] = [
            job for job in made["scrape_configs"] if job["job_name"] != "store"
        ]
    if demo:
        made["rule_files"].append(str(source / "demo" / "*.yml"))
        made["scrape_configs"].append(_demo_job(demo))
    if baseline_interval:
        made["rule_files"] = _quicker(made["rule_files"], folder / "rules", baseline_interval)
    if evaluation_interval:
        made["global"]["evaluation_interval"] = evaluation_interval
    notified = _replaced(_read(source / "alertmanager.yml"), addresses)
    notified["templates"] = [str(source / name) for name in notified["templates"]]
    return AlertingFiles(
        _write(folder / "prometheus.yml", made), _write(folder / "alertmanager.yml", notified)
    )


def _quicker(patterns: list[str], folder: Path, interval: str) -> list[str]:
    """Copies of rule files, of which the groups with an interval of their own have this one."""
    folder.mkdir(exist_ok=True, mode=0o700)
    copies = []
    for pattern in patterns:
        for file in sorted(Path(pattern).parent.glob(Path(pattern).name)):
            document = _read(file)
            for group in document["groups"]:
                if "interval" in group:
                    group["interval"] = interval
            copies.append(str(_write(folder / file.name, document)))
    return copies


def _demo_job(target: str) -> dict[str, Any]:
    # One process tells for many nodes, whose names are in its labels.
    return {
        "job_name": "demo",
        "honor_labels": True,
        "static_configs": [{"targets": [target]}],
    }


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


def _write(file: Path, document: dict[str, Any]) -> Path:
    text = yaml.safe_dump(document, sort_keys=False, width=120)
    file.write_text(_NOTE.format(name=file.name) + text, encoding="utf-8")
    return file


def _replaced(value: Any, addresses: dict[str, str]) -> Any:
    """``value`` with every address in its texts replaced."""
    if isinstance(value, dict):
        return {key: _replaced(inner, addresses) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, addresses) for inner in value]
    if isinstance(value, str):
        for old, new in addresses.items():
            value = value.replace(old, new)
    return value
