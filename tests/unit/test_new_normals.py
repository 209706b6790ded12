"""New normals that do nothing are told by their lines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from exporter.policies.model import Policy
from exporter.policies.new_normal import (
    NewNormal,
    add_new_normal,
    idle_new_normals,
    load_new_normals,
)

_ENTRY = """\
  - policy: {policy}
    key: {{{key}: '1'}}
    since: {since}
    p05: 1
    p50: 1
    p95: 1
"""
_SINCE = datetime(2025, 3, 1, tzinfo=UTC)


def test_each_that_does_nothing_is_told_unless_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "new-normal.yaml"
    forgotten = datetime(2025, 1, 1, tzinfo=UTC)
    told = [
        ("known", "src_addr", _SINCE),
        ("gone", "src_addr", _SINCE),
        ("known", "dst_port", _SINCE),
        ("gone", "src_addr", forgotten),
        ("gone", "src_addr", _SINCE),
    ]
    file.write_text(
        "new_normal:\n"
        + "".join(
            _ENTRY.format(policy=policy, key=key, since=since.isoformat())
            for policy, key, since in told
        )
    )
    policy = Policy.model_validate(
        {"name": "known", "dimensions": ["src_addr"], "measure": "bits_per_second", "top": 1}
        | {"minimum": 0, "bounds": {"above": {"static": 1}}, "dashboard": "flow-explorer"}
    )
    idle = idle_new_normals(file, load_new_normals(file), [policy], _SINCE.timestamp() + 60)
    nothing = "this new normal does nothing"
    assert idle == [
        f"{file}:8: no policy is named 'gone': {nothing}",
        f"{file}:15: policy known has no dimension 'dst_port': {nothing}",
        f"{file}:26: no policy is named 'gone': {nothing}",
    ]


def test_of_those_that_are_said_at_once_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "new-normal.yaml"
    keys = [{"dst_addr": f"10.0.0.{number}"} for number in range(30)]

    def say(key: dict[str, str]) -> None:
        add_new_normal(file, NewNormal(policy="p", key=key, since=_SINCE, p05=1, p50=2, p95=3))

    with ThreadPoolExecutor(8) as people:
        list(people.map(say, keys))
    assert sorted(str(entry.key) for entry in load_new_normals(file)) == sorted(map(str, keys))
