"""Samples of the past into a running Prometheus, many millions of them, by remote write.

The protocol is version 1.0 of Prometheus' remote write: a snappy block of the protobuf message
``WriteRequest``. A sample has a fixed length while its time needs six bytes (until the year 2109),
so numpy lays out all samples of a series at once.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Tells that a series ended: Prometheus' own NaN.
STALE = np.uint64(0x7FF0000000000002).view(np.float64)

_REQUEST_BYTES = 8 << 20
_SAMPLE = np.dtype(
    {
        "names": ["head", "value", "time_tag", "time"],
        "formats": ["3u1", "<f8", "u1", "6u1"],
        "itemsize": 18,
    }
)
_SHIFTS = np.arange(0, 42, 7, dtype=np.int64)


class Series(NamedTuple):
    """``times`` in seconds since the epoch, rising; ``labels`` with ``__name__``."""

    labels: Mapping[str, str]
    times: NDArray[np.int64]
    values: NDArray[np.float64]


def write(url: str, series: Iterable[Series]) -> int:
    """Send all samples to the Prometheus at ``url``; how many they were."""
    parts: list[bytes] = []
    size = count = 0
    for one in series:
        part = _series(one)
        parts.append(part)
        size += len(part)
        count += len(one.times)
        if size > _REQUEST_BYTES:
            _post(url, b"".join(parts))
            parts, size = [], 0
    if parts:
        _post(url, b"".join(parts))
    return count


def _post(url: str, message: bytes) -> None:
    # A snappy block may hold its bytes as they are, as one literal.
    literal = b"\xfc" + (len(message) - 1).to_bytes(4, "little")
    request = urllib.request.Request(
        f"{url}/api/v1/write",
        data=_varint(len(message)) + literal + message,
        headers={
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    try:
        with urllib.request.urlopen(request):
            pass
    except urllib.error.HTTPError as error:
        raise ValueError(error.read().decode()) from error


def _series(series: Series) -> bytes:
    labels = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, text.encode()))
        for name, text in sorted(series.labels.items())
        if text
    )
    samples = np.empty(len(series.times), _SAMPLE)
    samples["head"] = (0x12, 16, 0x09)
    samples["value"] = series.values
    samples["time_tag"] = 0x10
    sevens = (series.times[:, None] * 1000 >> _SHIFTS) & 0x7F
    sevens[:, :-1] |= 0x80
    samples["time"] = sevens
    return _field(1, labels + samples.tobytes())


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
