"""Every piece of YAML that the documentation shows is what it is said to be."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import Config, load_config
from exporter.config.name_files import load_devices
from exporter.web_config import WebConfig
from tests.support.programs import program

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^ *```yaml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
#: Policies (test_docs_policies) and pieces of alertmanager.yml and rules (test_alerting).
ELSEWHERE = {
    "docs/how-to/planned-changes.md",
    "docs/how-to/send-notifications.md",
    "docs/how-to/write-a-policy.md",
    "docs/reference/policies.md",
}
BLOCKS = [
    pytest.param(textwrap.dedent(block), id=f"{page.relative_to(ROOT)}-{number}")
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if str(page.relative_to(ROOT)) not in ELSEWHERE
    for number, block in enumerate(_BLOCK.findall(page.read_text()))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_shown_as_yaml_is_taken(block: str, tmp_path: Path) -> None:
    document: Any = yaml.safe_load(block)
    file = tmp_path / "shown.yaml"
    file.write_text(block)
    if isinstance(document, list):
        assert load_devices(file)
    elif "scrape_configs" in document:
        command = [program("promtool"), "check", "config", "--syntax-only", str(file)]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        assert outcome.returncode == 0, outcome.stderr
    elif "tls_server_config" in document:
        users = {
            name: text.replace("…", "." * 53) for name, text in document["basic_auth_users"].items()
        }
        WebConfig.model_validate(document | {"basic_auth_users": users})
    else:
        assert document.keys() <= Config.model_fields.keys()
        load_config(file)
