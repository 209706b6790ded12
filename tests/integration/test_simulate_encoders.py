"""Other people's programs read what our encoders write as we meant it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.batch import FlowBatch
from exporter.simulate.encode import (
    Encoder,
    InterfaceCounters,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from exporter.simulate.encode.ipfix import VARIABLE_LAYOUTS
from exporter.simulate.encode.netflow5 import AS_TRANS
from tests.support.flows import one_packet_flows, random_flows, scaled
from tests.support.pcap import write_pcap
from tests.support.peers import nfcapd_records, pmacct_totals, tshark_fields

NOW = 1_760_000_000_000
BOOT = NOW - 10_000_000
DOMAIN = 77
INTERFACES = {1: "ge-0/0/1", 42: "transit-north"}


def netflow5(rate: int = 1) -> Encoder:
    return NetFlow5Encoder(boot=BOOT, observation_domain=DOMAIN, sampling_rate=rate)


def netflow9(rate: int = 1) -> Encoder:
    return NetFlow9Encoder(
        boot=BOOT, observation_domain=DOMAIN, sampling_rate=rate, interfaces=INTERFACES
    )


def ipfix(rate: int = 1) -> Encoder:
    return IpfixEncoder(observation_domain=DOMAIN, sampling_rate=rate, interfaces=INTERFACES)


def ipfix_variable(rate: int = 1) -> Encoder:
    return IpfixEncoder(
        observation_domain=DOMAIN, sampling_rate=rate, interfaces=INTERFACES,
        layouts=VARIABLE_LAYOUTS,
    )  # fmt: skip


Make = Callable[[int], Encoder]
NETFLOWS = [
    pytest.param(netflow5, 4, id="netflow5"),
    pytest.param(netflow9, 4, id="netflow9-ipv4"),
    pytest.param(netflow9, 6, id="netflow9-ipv6"),
    pytest.param(ipfix, 4, id="ipfix-ipv4"),
    pytest.param(ipfix, 6, id="ipfix-ipv6"),
    pytest.param(ipfix_variable, 4, id="ipfix-variable"),
]


def totals(batch: FlowBatch) -> tuple[int, int, int]:
    return int(batch.array("bytes").sum()), int(batch.array("packets").sum()), len(batch)


def milliseconds(text: str) -> int:
    """As nfdump and tshark (``Oct  9, 2025 08:53:07.424000000 UTC``) print times."""
    if text[0].isdigit():
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    else:
        moment = datetime.strptime(text.removesuffix(" UTC")[:-3], "%b %d, %Y %H:%M:%S.%f")
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


@pytest.mark.parametrize(("make", "family"), NETFLOWS)
def test_nfcapd_stores_the_same_flows(make: Make, family: int, tmp_path: Path) -> None:
    batch = random_flows(500, family=family, now=NOW, texts=True)
    stored = nfcapd_records(make(1).encode(batch, NOW), tmp_path)

    source, destination = f"src{family}_addr", f"dst{family}_addr"
    expected = {
        (
            row["src_addr"], row["dst_addr"], row["src_port"], row["proto"], row["packets"],
            row["bytes"], row["in_if"], row["out_if"], row["tos"],
            milliseconds(row["time_flow_start"][:-1]), milliseconds(row["time_flow_end"][:-1]),
        )
        for row in batch.rows()
    }  # fmt: skip
    assert expected == {
        (
            r[source], r[destination], r.get("src_port", 0), r["proto"], r["in_packets"],
            r["in_bytes"], r["input_snmp"], r["output_snmp"], r["src_tos"],
            milliseconds(r["first"]), milliseconds(r["last"]),
        )
        for r in stored
    }  # fmt: skip
    assert len(stored) == len(batch)
    assert b"Sequence Errors: 0, Bad Packets: 0" in (tmp_path / "nfcapd.log").read_bytes()


def test_pmacct_scales_sampled_flows_to_the_same_totals(tmp_path: Path) -> None:
    rate = 100
    sflow5 = SFlow5Encoder(agent="192.0.2.9", boot=BOOT, sampling_rate=rate)
    cases = [
        ("nfacctd", netflow5(rate), scaled(random_flows(500, now=NOW), rate)),
        ("nfacctd", netflow9(rate), scaled(random_flows(500, now=NOW, family=0), rate)),
        ("nfacctd", ipfix(rate), scaled(random_flows(500, now=NOW, family=0), rate)),
        ("sfacctd", sflow5, one_packet_flows(500, rate=rate)),
    ]

    def run(number: int) -> tuple[int, int, int]:
        daemon, encoder, batch = cases[number]
        capture = tmp_path / f"{number}.pcap"
        write_pcap(capture, encoder.encode(batch, NOW), port=2055)
        return pmacct_totals(daemon, capture, tmp_path / str(number))

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(run, range(len(cases)))) == [totals(case[2]) for case in cases]


COLUMNS = {
    "cflow.octets": "bytes",
    "cflow.packets": "packets",
    "cflow.srcport": "src_port",
    "cflow.protocol": "proto",
    "cflow.tos": "tos",
    "cflow.inputint": "in_if",
    "cflow.outputint": "out_if",
    "cflow.dstas": "dst_as",
    "cflow.srcas": "src_as",
}
FURTHER = {
    "cflow.forwarding_status": "forwarding_status",
    "cflow.vlanid": "src_vlan",
    "cflow.post_vlanid": "dst_vlan",
}
BY_FAMILY = {
    4: {"cflow.srcaddr": "src_addr", "cflow.dstaddr": "dst_addr", "cflow.nexthop": "next_hop",
        "cflow.srcmask": "src_prefix_len", "cflow.dstmask": "dst_prefix_len"},
    6: {"cflow.srcaddrv6": "src_addr", "cflow.dstaddrv6": "dst_addr",
        "cflow.nexthopv6": "next_hop", "cflow.srcmaskv6": "src_prefix_len",
        "cflow.dstmaskv6": "dst_prefix_len"},
}  # fmt: skip


def as_told(value: str) -> int | str:
    """A number where it is one; Wireshark prints some in hexadecimal."""
    try:
        return int(value, 0)
    except ValueError:
        return value


def flattened(frames: list[dict[str, list[str]]], name: str) -> list[str]:
    return [value for frame in frames for value in frame[name]]


@pytest.mark.parametrize(("make", "family"), NETFLOWS)
def test_wireshark_reads_the_same_fields(make: Make, family: int, tmp_path: Path) -> None:
    batch = random_flows(300, family=family, now=NOW, texts=True)
    encoder = make(1)
    # Two calls, so that sequence numbers carry over.
    half = len(batch) // 2
    datagrams = encoder.encode(batch.take(np.arange(half)), NOW)
    datagrams += encoder.encode(batch.take(np.arange(half, len(batch))), NOW + 1000)
    assert max(map(len, datagrams)) <= 1400
    capture = tmp_path / "flows.pcap"
    write_pcap(capture, datagrams, port=2055)

    columns = COLUMNS | BY_FAMILY[family] | ({} if make is netflow5 else FURTHER)
    if make is ipfix_variable:
        columns |= {"cflow.vrfname": "vrf", "cflow.http_request_host": "http_host"}
    also = ["cflow.sequence_analysis.expected_sn", "_ws.malformed"]
    starts = "cflow.timestart" if make in (netflow5, netflow9) else "cflow.abstimestart"
    frames = tshark_fields(capture, [*columns, *also, starts], port=2055, protocol="cflow")

    assert [flattened(frames, name) for name in also] == [[], []]
    rows = list(batch.rows())
    for name, column in columns.items():
        expected: list[Any] = [row[column] for row in rows]
        if make is netflow5 and column.endswith("_as"):
            expected = [number if number < 65536 else AS_TRANS for number in expected]
        if column == "forwarding_status":
            expected = [status >> 6 for status in expected]  # the field shows the two high bits
        if name == "cflow.inputint" and make in (ipfix, ipfix_variable):
            # The scope of the interface names is this field, too.
            expected = [*INTERFACES, *expected]
        read = [as_told(value) for value in flattened(frames, name)]
        assert read == [value for value in expected if value != ""], name
    if starts == "cflow.timestart":
        told = [BOOT + round(float(value) * 1000) for value in flattened(frames, starts)]
    else:
        told = [milliseconds(value) for value in flattened(frames, starts)]
    assert told == batch.array("time_flow_start").tolist()


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (netflow5, {"cflow.samplingmode": "1", "cflow.samplerate": "100"}),
        (netflow9, {"cflow.sampler_mode": "2", "cflow.sampler_random_interval": "100"}),
        (ipfix, {"cflow.sampling_packet_interval": "1", "cflow.sampling_packet_space": "99"}),
    ],
)
def test_wireshark_reads_the_sampling_rate(
    make: Make, fields: dict[str, str], tmp_path: Path
) -> None:
    batch = scaled(random_flows(20, now=NOW), 100)
    capture = tmp_path / "flows.pcap"
    write_pcap(capture, make(100).encode(batch, NOW), port=2055)
    frames = tshark_fields(capture, [*fields, "cflow.octets"], port=2055, protocol="cflow")
    for name, value in fields.items():
        assert set(flattened(frames, name)) == {value}, name
    assert sum(map(int, flattened(frames, "cflow.octets"))) * 100 == totals(batch)[0]


@pytest.mark.parametrize("family", [4, 6])
def test_wireshark_reads_sflow_samples_and_the_packets_in_them(family: int, tmp_path: Path) -> None:
    rate = 512
    batch = one_packet_flows(300, rate=rate, family=family)
    encoder = SFlow5Encoder(agent="192.0.2.9", boot=BOOT, sampling_rate=rate)
    datagrams = encoder.encode(batch, NOW)
    datagrams += encoder.encode_counters([InterfaceCounters(3, 10**10, 2**40, 6, 7, 8)], NOW)
    assert max(map(len, datagrams)) <= 1400
    capture = tmp_path / "flows.pcap"
    write_pcap(capture, datagrams, port=6343)

    ip = "ip" if family == 4 else "ipv6"
    length = "ip.len" if family == 4 else "ipv6.plen"
    hop = "sflow_245.nexthop" + ("" if family == 4 else ".v6")
    fields = [
        "sflow.flow_sample.sampling_rate", "sflow_245.header.frame_length",
        "sflow_245.vlan.in", "sflow_245.vlan.out", hop, "sflow_245.nexthop.src_mask",
        "sflow_245.nexthop.dst_mask", "sflow_245.srcAS", "sflow_245.dstAS", "sflow_245.ifinoct",
        "_ws.malformed", "sflow_245.sequence_number",
        f"{ip}.src", f"{ip}.dst", length, "tcp.srcport", "udp.dstport", "tcp.flags",
    ]  # fmt: skip
    frames = tshark_fields(capture, fields, port=6343, protocol="sflow")

    rows = list(batch.rows())
    frame_lengths = [row["bytes"] // rate for row in rows]
    lengths = [size - 18 for size in frame_lengths]  # Ethernet header, frame check sequence
    outer = ["127.0.0.1"] if family == 4 else []
    samples = frames[:-1]
    assert sum(len(f["sflow.flow_sample.sampling_rate"]) for f in samples) == len(batch)
    assert set(flattened(frames, "sflow.flow_sample.sampling_rate")) == {str(rate)}
    assert flattened(frames, "_ws.malformed") == []
    assert flattened(frames, "sflow_245.ifinoct") == [str(2**40)]
    assert flattened(frames, "sflow_245.sequence_number") == [
        str(n + 1) for n in range(len(datagrams))
    ]
    for name, expected in (
        ("sflow_245.header.frame_length", frame_lengths),
        ("sflow_245.vlan.in", [row["src_vlan"] for row in rows]),
        ("sflow_245.vlan.out", [row["dst_vlan"] for row in rows]),
        ("sflow_245.nexthop.src_mask", [row["src_prefix_len"] for row in rows]),
        ("sflow_245.srcAS", [row["src_as"] for row in rows]),
        ("sflow_245.dstAS", [row["dst_as"] for row in rows]),
    ):
        assert flattened(frames, name) == [str(value) for value in expected], name
    inner = [f[f"{ip}.src"][len(outer) :] for f in samples]
    assert [a for part in inner for a in part] == [row["src_addr"] for row in rows]
    told = [int(n) for f in samples for n in f[length][len(outer) :]]
    assert told == (lengths if family == 4 else [size - 40 for size in lengths])
    tcp = [row for row in rows if row["proto"] == 6]
    assert flattened(frames, "tcp.srcport") == [str(row["src_port"]) for row in tcp]
    assert [int(f, 16) for f in flattened(frames, "tcp.flags")] == [r["tcp_flags"] for r in tcp]


def test_what_a_protocol_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="IPv4 only"):
        netflow5().encode(random_flows(3, family=6), NOW)
    with pytest.raises(ValueError, match="multiples of the sampling rate"):
        netflow9(100).encode(random_flows(3), NOW)
    large = random_flows(3)
    large.array("bytes")[:] = 1 << 40
    with pytest.raises(ValueError, match="does not fit 4 octets"):
        netflow9().encode(large, NOW)
    with pytest.raises(ValueError, match="one packet"):
        SFlow5Encoder(agent="::1", boot=BOOT, sampling_rate=2).encode(scaled(large, 2), NOW)
    mixed = random_flows(3)
    mixed.array("src_addr")[:] = np.frombuffer(ipaddress.ip_address("2001:db8::1").packed, np.uint8)
    with pytest.raises(ValueError, match="different address families"):
        ipfix().encode(mixed, NOW)


def test_templates_are_sent_again_by_count_and_by_age() -> None:
    encoder = NetFlow9Encoder(boot=BOOT, refresh_packets=3, refresh_seconds=30)
    datagrams = encoder.encode(random_flows(28 * 7), NOW)
    with_templates = [i for i, d in enumerate(datagrams) if d[20:22] == b"\0\0"]
    assert with_templates == [0, 4, 8]
    one = random_flows(1)
    encoder = NetFlow9Encoder(boot=BOOT, refresh_seconds=30)
    counts = [len(encoder.encode(one, NOW + 1000 * second)) for second in (0, 1, 29, 30, 31)]
    assert counts == [2, 1, 1, 2, 1]
