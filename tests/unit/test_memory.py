"""Freed memory stays with the process where that is asked for."""

from __future__ import annotations

import subprocess
import sys

_FAULTS = """
import resource, sys
import numpy as np
from exporter.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def batch():
    arrays = [np.ones(1 << 17) for _ in range(8)]

batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_batch_after_batch_uses_the_same_pages() -> None:
    # 20 batches of 8 MiB are 40,960 pages.
    assert faults("keep") < 100
    assert faults("default") > 10_000
