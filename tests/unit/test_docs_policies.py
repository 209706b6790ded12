"""The policies that the how-to shows are policies."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from exporter.policies.model import load_policies

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/write-a-policy.md"
_BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def test_policies_of_the_how_to_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "threats.txt").write_text("192.0.2.0/24\n")
    names: list[str] = []
    for number, (_, block) in enumerate(_BLOCK.findall(PAGE.read_text())):
        text = textwrap.dedent(block)
        if "- name:" not in text:
            continue  # a part of a policy
        file = tmp_path / f"policies-{number}.yaml"
        file.write_text(text if "policies:" in text else f"policies:\n{text}")
        names += [policy.name for policy in load_policies(file).policies]
    assert {"database_clients", "backup_silent", "threat_traffic", "uplink_full"} <= set(names)
