"""What the encoders send, the decoders read: two writings of the specifications agree."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import DictColumn, FlowBatch, concat
from exporter.config import Config
from exporter.decode import Decoder
from exporter.receive.datagrams import DatagramBatch
from exporter.receive.grpc.records import RecordReader
from exporter.schema import Direction
from exporter.simulate.encode import (
    EbpfEncoder,
    Encoder,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from exporter.simulate.encode.ipfix import NAT_LAYOUTS, VARIABLE_LAYOUTS
from tests.support.flows import one_packet_flows, random_flows, scaled

NOW = 1_760_000_000_000
BOOT = NOW - 10_000_000
RATE = 100

BASIC = {
    "bytes", "packets", "src_addr", "dst_addr", "next_hop", "etype", "proto", "src_port", "tos",
    "tcp_flags", "in_if", "out_if", "src_prefix_len", "dst_prefix_len",
}  # fmt: skip
TIMES = {"time_flow_start", "time_flow_end"}
ROUTER = BASIC | TIMES | {
    "dst_port", "src_as", "dst_as", "icmp_type", "icmp_code", "src_vlan", "dst_vlan",
    "direction", "forwarding_status",
}  # fmt: skip
SWITCH = BASIC | {"dst_port", "src_as", "dst_as", "icmp_type", "icmp_code", "src_vlan",
                  "dst_vlan", "src_mac", "dst_mac"}  # fmt: skip


def received(datagrams: list[bytes]) -> DatagramBatch:
    count = len(datagrams)
    sender = np.frombuffer(pack_address("192.0.2.7"), np.uint8)
    return DatagramBatch.of(
        datagrams,
        np.tile(sender, (count, 1)),
        np.full(count, 40000, np.uint16),
        np.full(count, NOW, np.int64),
    )


def rows_of(batch: FlowBatch, columns: set[str]) -> list[tuple[object, ...]]:
    cells = []
    for name in sorted(columns):
        column = batch.columns[name]
        if isinstance(column, DictColumn):
            cells.append([column.values[code] for code in column.codes])
        elif column.ndim == 2:
            cells.append([row.tobytes() for row in column])
        else:
            cells.append(column.tolist())
    return sorted(zip(*cells, strict=True))


def routed(encoder: type[Encoder], **options: object) -> Encoder:
    return encoder(boot=BOOT, sampling_rate=RATE, observation_domain=7, **options)


MAKERS = {
    "netflow5": lambda: routed(NetFlow5Encoder),
    "netflow9": lambda: routed(NetFlow9Encoder),
    "ipfix": lambda: routed(IpfixEncoder),
    "ipfix-variable": lambda: routed(IpfixEncoder, layouts=VARIABLE_LAYOUTS),
    "ipfix-nat": lambda: routed(IpfixEncoder, layouts=NAT_LAYOUTS),
    "sflow5": lambda: SFlow5Encoder(
        agent="192.0.2.7", boot=BOOT, sampling_rate=RATE, observation_domain=7
    ),
}
COLUMNS = {
    "netflow5": BASIC | TIMES,
    "netflow9": ROUTER,
    "ipfix": ROUTER,
    "ipfix-variable": ROUTER | {"app", "vrf", "http_host"},
    "ipfix-nat": ROUTER | {"nat_src_addr", "nat_src_port"},
    "sflow5": SWITCH,
}
IPV4_ONLY = {"netflow5", "ipfix-nat"}


@pytest.mark.parametrize(
    ("protocol", "family"),
    [
        (name, family)
        for name in MAKERS
        for family in (4, 6)
        if family == 4 or name not in IPV4_ONLY
    ],
)
def test_every_column_comes_out_as_it_went_in(protocol: str, family: int) -> None:
    made, columns = MAKERS[protocol](), COLUMNS[protocol]
    if protocol == "sflow5":
        batch = one_packet_flows(2000, rate=RATE, family=family)
    else:
        batch = scaled(random_flows(2000, family=family, now=NOW, texts=True), RATE)
    if "nat_src_addr" in columns:
        batch.columns["nat_src_addr"] = batch.array("next_hop")
        batch.columns["nat_src_port"] = batch.array("src_vlan")

    decoded = concat(Decoder(Config().decode, []).decode(received(made.encode(batch, NOW))))

    assert len(decoded) == len(batch)
    assert rows_of(decoded, columns) == rows_of(batch, columns)
    assert set(decoded.array("sampling_rate").tolist()) == {RATE}
    assert set(decoded.array("observation_domain").tolist()) == {7}


@pytest.mark.parametrize("family", [4, 6])
def test_what_an_agent_tells_comes_out_as_it_went_in(family: int) -> None:
    batch = random_flows(1500, family=family, now=NOW)
    batch.columns["direction"] = np.resize(
        np.array([Direction.INGRESS, Direction.EGRESS], np.int8), len(batch)
    )
    comes = batch.array("direction") == Direction.INGRESS
    for side, rows in (("in", comes), ("out", ~comes)):
        batch.columns[f"{side}_if_name"] = DictColumn(rows.astype(np.uint32), ["", "eth0"])
    agent = pack_address("10.0.2.4")

    messages = EbpfEncoder(agent="10.0.2.4").encode(batch, NOW)
    read = [RecordReader([]).read(message, bytes(16), NOW) for message in messages]

    assert len(messages) == 2
    assert not any(faults for _, faults in read)
    decoded = concat([flows for flows, _ in read])
    columns = TIMES | {
        "bytes", "packets", "src_addr", "dst_addr", "etype", "proto", "src_port", "dst_port",
        "direction", "in_if_name", "out_if_name",
    }  # fmt: skip
    assert rows_of(decoded, columns) == rows_of(batch, columns)
    assert {row.tobytes() for row in decoded.array("device_addr")} == {agent}
