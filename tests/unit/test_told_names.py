"""Which name each client was told for an address."""

from __future__ import annotations

import numpy as np

from exporter.address import mapped
from exporter.enrich.told import ToldNames


def pair(number: int) -> tuple[bytes, bytes]:
    """An address and a client that no other number has."""
    address, client = mapped(np.array([number // 100, 1 << 24 | number], np.uint32))
    return address.tobytes(), client.tobytes()


def asked(told: ToldNames, *numbers: int, now: float = 0.0) -> list[tuple[str, int]]:
    rows = [np.frombuffer(b"".join(pair(n)), np.uint8) for n in numbers]
    both = np.array(rows)
    codes, names, since = told.find(both[:, :16], both[:, 16:], now)
    return [(names[code], int(since[code])) for code in codes.tolist()]


def test_each_pair_has_its_own_name_while_it_holds() -> None:
    told = ToldNames(100)
    told.put(*pair(1), "a.example", time=10, until=20)
    told.put(*pair(2), "b.example", time=12, until=30)
    assert asked(told, 2, 1, 3, 2) == [
        ("b.example", 12), ("a.example", 10), ("", 0), ("b.example", 12)
    ]  # fmt: skip
    assert asked(told, 1, 2, now=20) == [("", 0), ("b.example", 12)]


def test_a_name_that_is_told_again_has_held_all_the_while() -> None:
    told = ToldNames(100)
    told.put(*pair(1), "a.example", time=10, until=20)
    told.put(*pair(1), "a.example", time=15, until=40)
    assert asked(told, 1, now=30) == [("a.example", 10)]
    told.put(*pair(1), "a.example", time=50, until=60)
    assert asked(told, 1, now=50) == [("a.example", 50)]
    told.put(*pair(1), "b.example", time=55, until=70)
    assert asked(told, 1, now=56) == [("b.example", 55)]


def test_those_told_longest_ago_make_room() -> None:
    told = ToldNames(1000)
    for number in range(1000):
        told.put(*pair(number), f"host{number}", time=1, until=100)
        if number % 100 == 0:
            asked(told, number)  # it finds between what is put, too
    told.put(*pair(0), "host0", time=2, until=100)
    told.put(*pair(5000), "new", time=3, until=100)
    assert len(told) == 1000 - 250 + 1
    found = asked(told, *range(1000), 5000)
    assert [name for name, _ in found[1:251]] == [""] * 250
    assert found[0] == ("host0", 1)
    assert [name for name, _ in found[251:1000]] == [f"host{n}" for n in range(251, 1000)]
    assert found[1000] == ("new", 3)
    for number in range(6000, 20_000):
        told.put(*pair(number), f"host{number}", time=4, until=100)
    assert 750 <= len(told) <= 1000
    assert asked(told, 19_999, 6000) == [("host19999", 4), ("", 0)]
