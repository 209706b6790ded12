"""Sequence numbers: lost, late, repeated and begun anew are told apart."""

from __future__ import annotations

import pytest

from exporter import config
from exporter.decode import Decoder
from exporter.decode.devices import Stream
from exporter.decode.sequence import PATIENCE
from tests.support.netflow import (
    FLOW,
    NOW,
    UPTIME,
    batch,
    flow,
    ipfix,
    netflow5,
    netflow9,
    record5,
    set_of,
    template9,
    template10,
)

START = NOW * 1000


def numbers(*sequence: int, apart: bool = False, late: int = 10 * PATIENCE) -> Stream:
    """The stream after v9 datagrams of these sequence numbers and one more, much later."""
    decoder = Decoder(config.Decode(), [])
    datagrams = [netflow9(sequence=n & 0xFFFFFFFF, seconds=NOW + i) for i, n in
                 enumerate(sequence)]  # fmt: skip
    if apart:
        for datagram in datagrams:
            decoder.decode(batch(datagram, received=START))
    else:
        decoder.decode(batch(*datagrams, received=START))
    (stream,) = decoder.state.streams()
    following = netflow9(sequence=stream.sequence.expected, seconds=NOW + 3600)
    decoder.decode(batch(following, received=START + late))
    return stream


def counts(stream: Stream) -> tuple[int, int, int]:
    sequence = stream.sequence
    return sequence.lost, sequence.reordered, sequence.restarts


def test_in_order_nothing_is_counted() -> None:
    assert counts(numbers(1, 2, 3, 4)) == (0, 0, 0)
    assert counts(numbers(1, 2, 3, 4, apart=True)) == (0, 0, 0)


def test_a_gap_is_lost_once_it_had_time_to_close() -> None:
    assert counts(numbers(1, 2, 5, 6)) == (2, 0, 0)
    assert counts(numbers(1, 2, 5, 6, apart=True)) == (2, 0, 0)
    assert counts(numbers(1, 2, 5, 6, late=PATIENCE // 2)) == (0, 0, 0)


def test_a_late_datagram_is_not_lost() -> None:
    assert counts(numbers(1, 2, 4, 3, 5)) == (0, 1, 0)
    assert counts(numbers(1, 5, 2, 4, 6)) == (1, 2, 0)
    assert counts(numbers(1, 2, 4, 3, 5, apart=True)) == (0, 1, 0)


def test_gaps_from_before_a_restart_close_no_more() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(*[netflow9(sequence=n) for n in (100_000, 100_005, 10)], received=START))
    (stream,) = decoder.state.streams()
    assert counts(stream) == (4, 0, 1)
    assert not stream.sequence.waiting


def test_numbers_wrap() -> None:
    assert counts(numbers(2**32 - 2, 2**32 - 1, 0, 1)) == (0, 0, 0)
    assert counts(numbers(2**32 - 2, 1, 2)) == (2, 0, 0)
    assert counts(numbers(2**32 - 1, 3, 4)) == (3, 0, 0)


def test_far_back_is_a_restart() -> None:
    assert counts(numbers(5_000_000, 5_000_001, 0, 1, 2)) == (0, 0, 1)


def test_far_ahead_is_a_restart_and_no_loss() -> None:
    assert counts(numbers(1, 2, 1 << 30, (1 << 30) + 1)) == (0, 0, 1)


def test_v5_and_ipfix_count_records() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(
        netflow5(record5(), record5(), sequence=10),
        netflow5(record5(), sequence=12),
        netflow5(record5(), sequence=20),
        ipfix(template10(256, FLOW), set_of(256, flow() * 3), sequence=5),
        ipfix(set_of(256, flow()), sequence=8),
        ipfix(set_of(256, flow()), sequence=10),
    ))  # fmt: skip
    decoder.decode(batch(netflow5(record5(), sequence=21), ipfix(sequence=11),
                         received=START + 10 * PATIENCE))  # fmt: skip
    assert [stream.sequence.lost for stream in decoder.state.streams()] == [7, 1]


def test_unknown_records_make_no_loss() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(ipfix(set_of(256, bytes(100)), sequence=5), ipfix(sequence=25)))
    following = ipfix(sequence=25, seconds=NOW + 30)
    decoder.decode(batch(following, received=START + 10 * PATIENCE))
    (stream,) = decoder.state.streams()
    assert counts(stream) == (0, 0, 0)


def test_after_unknown_records_the_next_number_is_taken_as_it_comes() -> None:
    decoder = Decoder(config.Decode(), [])
    known = [template10(256, FLOW), set_of(256, flow())]
    decoder.decode(batch(
        ipfix(*known, sequence=5), ipfix(set_of(300, bytes(100)), sequence=20),
        ipfix(sequence=50),
    ))  # fmt: skip
    following = ipfix(sequence=50, seconds=NOW + 30)
    decoder.decode(batch(following, received=START + 10 * PATIENCE))
    (stream,) = decoder.state.streams()
    assert counts(stream) == (14, 0, 0)


def test_streams_of_one_batch_stay_apart() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(*[netflow9(sequence=n, domain=d) for n in (1, 2, 4) for d in (1, 2)],
                         netflow9(sequence=3, domain=1)))  # fmt: skip
    decoder.decode(batch(*[netflow9(sequence=5, domain=d) for d in (1, 2)],
                         received=START + 10 * PATIENCE))  # fmt: skip
    lost = {stream.domain: stream.sequence.lost for stream in decoder.state.streams()}
    assert lost == {1: 0, 2: 1}
    assert {s.domain: s.packets for s in decoder.state.streams()} == {1: 5, 2: 4}


def test_a_loss_of_one_stream_says_nothing_of_the_next() -> None:
    decoder = Decoder(config.Decode(), [])
    for sequences in ((1, 1_000_000), (4, 1_000_001)):
        decoder.decode(batch(*[netflow9(sequence=n, domain=d) for d, n in enumerate(sequences)]))
    decoder.decode(batch(*[netflow9(sequence=n, domain=d) for d, n in ((0, 5), (1, 1_000_002))],
                         received=START + 10 * PATIENCE))  # fmt: skip
    found = {stream.domain: counts(stream) for stream in decoder.state.streams()}
    assert found == {0: (2, 0, 0), 1: (0, 0, 0)}


def test_a_repeated_datagram_is_dropped_and_counted() -> None:
    decoder = Decoder(config.Decode(), [])
    first = netflow9(template9(256, FLOW), set_of(256, flow()), sequence=1)
    second = netflow9(set_of(256, flow() * 2), sequence=2)
    third = netflow9(set_of(256, flow() * 4), sequence=3)
    together = decoder.decode(batch(first, second, second, third, second))
    assert sum(map(len, together)) == 7
    apart = decoder.decode(batch(third))
    assert apart == []
    (stream,) = decoder.state.streams()
    assert stream.duplicates == 3
    assert stream.records == 7
    assert counts(stream) == (0, 0, 0)


def test_the_same_number_with_other_octets_is_no_repetition() -> None:
    """Messages without records share IPFIX sequence numbers; some devices never count."""
    decoder = Decoder(config.Decode(), [])
    found = decoder.decode(batch(
        ipfix(template10(256, FLOW), sequence=0), ipfix(set_of(256, flow()), sequence=0),
        ipfix(set_of(256, flow(octets=2)), sequence=0),
    ))  # fmt: skip
    assert sum(map(len, found)) == 2
    assert next(decoder.state.streams()).duplicates == 0


def test_templates_and_records_of_one_number_that_come_twice_are_taken_once() -> None:
    """Neither is like the one before, whose number it has."""
    decoder = Decoder(config.Decode(), [])
    pair = [ipfix(template10(256, FLOW), sequence=0), ipfix(set_of(256, flow()), sequence=0)]
    found = decoder.decode(batch(*pair, *pair))
    assert sum(map(len, found)) == 1
    assert next(decoder.state.streams()).duplicates == 2


def test_the_same_octets_of_another_device_are_no_repetition() -> None:
    decoder = Decoder(config.Decode(), [])
    datagram = netflow9(template9(256, FLOW), set_of(256, flow()), sequence=1)
    found = decoder.decode(batch(datagram, datagram, device=["192.0.2.1", "192.0.2.2"]))
    assert sum(map(len, found)) == 2
    third = ["192.0.2.3"] * 2
    found = decoder.decode(batch(netflow9(sequence=1), datagram, device=third))
    assert sum(map(len, found)) == 1


@pytest.mark.parametrize("first", [0, 1])
def test_a_restarted_device_makes_its_templates_void(first: int) -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow9(template9(256, FLOW), sequence=900_000)))
    (stream,) = decoder.state.streams()
    assert stream.templates
    decoder.decode(batch(netflow9(sequence=first, uptime=5_000, seconds=NOW + 60)))
    assert not stream.templates
    assert stream.sequence.restarts == 1


def test_cards_that_share_a_domain_are_no_restart() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow9(template9(256, FLOW), sequence=900_000, uptime=50_000_000)))
    decoder.decode(batch(netflow9(sequence=7, uptime=90_000_000)))
    (stream,) = decoder.state.streams()
    assert stream.templates


def test_an_uptime_that_wraps_is_no_restart() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow9(template9(256, FLOW), sequence=900, uptime=2**32 - 1000)))
    decoder.decode(batch(netflow9(sequence=899, uptime=1000, seconds=NOW + 2)))
    (stream,) = decoder.state.streams()
    assert stream.templates


@pytest.mark.parametrize("uptime", [UPTIME, 300_000])
def test_late_datagrams_are_no_restart(uptime: int) -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow9(template9(256, FLOW), sequence=900, uptime=uptime)))
    decoder.decode(batch(netflow9(sequence=890, uptime=uptime - 30_000, seconds=NOW - 30)))
    (stream,) = decoder.state.streams()
    assert stream.templates
    assert counts(stream) == (0, 1, 0)
