"""One ``up`` at a time in a data folder: two would write each other's settings."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    with (data / "up.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UpError(
                f"it runs already in {data} (process {holder}): end that one, "
                "or choose another folder with --data-dir"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
