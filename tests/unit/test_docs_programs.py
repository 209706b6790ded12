"""What pages ask Prometheus, and tell to type for its tools and Alertmanager's, is understood."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.simulate.telemetry import CPU_METRIC
from tests.support.programs import program

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
_FENCED = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_SELECTOR = re.compile(r'[a-z_:]*\{[^{}]*=[^{}]*"[^{}]*"\}')
_ASKED = re.compile(r"--data-urlencode 'query=([^']+)'")
_NAME = re.compile(r'^([a-z_:]+)|__name__=~"([^"]+)"')
#: Their tools that need nothing but the files of a checkout.
OFFLINE = ("promtool check", "amtool check-config", "amtool config")


def questions() -> list[tuple[str, str]]:
    """Pages, and each selector or query in PromQL that they show in full."""
    found = []
    for name, page in PAGES.items():
        spans = [span for span in _SPAN.findall(_FENCED.sub("", page)) if _SELECTOR.fullmatch(span)]
        found += [(name, text) for text in (*spans, *_ASKED.findall(page))]
    return found


def calls() -> list[tuple[str, str]]:
    """Pages, and each call of amtool or promtool with arguments, in blocks and in sentences."""
    found = []
    for name, page in PAGES.items():
        lines = [
            line.split("#")[0].strip()
            for block in _FENCED.findall(page)
            for line in block.replace("\\\n", " ").splitlines()
        ]
        spans = [" ".join(span.split()) for span in _SPAN.findall(_FENCED.sub("", page))]
        found += [
            (name, text)
            for text in (*lines, *spans)
            if re.match(r"(amtool|promtool) \w", text) and "…" not in text
        ]
    return found


def series() -> set[str]:
    """Names of what rules record, the collector tells, and the demo's nodes do."""
    rules = [yaml.safe_load(file.read_text()) for file in (ROOT / "alerting/rules").glob("*.yml")]
    recorded = {
        rule["record"]
        for document in rules
        for group in document["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    told = re.findall(r"^\| `([a-z_]+)` \|", PAGES["docs/reference/metrics.md"], re.MULTILINE)
    return recorded | set(told) | {f"{CPU_METRIC}_total"}


@pytest.mark.parametrize(("page", "question"), questions())
def test_prometheus_understands_what_is_asked_and_there_is_such_a_series(
    page: str, question: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yml"
    rule = {"record": "asked", "expr": question}
    rules.write_text(yaml.safe_dump({"groups": [{"name": page, "rules": [rule]}]}))
    taken = subprocess.run(
        [program("promtool"), "check", "rules", str(rules)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert taken.returncode == 0, taken.stderr
    name = _NAME.search(question)
    assert name is not None
    # Pages that are about one part leave out the prefix of its metrics.
    wanted = re.compile(name[2] or rf"(flow_exporter_\w*)?{name[1]}")
    assert [known for known in series() if wanted.fullmatch(known)], question


@pytest.mark.parametrize(("page", "call"), calls())
def test_tools_have_the_commands_and_options_that_are_told(page: str, call: str) -> None:
    tool, *words = shlex.split(call)
    commands = []
    for word in words:
        if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
            break
        commands.append(word)
    told = subprocess.run(
        [program(tool), *commands, "--help"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, f"{page}: {call}: {told.stderr}"
    usage = told.stdout + told.stderr
    for option in re.findall(r"(?<= )--?([a-z.-]+)", call):
        assert f"--{option}" in usage, f"{page}: {call}"


@pytest.mark.parametrize(
    ("page", "call"), [(page, call) for page, call in calls() if call.startswith(OFFLINE)]
)
def test_what_tools_say_of_the_shipped_files_is_good(page: str, call: str) -> None:
    tool, rest = call.split(" ", 1)
    if rest == "check-config":
        rest += " alerting/alertmanager.yml"
    elif rest == "config routes test":
        rest += " --config.file=alerting/alertmanager.yml team=network"
    done = subprocess.run(
        f"{shlex.quote(program(tool))} {rest}",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{page}: {call}: {done.stdout}{done.stderr}"


def test_questions_and_calls_are_found() -> None:
    assert {page for page, _ in questions()} >= {
        "docs/how-to/tune-a-baseline.md", "docs/tutorial/four-incidents.md",
    }  # fmt: skip
    told = {" ".join(call.split()[:2]) for _, call in calls()}
    assert told >= {"amtool silence", "amtool alert", "promtool check", "promtool test"}
