"""Where the files beside the package are: SQL, rules, dashboards."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def resource(name: str) -> Path:
    """The file or folder ``name``, such as ``clickhouse/migrations``.

    In a checkout (and an editable installation of it) it stands beside the package; an installed
    wheel puts it under ``share/flow-exporter`` of the environment.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    roots = (
        Path(__file__).resolve().parent.parent,
        Path(sysconfig.get_path("data")) / "share" / "flow-exporter",
    )
    for root in roots:
        if (root / name).exists():
            return root / name
    tried = " or ".join(str(root) for root in roots)
    raise FileNotFoundError(f"{name} is not in {tried}: the installation is incomplete")
