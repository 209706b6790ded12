"""Writes samples of the past into Prometheus' database, by its own tool."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from exporter.policies.past import Sample

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class BlockError(Exception):
    """Samples could not be written; the text says why."""


def write_blocks(samples: Iterable[Sample], data: Path) -> int:
    """Add blocks to Prometheus' data directory ``data``; how many samples they hold.

    Prometheus may be running: it finds new blocks within a minute. The tool reads its input once
    for each block, so one call is best about one day.

    Raises:
        BlockError: ``promtool`` is not installed, or did not do it.
    """
    tool = shutil.which("promtool")
    if tool is None:
        raise BlockError("promtool is not installed; it comes with Prometheus")
    count = 0
    with tempfile.TemporaryDirectory(prefix="flow-backfill-") as folder:
        file = Path(folder) / "samples.om"
        with file.open("w", encoding="utf-8") as out:
            for sample in samples:
                out.write(_line(sample))
                count += 1
            out.write("# EOF\n")
        if not count:
            return 0
        done = subprocess.run(
            [
                tool, "tsdb", "create-blocks-from", "--max-block-duration=24h", "--quiet",
                "openmetrics", str(file), str(data),
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise BlockError(f"promtool: {' '.join((done.stderr or done.stdout).split())[:500]}")
    return count


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in sample.labels)
    return f"{sample.metric}{{{labels}}} {sample.value!r} {sample.time}\n"
