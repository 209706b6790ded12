"""The oldest ClickHouse that is supported: its engine, beside the newer one of the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.config import ClickHouse
from exporter.store.client import OLDEST_VERSION
from exporter.up.supervisor import die_with_parent
from tests.support.folders import own_folder
from tests.support.programs import end

ROOT = Path(__file__).resolve().parents[2]
VERSION = ".".join(map(str, OLDEST_VERSION))
ENGINE = ROOT / ".engines" / f"clickhouse-{VERSION}"


@contextmanager
def oldest_clickhouse() -> Iterator[ClickHouse]:
    """How a collector reaches it; it is empty."""
    assert (ENGINE / "chdb").is_dir(), (
        f"the engine of ClickHouse {VERSION} is not installed; `make test` installs it"
    )
    with own_folder("flow-oldest-") as folder:
        log = folder / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.engine_server", str(folder)],
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ENGINE)},
                preexec_fn=die_with_parent,  # else it outlives tests that are killed
            )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, log.read_text()
            yield ClickHouse(url=url, user="default", insert_timeout_seconds=60)
        finally:
            end(process)
            assert process.stdout is not None
            process.stdout.close()
