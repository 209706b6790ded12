"""Programs that are run: our own commands, and those of this machine."""

from __future__ import annotations

import shutil
import sys

from exporter.up.errors import UpError


def command(*arguments: str) -> list[str]:
    """A command of flow-exporter as the words that start it."""
    return [sys.executable, "-m", "exporter", *arguments]


def program(*names: str) -> str:
    """Where the first of these programs is that is installed.

    Raises:
        exporter.up.errors.UpError: none is.
    """
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UpError(
        f"{names[0]} is not installed: as root, run `apt-get install --no-install-recommends "
        "prometheus prometheus-alertmanager`, or put the program on PATH"
    )
