"""Questions in SQL that the documentation shows are answered, asked as a reader would ask them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.database import Database

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^ *```sql\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(r'"(SELECT [^"]+)"')
#: Shown as parts of what is not for a reader: moving rows, and the store's own page.
ELSEWHERE = {"docs/how-to/move-to-a-cluster.md", "docs/how-to/back-up-the-store.md"}
PARAMETERS = {"from": "2026-11-22 08:00:00", "to": "2026-11-22 09:00:00"}


def questions() -> list[tuple[str, str]]:
    """Of blocks of SQL and of what is given to ``curl`` in quotes, with their pages."""
    found = []
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        name = str(page.relative_to(ROOT))
        if name in ELSEWHERE:
            continue
        text = page.read_text()
        shell = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        quoted = [q for block in shell for q in _QUOTED.findall(block)]
        found += [(name, question) for question in (*_BLOCK.findall(text), *quoted)]
    return found


QUESTIONS = questions()


@pytest.fixture(scope="module")
def reader(database: Database) -> Iterator[Client]:
    """As `curl` without a database: tables are named in full."""
    with database.store.client(reader=True, database="default") as client:
        yield client


@pytest.mark.parametrize(("page", "question"), QUESTIONS, ids=[name for name, _ in QUESTIONS])
def test_a_question_of_the_documentation_is_answered(
    page: str, question: str, reader: Client
) -> None:
    parameters = {name: value for name, value in PARAMETERS.items() if f"{{{name}:" in question}
    reader.raw_query(question, parameters=parameters or None)


def test_questions_are_found() -> None:
    pages = {page for page, _ in QUESTIONS}
    assert {"docs/tutorial/find-the-rogue-host.md", "docs/how-to/connect-a-resolver.md"} <= pages
