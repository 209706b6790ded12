"""Coverage-guided fuzzing of all decoders: ``make fuzz`` or ``python -m tests.fuzz.fuzz_decode``.

The input is a sequence of datagrams, each behind two octets of length. What is looked for: an
exception, columns of different lengths, memory kept beyond the bounds. libFuzzer's options follow
the command (``-max_total_time=60``); new inputs go to the first folder named.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["exporter.decode"]):
    from exporter import config
    from exporter.decode import Decoder
    from exporter.decode.option_names import describe

from tests.support.netflow import batch

CAPTURES = Path(__file__).parents[1] / "captures"
SETTINGS = config.Decode(
    max_devices=4, max_templates_per_device=16, max_fields_per_template=64,
    max_waiting_bytes_per_device=4096, max_waiting_bytes=8192, inner_packets=True,
)  # fmt: skip


def datagrams(data: bytes) -> list[bytes]:
    found = []
    while len(data) > 2:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def test_one_input(data: bytes) -> None:
    decoder = Decoder(
        SETTINGS, [], on_options=lambda *record: json.dumps(describe(*record), allow_nan=False)
    )  # fmt: skip
    parts = datagrams(data)
    for part in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
        for flows in decoder.decode(batch(*part)):
            assert all(len(column) == len(flows) for column in flows.columns.values())
    assert not any(reason == "internal" for _, reason in decoder.stats.errors())
    assert decoder.state.waiting_bytes <= SETTINGS.max_waiting_bytes
    assert decoder.state.fields <= 4 * 16 * 64


def seeds(folder: Path) -> None:
    """Captures as inputs: each alone, and each after the one before it (its template, often)."""
    before = b""
    for path in sorted(CAPTURES.glob("*.dat")):
        content = path.read_bytes()
        framed = len(content).to_bytes(2, "big") + content
        (folder / path.stem).write_bytes(framed)
        (folder / f"{path.stem}-2").write_bytes(before + framed)
        before = framed


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        seeds(Path(folder))
        atheris.Setup([*sys.argv, folder], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
