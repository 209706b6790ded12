"""Writes samples of the past into Prometheus' database, by its own tool."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from exporter.policies.past import Labels, Sample

#: Holds blocks that are all there and on their way into the folder around it; Prometheus passes
#: folders of such names over.
_COMPLETE: Final = "backfill.complete"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class BlockError(Exception):
    """Samples could not be written; the text says why."""


def promtool() -> str:
    """Where Prometheus' tool is.

    Raises:
        BlockError: it is not installed.
    """
    tool = shutil.which("promtool")
    if tool is None:
        raise BlockError("promtool is not installed; it comes with Prometheus")
    return tool


@contextmanager
def all_or_none(data: Path) -> Iterator[Path]:
    """A folder for blocks, which become Prometheus' own in ``data`` when all of them are there.

    So whoever is ended before begins again as if there had been nothing; blocks of one who was
    ended while they moved are moved by the next, or by :func:`finish_moving`.
    """
    finish_moving(data)
    folder = data / "backfill.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(data / _COMPLETE)  # from here on they are to be there
        finish_moving(data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish_moving(data: Path) -> None:
    """Move the rest of the blocks of whoever was killed while it moved them."""
    complete = data / _COMPLETE
    if complete.is_dir():
        for block in complete.iterdir():
            block.rename(data / block.name)
        complete.rmdir()


def has_blocks(data: Path) -> bool:
    """Whether Prometheus' data directory holds any block."""
    return any(data.glob("*/meta.json"))


def write_blocks(samples: Iterable[Sample], data: Path) -> int:
    """Add blocks to Prometheus' data directory ``data``; how many samples they hold.

    Prometheus may be running: it finds new blocks within a minute. The tool reads its input once
    for each block, so one call is best about one day.

    Raises:
        BlockError: ``promtool`` is not installed, or did not do it.
    """
    return write_lines(sample_lines(samples), data)


def sample_lines(samples: Iterable[Sample]) -> list[str]:
    """OpenMetrics text, a line for each sample."""
    series: dict[tuple[str, Labels], str] = {}
    lines = []
    for metric, labels, time, value in samples:
        name = series.get((metric, labels))
        if name is None:
            name = series[metric, labels] = f"{metric}{{{_text_of(labels)}}}"
        lines.append(f"{name} {value!r} {time}\n")
    return lines


def write_lines(lines: list[str], data: Path) -> int:
    """As :func:`write_blocks`, of what :func:`sample_lines` gave."""
    if not lines:
        return 0
    tool = promtool()
    with tempfile.TemporaryDirectory(prefix="flow-backfill-") as folder:
        file = Path(folder) / "samples.om"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(lines)
            out.write("# EOF\n")
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
    return len(lines)


def _text_of(labels: Labels) -> str:
    return ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels)
