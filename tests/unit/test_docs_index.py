"""Documentation that nobody can find, and links that lead nowhere, are faults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it."""
    plain: list[str] = []
    made = set()
    for heading in re.findall(r"^#{1,6} (.+)$", _FENCED.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        plain.append(re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-"))
        before = plain.count(plain[-1]) - 1
        made.add(f"{plain[-1]}-{before}" if before else plain[-1])
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_of_links_are_headings(page: Path) -> None:
    for target, anchor in _ANCHOR.findall(page.read_text()):
        file = page.parent / target if target else page
        if file.suffix == ".md" and "://" not in target:
            assert anchor in anchors(file.read_text()), f"{page.name} links to {target}#{anchor}"


def test_headings_are_named_in_links_as_github_names_them() -> None:
    page = "# TLS and `users`\n```sh\n# no heading\n```\n## What's [new](x.md)?\n## What's new\n"
    assert anchors(page) == {"tls-and-users", "whats-new", "whats-new-1"}


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in _LINK.findall(index.read_text())}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    alerts = ROOT / "docs" / "reference" / "alerts"  # one runbook per alert, reached by its link
    assert {p for p in pages if alerts not in p.parents} <= linked


def test_metrics_that_pages_name_exist() -> None:
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    known = set(re.findall(r"\bflow_[a-z0-9_]+", reference))
    for page in PAGES:
        for name in re.findall(r"\bflow_exporter_[a-z0-9_]+", page.read_text()):
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            assert {name, plain} & known or name.endswith("_"), f"{page.name} names {name}"
