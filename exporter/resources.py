"""Where the files beside the package are: SQL, rules, dashboards."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def resource(name: str) -> Path:
    """The file or folder ``name``, such as ``clickhouse/migrations``.

    In a checkout (and an editable installation of it) it stands beside the package; an installed
    wheel puts it under ``share/flow-exporter`` of the environment, or with ``pip install --user``
    of the user's own folder.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    roots = (
        Path(__file__).resolve().parent.parent,
        *(Path(sysconfig.get_path("data", s)) / "share" / "flow-exporter" for s in schemes),
    )
    for root in roots:
        if (root / name).exists():
            return root / name
    tried = " or ".join(str(root) for root in roots)
    raise FileNotFoundError(f"{name} is not in {tried}: the installation is incomplete")
