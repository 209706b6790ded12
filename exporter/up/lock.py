"""One ``up`` at a time in a data folder: two would write each other's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.file_lock import FileHeldError, hold
from exporter.up.errors import UpError


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Make the folder if it is not there, and keep others from it meanwhile.

    The lock goes with the process, however that ends.

    Raises:
        exporter.up.errors.UpError: another process has it.
        OSError: the folder cannot be made or written.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        held = hold(data / "up.lock")
    except FileHeldError as error:
        raise UpError(
            f"it runs already in {data} (process {error.holder}): end that one, "
            "or choose another folder with --data-dir"
        ) from error
    with held:
        yield
