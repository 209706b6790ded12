"""Queries and their responses."""

from __future__ import annotations

import dns.rcode
import pytest

from exporter.receive.dnstap import exchanges as module
from exporter.receive.dnstap.exchanges import WAIT_SECONDS, Exchange, Exchanges
from exporter.receive.dnstap.message import Tap, read_frame
from tests.support.dnstap import frame, query, response


def tap(payload: bytes) -> Tap:
    found = read_frame(payload)
    assert isinstance(found, Tap)
    return found


def add(exchanges: Exchanges, payload: bytes, now: float = 0.0) -> list[Exchange]:
    return list(exchanges.add(tap(payload), now))


def test_a_response_finds_its_query_and_tells_the_latency() -> None:
    exchanges = Exchanges()
    asked = query("a.example")
    assert add(exchanges, frame(asked, time=1000.25), now=5.0) == []
    [done] = add(exchanges, frame(response(asked), time=1000.5), now=5.5)
    assert (done.name, done.type, done.rcode, done.time) == ("a.example", "A", "NOERROR", 5.5)
    assert done.latency == pytest.approx(0.25)
    assert len(exchanges) == 0


def test_latency_is_told_by_a_message_that_has_both_times() -> None:
    both = read_frame(frame(response(query("a.example")), time=1000.5))
    assert isinstance(both, Tap)
    [done] = Exchanges().add(
        Tap(**{f: getattr(both, f) for f in Tap.__slots__} | {"query_time": 1000.0}), 0.0
    )
    assert done.latency == pytest.approx(0.5)


@pytest.mark.parametrize(
    "other",
    [
        {"client": "10.1.2.4"},
        {"port": 40001},
        {"identity": "r2"},
    ],
)
def test_another_ones_response_is_not_taken_for_it(other: dict[str, object]) -> None:
    exchanges = Exchanges()
    asked = query("a.example")
    add(exchanges, frame(asked))
    [done] = add(exchanges, frame(response(asked), time=1000.5, **other))
    assert done.latency == 0
    assert len(exchanges) == 1


def test_requests_with_the_same_id_are_told_apart_by_their_question() -> None:
    exchanges = Exchanges()  # DNS over HTTPS sends 0 as the id
    first, second = query("a.example", number=0), query("b.example", number=0)
    add(exchanges, frame(first, time=1000.0))
    add(exchanges, frame(second, time=1001.0))
    [done] = add(exchanges, frame(response(second), time=1001.5))
    assert (done.name, done.latency) == ("b.example", pytest.approx(0.5))


def test_a_query_without_a_response_is_told_in_the_end() -> None:
    clock = iter([100.0, 100.0 + WAIT_SECONDS - 1, 100.0 + WAIT_SECONDS + 1, 200.0])
    exchanges = Exchanges(lambda: next(clock))
    add(exchanges, frame(query("a.example")), now=7200.0)
    assert list(exchanges.expire(7200.0 + 2 * WAIT_SECONDS)) == []
    # The clock of the day has been set back by an hour since.
    [done] = exchanges.expire(3600.0)
    assert done.time == 3600.0
    assert (done.name, done.rcode, done.latency) == ("a.example", "", 0.0)
    # A response after that is an exchange of its own.
    late = response(query("a.example"), rcode=dns.rcode.SERVFAIL)
    assert [d.rcode for d in add(exchanges, frame(late))] == ["SERVFAIL"]


def test_a_query_that_is_repeated_was_not_answered() -> None:
    exchanges = Exchanges()
    asked = query("a.example")
    add(exchanges, frame(asked, time=1000.0), now=1.0)
    [done] = add(exchanges, frame(asked, time=1002.0), now=3.0)
    assert done.rcode == ""
    [done] = add(exchanges, frame(response(asked), time=1002.5), now=3.5)
    assert done.latency == pytest.approx(0.5)


def test_memory_is_bounded_and_the_oldest_are_told_without_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 100)
    exchanges = Exchanges()
    done = [
        name
        for number in range(250)
        for name in add(exchanges, frame(query(f"n{number}.example")), now=float(number) / 1000)
    ]
    assert len(exchanges) == 100
    assert [d.name for d in done] == [f"n{number}.example" for number in range(150)]


def test_clocks_that_disagree_give_no_latency() -> None:
    exchanges = Exchanges()
    asked = query("a.example")
    add(exchanges, frame(asked, time=1000.0))
    [done] = add(exchanges, frame(response(asked), time=999.0))
    assert done.latency == 0.0
