"""Flow times: every format right, and what happens to those that cannot be."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from tests.support.netflow import (
    NOW,
    UPTIME,
    FieldSpec,
    batch,
    ip,
    ipfix,
    netflow5,
    netflow9,
    options_template10,
    record5,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]

NTP = 2_208_988_800
EXPORT = "2023-11-14T22:13:20.000Z"  # NOW


def rows(*datagrams: bytes, received: int = NOW * 1000) -> list[Row]:
    decoder = Decoder(config.Decode(), [])
    found = decoder.decode(batch(*datagrams, received=received))
    return [row for flows in found for row in flows.rows()]


def times(row: Row) -> tuple[str, str, str]:
    return row["time_flow_start"], row["time_flow_end"], row["time_source"]


def one(fields: list[FieldSpec], record: bytes) -> Row:
    whole = ip("10.0.0.1") + record
    (row,) = rows(ipfix(template10(256, [(8, 4), *fields]), set_of(256, whole)))
    return row


@pytest.mark.parametrize(
    ("start", "end", "form", "first", "last"),
    [
        (150, 151, "!II", NOW - 60, NOW - 5),
        (152, 153, "!QQ", (NOW - 60) * 1000, (NOW - 5) * 1000),
        (154, 155, "!QQ", NOW - 60 + NTP << 32, NOW - 5 + NTP << 32),
        (156, 157, "!QQ", NOW - 60 + NTP << 32, NOW - 5 + NTP << 32),
        (158, 159, "!II", 60_000_000, 5_000_000),
        (154, 155, "!QQ", (NOW - 60) * 1_000_000, (NOW - 5) * 1_000_000),  # not NTP, as some send
        (156, 157, "!QQ", (NOW - 60) * 10**9, (NOW - 5) * 10**9),
    ],
)
def test_absolute_times_of_ipfix(start: int, end: int, form: str, first: int, last: int) -> None:
    size = struct.calcsize(form) // 2
    row = one([(start, size), (end, size)], struct.pack(form, first, last))
    assert times(row) == ("2023-11-14T22:12:20.000Z", "2023-11-14T22:13:15.000Z", "record")


def test_fractions_of_ntp_times() -> None:
    half = NOW - 1 + NTP << 32 | 1 << 31
    row = one([(154, 8), (155, 8)], struct.pack("!QQ", half, half | 1 << 30))
    assert times(row)[:2] == ("2023-11-14T22:13:19.500Z", "2023-11-14T22:13:19.750Z")


@pytest.mark.parametrize("kept", [0xFFFFFFFF, 0xFFFFF800])
@pytest.mark.parametrize("millisecond", [1, 123, 877, 999])
def test_a_whole_millisecond_that_ntp_rounds_down_stays_one(millisecond: int, kept: int) -> None:
    """RFC 7011, section 6.1.9, leaves the lower 11 bits of a fraction out."""
    stamp = NOW - 1 + NTP << 32 | (millisecond << 32) // 1000 & kept
    row = one([(154, 8), (157, 8)], struct.pack("!QQ", stamp, stamp))
    assert times(row) == (*[f"2023-11-14T22:13:19.{millisecond:03}Z"] * 2, "record")


@pytest.mark.parametrize(("start", "per_second"), [(154, 10**6), (156, 10**9)])
@pytest.mark.parametrize("year", [2016, 2026, 2030, 2035])
def test_plain_counts_are_none_of_ntp_in_any_year(start: int, per_second: int, year: int) -> None:
    """As NTP they are times of 2036 or later, which comes closer year by year."""
    exported = int(datetime(year, 11, 23, tzinfo=UTC).timestamp())
    plain = (exported - 60) * per_second
    record = ip("10.0.0.1") + struct.pack("!QQ", plain, plain + 5 * per_second)
    message = ipfix(template10(256, [(8, 4), (start, 8), (start + 1, 8)]), set_of(256, record),
                    seconds=exported)  # fmt: skip
    (row,) = rows(message, received=exported * 1000)
    assert times(row) == (f"{year}-11-22T23:59:00.000Z", f"{year}-11-22T23:59:05.000Z", "record")


@pytest.mark.parametrize("start", [154, 156])
def test_ntp_times_of_an_old_capture_that_a_probe_read_keep_their_duration(start: int) -> None:
    """ipfixprobe exports the times of the packets that it reads, here 16 years ago."""
    first = NOW - 16 * 366 * 86_400 + NTP << 32
    row = one([(start, 8), (start + 1, 8)], struct.pack("!QQ", first, first + (7 << 32)))
    assert times(row) == ("2023-11-14T22:13:13.000Z", "2023-11-14T22:13:20.000Z", "received")


@pytest.mark.parametrize(("element", "per_millisecond"), [(154, 1_000), (156, 1_000_000)])
def test_pmacctd_tells_seconds_and_the_rest_of_them_apart(
    element: int, per_millisecond: int
) -> None:
    """What it sends with ``nfprobe_tstamp_usec``: 64 bits of each, since the epoch."""
    fields: list[FieldSpec] = [(element, 16), (element + 1, 16), (8, 4)]
    times = struct.pack("!QQQQ", NOW - 60, 250 * per_millisecond, NOW - 5, 999 * per_millisecond)
    (row,) = rows(ipfix(template10(256, fields), set_of(256, times + ip("10.0.0.1"))))
    assert (row["time_flow_start"], row["time_source"]) == ("2023-11-14T22:12:20.250Z", "record")
    assert row["time_flow_end"] == "2023-11-14T22:13:15.999Z"
    mad = struct.pack("!QQQQ", *[2**64 - 1] * 4)
    (row,) = rows(ipfix(template10(256, fields), set_of(256, mad + ip("10.0.0.1"))))
    assert row["time_source"] == "received"


def test_ntp_times_go_on_after_2036() -> None:
    later = 2_240_000_000
    first = later - 2 + NTP - 2**32 << 32
    record = ip("10.0.0.1") + struct.pack("!QQ", first, first)
    message = ipfix(template10(256, [(8, 4), (154, 8), (155, 8)]), set_of(256, record),
                    seconds=later)  # fmt: skip
    (row,) = rows(message, received=later * 1000)
    assert times(row) == ("2040-12-24T22:13:18.000Z", "2040-12-24T22:13:18.000Z", "record")


def test_uptimes_count_back_from_the_export() -> None:
    (row,) = rows(netflow5(record5(first=UPTIME - 3000, last=UPTIME - 500)))
    assert times(row) == ("2023-11-14T22:13:17.000Z", "2023-11-14T22:13:19.500Z", "record")


def test_a_flow_may_end_after_the_header_was_written() -> None:
    (row,) = rows(netflow5(record5(first=UPTIME - 1000, last=UPTIME + 20)))
    assert times(row) == ("2023-11-14T22:13:19.000Z", "2023-11-14T22:13:20.020Z", "record")


def test_uptimes_wrap() -> None:
    fields: list[FieldSpec] = [(8, 4), (22, 4), (21, 4)]
    record = ip("10.0.0.1") + struct.pack("!II", 2**32 - 1500, 200)
    (row,) = rows(netflow9(template9(256, fields), set_of(256, record), uptime=500))
    assert times(row) == ("2023-11-14T22:13:18.000Z", "2023-11-14T22:13:19.700Z", "record")


def test_uptimes_in_ipfix_need_the_start_that_options_tell() -> None:
    fields: list[FieldSpec] = [(8, 4), (22, 4), (21, 4)]
    data = set_of(256, ip("10.0.0.1") + struct.pack("!II", 4000, 9000))
    started = (NOW - 10) * 1000
    options = options_template10(300, 1, [(143, 4), (160, 8)])
    told = set_of(300, struct.pack("!IQ", 0, started))
    (row,) = rows(ipfix(template10(256, fields), data, options, told))
    assert times(row) == ("2023-11-14T22:13:14.000Z", "2023-11-14T22:13:19.000Z", "record")
    (row,) = rows(ipfix(template10(256, fields), data))
    assert times(row) == ("2023-11-14T22:13:15.000Z", EXPORT, "received")


def test_a_record_may_tell_the_start_itself() -> None:
    stamp = struct.pack("!IIQ", 4000, 9000, (NOW - 10) * 1000)
    row = one([(22, 4), (21, 4), (160, 8)], stamp)
    assert times(row) == ("2023-11-14T22:13:14.000Z", "2023-11-14T22:13:19.000Z", "record")


def test_a_start_that_cannot_be_is_passed_over() -> None:
    options = options_template10(300, 1, [(143, 4), (160, 9)])
    told = set_of(300, bytes(4) + b"\xff" * 9)
    fields: list[FieldSpec] = [(8, 4), (22, 4), (21, 4)]
    data = set_of(256, ip("10.0.0.1") + struct.pack("!II", 4000, 9000))
    (row,) = rows(ipfix(options, told, template10(256, fields), data))
    assert times(row) == ("2023-11-14T22:13:15.000Z", EXPORT, "received")


def test_a_duration_stands_for_the_time_that_is_not_told() -> None:
    stamp = struct.pack("!QI", (NOW - 10) * 1000, 4000)
    assert times(one([(152, 8), (161, 4)], stamp)) == (
        "2023-11-14T22:13:10.000Z", "2023-11-14T22:13:14.000Z", "record",
    )  # fmt: skip
    assert times(one([(153, 8), (161, 4)], stamp)) == (
        "2023-11-14T22:13:06.000Z", "2023-11-14T22:13:10.000Z", "record",
    )  # fmt: skip


def test_an_event_is_the_end_of_the_connection_it_tells_of() -> None:
    row = one([(323, 8), (152, 8)], struct.pack("!QQ", NOW * 1000, (NOW - 3600) * 1000))
    assert times(row) == ("2023-11-14T21:13:20.000Z", EXPORT, "record")
    row = one([(323, 8)], struct.pack("!Q", NOW * 1000))
    assert times(row) == (EXPORT, EXPORT, "record")


def test_no_times_at_all_are_the_reception() -> None:
    assert times(one([(1, 4)], bytes(4))) == (EXPORT, EXPORT, "received")


@pytest.mark.parametrize("element", [161, 162])
def test_a_duration_alone_ends_at_the_reception(element: int) -> None:
    row = one([(element, 4)], struct.pack("!I", 5_000 if element == 161 else 5_000_000))
    assert times(row) == ("2023-11-14T22:13:15.000Z", EXPORT, "received")


@pytest.mark.parametrize(
    ("fields", "record", "start", "end"),
    [
        # A translator's session that begins ends at 0.
        ([(152, 8), (153, 8)], struct.pack("!QQ", NOW * 1000 - 5_000, 0), "15", "15"),
        ([(150, 4), (151, 4)], struct.pack("!II", NOW - 5, 0), "15", "15"),
        ([(154, 8), (155, 8)], struct.pack("!QQ", NOW - 5 + NTP << 32, 0), "15", "15"),
        ([(152, 8), (153, 8)], struct.pack("!QQ", 0, NOW * 1000 - 5_000), "15", "15"),
        ([(152, 8), (153, 8), (161, 4)], struct.pack("!QQI", 0, NOW * 1000, 3000), "17", "20"),
        ([(152, 8), (153, 8), (161, 4)],
         struct.pack("!QQI", NOW * 1000 - 5_000, 0, 2000), "15", "17"),
        ([(152, 8), (153, 8), (323, 8)],
         struct.pack("!QQQ", NOW * 1000 - 5_000, 0, NOW * 1000 - 1_000), "15", "19"),
        ([(153, 8), (150, 4), (152, 8), (151, 4)],
         struct.pack("!QIQI", 0, NOW - 5, 0, NOW - 3), "15", "17"),
    ],
)  # fmt: skip
def test_a_time_of_zero_is_none(
    fields: list[FieldSpec], record: bytes, start: str, end: str
) -> None:
    assert times(one(fields, record)) == (
        f"2023-11-14T22:13:{start}.000Z", f"2023-11-14T22:13:{end}.000Z", "record",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "last", "length"),
    [
        (NOW + 86_400, NOW + 86_460, 60),  # far in the future: the duration is still good
        (NOW - 864_000, NOW - 863_940, 60),  # long past
        (0, 0, 0),
        (NOW - 5, NOW - 500_000, 0),  # ends long ago, and before it starts
        (2**64 - 1, 2**64 - 1, 0),
    ],
)
def test_times_that_cannot_be_become_the_reception(first: int, last: int, length: int) -> None:
    scale = 1 if first > 2**40 else 1000
    row = one([(152, 8), (153, 8)], struct.pack("!QQ", first * scale, last * scale))
    start = f"2023-11-14T22:{13 - length // 60:02d}:20.000Z"
    assert times(row) == (start, EXPORT, "received")


@pytest.mark.parametrize("start", [NOW - 5, NOW - 400 * 86_400])
def test_of_a_start_that_cannot_be_the_end_stays(start: int) -> None:
    """After the end, or more than a year before."""
    end = NOW - 10
    row = one([(152, 8), (153, 8)], struct.pack("!QQ", start * 1000, end * 1000))
    assert times(row) == (*["2023-11-14T22:13:10.000Z"] * 2, "received")


def test_an_uptime_of_zero_is_one() -> None:
    """Of a device that is just starting, or whose counter just wrapped."""
    fields: list[FieldSpec] = [(8, 4), (22, 4), (21, 4)]
    record = ip("10.0.0.1") + struct.pack("!II", 2**32 - 1500, 2**32 - 500)
    (row,) = rows(netflow9(template9(256, fields), set_of(256, record), uptime=0))
    assert times(row) == ("2023-11-14T22:13:18.500Z", "2023-11-14T22:13:19.500Z", "record")


def test_a_start_just_after_the_end_is_rounding() -> None:
    row = one([(152, 8), (153, 8)], struct.pack("!QQ", NOW * 1000 - 400, NOW * 1000 - 500))
    assert times(row) == ("2023-11-14T22:13:19.500Z", "2023-11-14T22:13:19.500Z", "record")


def test_replaced_times_are_counted_per_device() -> None:
    decoder = Decoder(config.Decode(), [])
    fields: list[FieldSpec] = [(8, 4), (151, 4)]
    record = ip("10.0.0.1") + struct.pack("!I", 1)
    decoder.decode(batch(ipfix(template10(256, fields), set_of(256, record * 3))))
    (device,) = decoder.state.devices.values()
    assert device.times_replaced == 3


def test_the_skew_of_a_clock_is_measured() -> None:
    decoder = Decoder(config.Decode(), [])
    decoder.decode(batch(netflow9(seconds=NOW + 90), received=NOW * 1000))
    (device,) = decoder.state.devices.values()
    assert device.clock_skew == 90.0
