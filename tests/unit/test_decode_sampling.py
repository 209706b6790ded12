"""Sampling rates: where they come from, and what they make of the counters."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from exporter.decode.sampling import MAX_RATES, Sampling, Scope
from exporter.decode.templated import MAX_CUTS
from tests.support.netflow import (
    DEVICE,
    FLOW,
    FieldSpec,
    batch,
    flow,
    ipfix,
    netflow5,
    netflow9,
    options_template9,
    options_template10,
    record5,
    rows,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]

SAMPLED: list[FieldSpec] = [*FLOW, (48, 2), (10, 4)]


def sampled(sampler: int, interface: int = 1) -> bytes:
    return flow() + struct.pack("!HI", sampler, interface)


def make(**device: Any) -> Decoder:
    devices = [config.Device(address=DEVICE, **device)] if device else []
    return Decoder(config.Decode(), devices)


def told(row: Row) -> tuple[int, str, int]:
    return row["sampling_rate"], row["sampling_source"], row["bytes"]


def options9(scopes: list[FieldSpec], fields: list[FieldSpec], record: bytes) -> bytes:
    return options_template9(300, scopes, fields) + set_of(300, record)


DATA = template9(256, FLOW) + set_of(256, flow())


def test_unknown_is_kept_and_counted() -> None:
    decoder = make()
    (row,) = rows(decoder, netflow9(DATA))
    assert told(row) == (1, "unknown", 300)
    assert next(iter(decoder.state.devices.values())).unknown_sampling == 1


def test_the_mode_is_masked_off_a_v5_header() -> None:
    (row,) = rows(make(), netflow5(record5(), sampling=0x4000 | 512))
    assert told(row) == (512, "record", 300 * 512)
    assert row["packets"] == 3 * 512


def test_a_v5_header_without_interval_is_unknown() -> None:
    (row,) = rows(make(), netflow5(record5(), sampling=0))
    assert told(row) == (1, "unknown", 300)


@pytest.mark.parametrize("element", [34, 50])
def test_a_rate_in_the_record(element: int) -> None:
    fields: list[FieldSpec] = [*FLOW, (element, 4)]
    record = flow() + struct.pack("!I", 100)
    (row,) = rows(make(), netflow9(template9(256, fields), set_of(256, record)))
    assert told(row) == (100, "record", 30_000)


@pytest.mark.parametrize("rate", [0, 1, 256, 1000, 16_383, 65_535])
def test_rates_in_the_byte_order_of_a_mikrotik(rate: int) -> None:
    """RouterOS tells its rate in records, little-endian (goflow2's issue 113)."""
    data = template9(256, [*FLOW, (34, 4)]) + set_of(
        256, flow() + struct.pack("<I", rate) + flow() + struct.pack("!I", 70_001)
    )
    first, second = rows(make(), netflow9(data))
    assert first["bytes"] == 300 * max(rate, 1)
    assert second["bytes"] == 300 * 70_001


def test_a_record_that_is_not_sampled_says_so_whatever_options_tell() -> None:
    options = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 100))
    data = template9(256, [*FLOW, (34, 4)]) + set_of(256, flow() + struct.pack("!I", 1))
    (row,) = rows(make(), netflow9(options, data))
    assert told(row) == (1, "record", 300)


def test_a_rate_goes_before_an_interval_of_the_same_record() -> None:
    fields: list[FieldSpec] = [*FLOW, (34, 4), (305, 4)]
    records = flow() + struct.pack("!II", 50, 100) + flow() + struct.pack("!II", 0, 100)
    first, second = rows(make(), ipfix(template10(256, fields), set_of(256, records)))
    assert (told(first), told(second)) == ((50, "record", 15_000), (100, "record", 30_000))


def test_selected_and_skipped_packets_in_the_record() -> None:
    fields: list[FieldSpec] = [*FLOW, (305, 4), (306, 4)]
    records = flow() + struct.pack("!II", 1, 99) + flow() + struct.pack("!II", 0, 99)
    one, none = rows(make(), ipfix(template10(256, fields), set_of(256, records)))
    assert told(one) == (100, "record", 30_000)
    assert told(none) == (1, "unknown", 300)


def test_an_interval_without_a_space_is_one_in_that_many() -> None:
    fields: list[FieldSpec] = [*FLOW, (305, 4)]
    records = flow() + struct.pack("!I", 100) + flow() + struct.pack("!I", 0)
    one, none = rows(make(), ipfix(template10(256, fields), set_of(256, records)))
    assert told(one) == (100, "record", 30_000)
    assert told(none) == (1, "unknown", 300)


def test_options_for_the_whole_domain() -> None:
    options = options9([(1, 4)], [(35, 1), (34, 4)], struct.pack("!IBI", 0, 2, 1000))
    decoder = make()
    (row,) = rows(decoder, netflow9(options, domain=7), netflow9(DATA, domain=7, sequence=1))
    assert told(row) == (1000, "options", 300_000)


def test_a_rate_that_changes_does_not_change_what_came_before() -> None:
    def rate(number: int) -> bytes:
        return options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, number))

    data = set_of(256, flow())
    together = [
        netflow9(DATA), netflow9(rate(10), data, rate(20), data, sequence=1),
        netflow9(data, sequence=2), netflow9(rate(20), rate(30), sequence=3),
        netflow9(data, sequence=4),
    ]  # fmt: skip
    decoder = make()
    found = [told(row)[0] for row in rows(decoder, *together)]
    # Before the first options in a batch nothing better is known than these.
    assert found == [10, 10, 20, 20, 30]
    (stream,) = next(iter(decoder.state.devices.values())).streams.values()
    assert (stream.records, stream.options) == (5, 4)
    assert not decoder.stats.errors()


def test_rates_that_change_all_the_time_cost_no_more_than_a_bound() -> None:
    sets = [
        part
        for number in range(4 * MAX_CUTS)
        for part in (
            options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 1 + number % 2)),
            set_of(256, flow()),
        )
    ]
    decoder = make()
    assert len(decoder.decode(batch(netflow9(template9(256, FLOW), *sets)))) == MAX_CUTS + 1


def test_options_per_sampler() -> None:
    record = struct.pack("!IHBI", 0, 1, 2, 10) + struct.pack("!IHBI", 0, 2, 2, 20)
    options = options9([(1, 4)], [(48, 2), (49, 1), (50, 4)], record)
    data = template9(256, SAMPLED) + set_of(256, sampled(2) + sampled(1) + sampled(0) + sampled(9))
    found = rows(make(), netflow9(options), netflow9(data, sequence=1))
    assert [told(row)[:2] for row in found] == [
        (20, "options"), (10, "options"), (1, "unknown"), (1, "unknown"),
    ]  # fmt: skip


def test_records_that_name_another_sampler_do_not_use_the_only_rate_there_is() -> None:
    options = options9([(1, 4)], [(48, 2), (50, 4)], struct.pack("!IHI", 0, 1, 10))
    data = template9(256, SAMPLED) + set_of(256, sampled(0) + sampled(1))
    zero, one = rows(make(), netflow9(options), netflow9(data, sequence=1))
    assert told(zero) == (1, "unknown", 300)
    assert told(one) == (10, "options", 3000)


def test_records_that_name_no_sampler_use_the_only_rate_there_is() -> None:
    record = struct.pack("!IHI", 0, 1, 10)
    options = options9([(1, 4)], [(48, 2), (50, 4)], record)
    (row,) = rows(make(), netflow9(options), netflow9(DATA, sequence=1))
    assert told(row) == (10, "options", 3000)


@pytest.mark.parametrize(
    ("fields", "record", "rate"),
    [
        ([(302, 8), (304, 2), (305, 4), (306, 4)], struct.pack("!QHII", 5, 1, 1, 999), 1000),
        ([(302, 8), (304, 2), (305, 4), (306, 4)], struct.pack("!QHII", 5, 1, 10, 990), 100),
        ([(302, 8), (309, 4), (310, 4)], struct.pack("!QII", 5, 1, 64), 64),
        # Cisco IOS XR: random 1 out of 256, with an interval of 1 and no space beside it.
        (
            [(302, 4), (305, 4), (304, 2), (309, 4), (310, 4)],
            struct.pack("!IIHII", 5, 1, 3, 1, 256),
            256,
        ),
        ([(302, 8), (304, 2), (305, 4)], struct.pack("!QHI", 5, 2, 4096), 4096),
        ([(302, 8), (311, 8)], struct.pack("!Qd", 5, 0.01), 100),
        ([(302, 8), (311, 4)], struct.pack("!Qf", 5, 0.01), 100),
        # ipt_NETFLOW: one of twenty flows.
        (
            [(149, 4), (302, 1), (390, 2), (396, 1), (397, 2)],
            struct.pack("!IBHBH", 0, 5, 1, 1, 20),
            20,
        ),
    ],
)
def test_selectors_of_ipfix(fields: list[FieldSpec], record: bytes, rate: int) -> None:
    options = options_template10(300, 1, fields) + set_of(300, record)
    data = template10(256, [*FLOW, (302, 8)]) + set_of(256, flow() + struct.pack("!Q", 5))
    (row,) = rows(make(), ipfix(options, data))
    assert told(row) == (rate, "options", 300 * rate)


def test_options_per_interface() -> None:
    """NetFlow v9 scope 2 is an interface."""
    options = options9([(2, 4)], [(34, 4)], struct.pack("!II", 7, 50))
    data = template9(256, [*FLOW, (10, 4)]) + set_of(
        256, flow() + struct.pack("!I", 7) + flow() + struct.pack("!I", 8)
    )
    seven, eight = rows(make(), netflow9(options), netflow9(data, sequence=1))
    assert told(seven) == (50, "options", 15_000)
    assert told(eight) == (1, "unknown", 300)


def test_flows_that_are_metered_where_they_leave_have_the_rate_of_that_interface() -> None:
    options = options9([(2, 4)], [(34, 4)], struct.pack("!IIII", 7, 50, 8, 20))
    data = template9(256, [*FLOW, (10, 4), (14, 4), (61, 1)]) + set_of(
        256, b"".join(flow() + struct.pack("!IIB", *ends)
                      for ends in ((7, 8, 0), (7, 8, 1), (9, 8, 1), (9, 8, 0), (7, 9, 1)))
    )  # fmt: skip
    found = [told(row) for row in rows(make(), netflow9(options), netflow9(data, sequence=1))]
    assert [rate for rate, _, _ in found] == [50, 20, 20, 1, 50]
    assert [source for _, source, _ in found] == [*["options"] * 3, "unknown", "options"]


def test_options_per_template() -> None:
    """As Nokia SR OS tells them, in the scope of observation domain and template."""
    fields: list[FieldSpec] = [(149, 4), (145, 2), (305, 4), (306, 4)]
    told_rates = b"".join(struct.pack("!IHII", 0, t, 1, n - 1) for t, n in ((256, 10), (257, 20)))
    message = ipfix(
        options_template10(300, 2, fields), set_of(300, told_rates),
        *(template10(number, FLOW) + set_of(number, flow()) for number in (256, 257, 258)),
    )  # fmt: skip
    rates = [told(row) for row in rows(make(), message)]
    assert sorted(rates) == [(1, "unknown", 300), (10, "options", 3000), (20, "options", 6000)]


def test_options_per_template_of_netflow_9() -> None:
    scoped = options9([(5, 2)], [(34, 4)], struct.pack("!HI", 256, 50))
    decoder = make()
    assert [told(row) for row in rows(decoder, netflow9(scoped, DATA))] == [(50, "options", 15000)]
    (row,) = rows(decoder, netflow9(template9(258, FLOW), set_of(258, flow()), sequence=1))
    assert told(row) == (50, "options", 15000)  # the only one there is


def test_a_domain_that_tells_nothing_has_the_rate_that_the_others_tell() -> None:
    """Options of the scope "System" (RFC 3954, section 6.1) are those of the whole device."""
    decoder = make()
    system = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 100))
    (row,) = rows(decoder, netflow9(system, domain=0), netflow9(DATA, domain=5))
    assert told(row) == (100, "options", 30000)
    other = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 200))
    (row,) = rows(decoder, netflow9(other, domain=1), netflow9(DATA, domain=6))
    assert told(row) == (1, "unknown", 300)  # which of the two?
    same = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 200))
    (row,) = rows(decoder, netflow9(same, domain=0, sequence=1), netflow9(DATA, domain=7))
    assert told(row) == (200, "options", 60000)


def test_a_domain_that_tells_its_own_rate_does_not_ask_the_others() -> None:
    decoder = make()
    for domain, rate in ((0, 100), (1, 200)):
        options = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, rate))
        (row,) = rows(decoder, netflow9(options, DATA, domain=domain))
        assert told(row) == (rate, "options", 300 * rate)


def test_samplers_that_are_told_in_a_domain_of_their_own() -> None:
    """Cisco's Catalyst 9300 sends options in another domain than flows (Akvorado's issue 89)."""
    decoder = make()
    samplers = options9([(1, 4)], [(48, 2), (50, 4)],
                        struct.pack("!IHI", 0, 1, 7) + struct.pack("!IHI", 0, 2, 8))  # fmt: skip
    data = template9(256, SAMPLED) + set_of(256, sampled(2) + sampled(1) + sampled(3))
    found = rows(decoder, netflow9(samplers, domain=6), netflow9(data, domain=0))
    assert [row["sampling_rate"] for row in found] == [8, 7, 1]


def test_another_protocol_of_the_device_is_sampled_on_its_own() -> None:
    decoder = make()
    system = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 100))
    message = ipfix(template10(256, FLOW), set_of(256, flow()), domain=5)
    (row,) = rows(decoder, netflow9(system), message)
    assert told(row) == (1, "unknown", 300)


def test_a_domain_that_tells_of_its_samplers_does_not_ask_the_others() -> None:
    decoder = make()
    system = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 100))
    samplers = options9([(1, 4)], [(48, 2), (50, 4)],
                        struct.pack("!IHI", 0, 1, 7) + struct.pack("!IHI", 0, 2, 8))  # fmt: skip
    (row,) = rows(decoder, netflow9(system, domain=0), netflow9(samplers, DATA, domain=5))
    assert told(row) == (1, "unknown", 300)


def test_the_configured_rate_is_for_want_of_another() -> None:
    decoder = make(sampling_rate=64)
    (row,) = rows(decoder, netflow9(DATA))
    assert told(row) == (64, "configured", 300 * 64)
    options = options9([(1, 4)], [(34, 4)], struct.pack("!II", 0, 10))
    (row,) = rows(decoder, netflow9(options, DATA, sequence=1))
    assert told(row) == (10, "options", 3000)


def test_the_configured_override_beats_all() -> None:
    decoder = make(sampling_rate_override=7)
    (row,) = rows(decoder, netflow5(record5(), sampling=512))
    assert told(row) == (7, "configured", 2100)


@pytest.mark.parametrize("chance", [0.0, -1.0, 2.0, float("nan"), float("inf"), 1e-300])
def test_a_probability_that_cannot_be_is_passed_over(chance: float) -> None:
    options = options_template10(300, 1, [(302, 8), (311, 8)])
    record = set_of(300, struct.pack("!Qd", 5, chance))
    (row,) = rows(make(), ipfix(options, record, template10(256, FLOW), set_of(256, flow())))
    assert told(row) == (1, "unknown", 300)


def test_rates_of_many_devices_in_one_batch_stay_apart() -> None:
    decoder = Decoder(
        config.Decode(),
        [config.Device(address=f"192.0.2.{n}", sampling_rate=n) for n in range(1, 9)],
    )
    devices = [f"192.0.2.{n}" for n in range(1, 9)]
    found = decoder.decode(batch(*[netflow9(DATA)] * 8, device=devices))
    rates = {row["device_addr"]: row["sampling_rate"] for b in found for row in b.rows()}
    assert rates == {f"192.0.2.{n}": n for n in range(1, 9)}


def test_unknown_rates_are_counted_of_the_device_that_tells_none() -> None:
    decoder = make(sampling_rate=10)
    decoder.decode(batch(netflow9(DATA), netflow9(DATA), device=[DEVICE, "192.0.2.99"]))
    unknown = {device.label: device.unknown_sampling for device in decoder.state.devices.values()}
    assert unknown == {DEVICE: 0, "192.0.2.99": 1}


def test_rates_are_kept_of_so_many_and_of_those_that_can_be() -> None:
    sampling = Sampling()
    for number in range(MAX_RATES + 1):
        sampling.learn(7, Scope(sampler=number))
    sampling.learn(8, Scope(sampler=0))
    assert len(sampling.samplers) == MAX_RATES
    assert sampling.known(Scope(sampler=0)) == 8
    assert sampling.known(Scope(sampler=MAX_RATES)) == 0
    for impossible in (0, 1 << 32):
        sampling.learn(impossible, Scope())
        sampling.learn(impossible, Scope(sampler=0))
    assert (sampling.known(Scope()), sampling.known(Scope(sampler=0))) == (0, 8)
    sampling.learn((1 << 32) - 1, Scope())
    assert sampling.known(Scope()) == (1 << 32) - 1
