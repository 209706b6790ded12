"""The migrations as a cluster runs them, kept in ``tests/golden/cluster`` to be looked at.

``python -m tests.support.golden`` writes them; a test fails when the migrations say something else.
"""

from __future__ import annotations

from pathlib import Path

from exporter.resources import resource
from exporter.store.render import render
from exporter.store.statements import load_migrations

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "cluster"
CLUSTER = DATABASE = "flow"


def rendered() -> dict[str, str]:
    """The text of each migration on a cluster, by file name."""
    migrations = render(load_migrations(resource("clickhouse/migrations")), DATABASE, CLUSTER)
    return {
        migration.path.name: "\n\n".join(f"{statement.sql};" for statement in migration.statements)
        + "\n"
        for migration in migrations
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.sql"):
        old.unlink()
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
