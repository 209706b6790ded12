"""What all sources of names know together."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.address import mapped
from exporter.enrich import host_names
from exporter.enrich.host_names import HostFacts, HostNames


def test_known_addresses_are_found_among_many_however_names_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_names, "_SMALLEST", 100)  # the table of places is made anew at times
    rng = np.random.default_rng(1)
    addresses = mapped(np.arange(1, 5001, dtype=np.uint32) * np.uint32(77_777))
    addresses[::5] = rng.integers(0, 256, (1000, 16), np.uint8)
    packed = [row.tobytes() for row in addresses]
    hosts = HostNames()
    layer = hosts.layer("dns")
    for _ in range(20):
        some = rng.choice(5000, 200, replace=False).tolist()
        layer.update({packed[n]: HostFacts(f"host{n}") for n in some})
        layer.remove(packed[n] for n in rng.choice(5000, 400, replace=False).tolist())
        expected = hosts.find(packed)
        rows, found = hosts.known(addresses)
        assert dict(zip(rows.tolist(), found, strict=True)) == {
            n: (packed[n], facts) for n, facts in enumerate(expected) if facts is not None
        }
        assert len(rows) > 50


def test_strangers_are_hardly_ever_looked_up() -> None:
    hosts = HostNames()
    known = mapped(np.arange(1, 1001, dtype=np.uint32))
    hosts.layer("static").update({row.tobytes(): HostFacts("a") for row in known})
    strangers = mapped(np.arange(1 << 20, (1 << 20) + 10_000, dtype=np.uint32))
    assert np.count_nonzero(hosts._perhaps[host_names._places(strangers)]) < 200
    assert len(hosts.known(strangers)[0]) == 0
    assert len(hosts.known(known)[0]) == 1000
