"""Each story is in the packets as it is told, with its traps: asserted from decoded flows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch, concat
from exporter.config import Config
from exporter.decode import Decoder
from exporter.receive.datagrams import DatagramBatch
from exporter.receive.grpc.records import RecordReader
from exporter.schema import Direction
from exporter.simulate.devices import DEVICES
from exporter.simulate.drawing import Traffic
from exporter.simulate.scenarios import (
    SCENARIOS,
    load_spike,
    query_fanin,
    registry_429,
    rogue_host,
)
from exporter.simulate.senders import encoder_for
from exporter.simulate.site import (
    HOSTS,
    NAT_PUBLIC,
    REGISTRY,
    ROGUE,
    SERVICES,
    SPIKE_AS,
    WORKERS,
    responsible,
)
from tests.support.simulated import of, once, total

# A Thursday.
DAY = 1_760_000_000_000 // 86_400_000 * 86_400_000
HOUR = 3_600_000
MINUTE = 60_000
AGGREGATION = SERVICES["aggregation"][1]
INGEST = SERVICES["ingest"][1]


@cache
def told(scenario: str, elapsed: float, minutes: int = 1) -> dict[str, FlowBatch]:
    """What the collector decodes of the minutes from ``elapsed`` seconds on, by device."""
    chosen = SCENARIOS[scenario]
    traffic = Traffic(chosen.streams, seed=1)
    begin = DAY + int(chosen.hour * HOUR) + int(elapsed * 1000)
    drawn = [
        traffic.flows(begin + n * MINUTE, elapsed + n * 60.0, seconds=60.0) for n in range(minutes)
    ]
    end = begin + minutes * MINUTE
    seen: dict[str, FlowBatch] = {}
    for name, device in DEVICES.items():
        encoder = encoder_for(device, boot=DAY - HOUR)
        messages = [
            message
            for n, flows in enumerate(drawn)
            if name in flows
            for message in encoder.encode(flows[name], begin + (n + 1) * MINUTE)
        ]
        if messages and device.protocol == "ebpf":
            seen[name] = concat([read(message, end) for message in messages])
        elif messages:
            seen[name] = concat(list(decoded(messages, device.address, end)))
    return seen


def read(message: bytes, time: int) -> FlowBatch:
    flows, faults = RecordReader([]).read(message, bytes(16), time)
    assert not faults
    return flows


def decoded(datagrams: list[bytes], sender: str, time: int) -> Sequence[FlowBatch]:
    count = len(datagrams)
    address = np.tile(np.frombuffer(pack_address(sender), np.uint8), (count, 1))
    received = DatagramBatch.of(
        datagrams, address, np.full(count, 40000, np.uint16), np.full(count, time, np.int64)
    )
    return Decoder(Config().decode, []).decode(received)


def everything(scenario: str, elapsed: float, minutes: int = 1) -> FlowBatch:
    return once(told(scenario, elapsed, minutes))


def sources(flows: FlowBatch) -> set[bytes]:
    return {row.tobytes() for row in flows.array("src_addr")}


# 1. Pushes to the registry fail


def by_device_at_registry(elapsed: float, measure: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, flows in told("registry-429", elapsed, 5).items():
        concerned = of(flows, "src_addr", HOSTS[REGISTRY]) | of(flows, "dst_addr", HOSTS[REGISTRY])
        if concerned.any():
            found[name] = total(flows.take(concerned), measure) / 300
    return found


def ranked(values: dict[str, float]) -> list[str]:
    return sorted(values, key=values.__getitem__, reverse=True)


def test_registry_two_vms_send_most_packets_and_bits_hide_them() -> None:
    packets = by_device_at_registry(3600, "packets")
    assert set(ranked(packets)[:2]) == set(registry_429.VMS) == {"k122", "k212"}
    assert packets[ranked(packets)[1]] > 2 * packets[ranked(packets)[2]]
    assert not set(ranked(by_device_at_registry(3600, "bytes"))[:4]) & set(registry_429.VMS)
    assert len(packets) > 20, "many hosts talk to the registry now and then"
    assert {responsible(name) for name in registry_429.VMS} == {("dev-vm", "interns")}


def test_registry_packets_are_small_and_stop_shortly_after_eleven() -> None:
    flows = told("registry-429", 3600, 5)["k122"]
    pushed = flows.take(of(flows, "dst_addr", HOSTS[REGISTRY]))
    assert total(pushed, "bytes") / total(pushed, "packets") < 120

    end = SCENARIOS["registry-429"].hour + registry_429.END / 3600
    assert 11 < end < 11.1
    before = by_device_at_registry(registry_429.END - 300, "packets")
    after = by_device_at_registry(registry_429.END, "packets")
    for name in registry_429.VMS:
        assert after.get(name, 0.0) < 0.02 * before[name]


def test_registry_nothing_exceeds_a_bound() -> None:
    flows = everything("registry-429", 3600)
    to_registry = flows.take(of(flows, "dst_addr", HOSTS[REGISTRY]))
    assert total(to_registry, "packets") / 60 < 10_000
    assert total(to_registry, "bytes") * 8 / 60 < 50e6


# 2. Load spike on an ingest node


def test_spike_one_as_sends_several_times_the_usual_to_one_node() -> None:
    spike, usual = (
        flows.take(of(flows, "dst_addr", HOSTS[load_spike.NODE]))
        for flows in (everything("load-spike", 60), everything("normal", 22.25 * 3600))
    )
    assert total(spike, "bytes") > 5 * total(usual, "bytes")
    assert total(spike, "packets") > 5 * total(usual, "packets")
    from_as = spike.take(spike.array("src_as") == SPIKE_AS.asn)
    assert SPIKE_AS.asn > 1 << 16
    assert total(from_as, "bytes") > 0.8 * total(spike, "bytes")
    assert set(from_as.array("dst_port").tolist()) == {INGEST}


# 3. Queries slow down


def test_fanin_more_than_fifty_workers_answer_one_node_at_once() -> None:
    flows = everything("query-fanin", 60)
    answers = flows.take(
        of(flows, "dst_addr", HOSTS[query_fanin.NODE]) & (flows.array("dst_port") == AGGREGATION)
    )
    workers = {pack_address(address) for address in WORKERS.values()}
    assert len(sources(answers) & workers) >= 50

    quiet = everything("query-fanin", -120)
    before = quiet.take(
        of(quiet, "dst_addr", HOSTS[query_fanin.NODE]) & (quiet.array("dst_port") == AGGREGATION)
    )
    assert len(sources(before)) < 30


def test_fanin_twenty_nodes_exceed_twenty_gigabits_in_sum() -> None:
    nodes = {pack_address(a) for n, a in HOSTS.items() if n[:2] in ("ag", "wk")}
    assert len(nodes) == 20
    inside = nodes | {pack_address(address) for address in WORKERS.values()}

    def among(elapsed: float) -> float:
        flows = everything("query-fanin", elapsed)
        chosen = np.array(
            [
                a.tobytes() in inside and b.tobytes() in inside
                for a, b in zip(flows.array("src_addr"), flows.array("dst_addr"), strict=True)
            ]
        )
        return total(flows.take(chosen), "bytes") * 8 / 60

    assert among(60) > 20e9
    assert 0.03e9 < among(-120) < 1e9


def test_fanin_ingest_of_the_same_node_dips_in_the_same_minutes_and_comes_back() -> None:
    def ingest(elapsed: float) -> float:
        flows = everything("query-fanin", elapsed, 2)
        return total(
            flows.take(
                of(flows, "dst_addr", HOSTS[query_fanin.NODE]) & (flows.array("dst_port") == INGEST)
            ),
            "bytes",
        )

    before, meanwhile, after = ingest(-130), ingest(60), ingest(query_fanin.END + 1)
    assert meanwhile < 0.2 * before
    assert after > 0.6 * before


def test_fanin_agents_at_both_ends_report_the_same_flow() -> None:
    seen = told("query-fanin", 60)

    def answers(flows: FlowBatch, way: Direction) -> dict[tuple[bytes, int], int]:
        rows = flows.take(
            (flows.array("direction") == way)
            & of(flows, "dst_addr", HOSTS[query_fanin.NODE])
            & (flows.array("dst_port") == AGGREGATION)
        )
        return {
            (source.tobytes(), port): octets
            for source, port, octets in zip(
                rows.array("src_addr"),
                rows.array("src_port").tolist(),
                rows.array("bytes").tolist(),
                strict=True,
            )
            if source.tobytes() in workers
        }

    workers = {pack_address(address) for address in WORKERS.values()}
    come = answers(seen[query_fanin.NODE], Direction.INGRESS)
    leave: dict[tuple[bytes, int], int] = {}
    for name, flows in seen.items():
        if name.startswith("wk"):
            leave |= answers(flows, Direction.EGRESS)
    assert leave
    assert come == leave


# 4. A rogue host


def test_rogue_was_never_seen_before() -> None:
    for elapsed in (-3600.0, -400.0):
        flows = everything("rogue-host", elapsed, 5)
        assert not (of(flows, "src_addr", HOSTS[ROGUE]) | of(flows, "dst_addr", HOSTS[ROGUE])).any()


def test_rogue_looks_like_a_workstation_and_mines_over_the_transit_of_production() -> None:
    seen = told("rogue-host", 60, 5)
    services: dict[int, set[str]] = defaultdict(set)
    for name, flows in seen.items():
        for port in set(flows.take(of(flows, "src_addr", HOSTS[ROGUE])).array("dst_port").tolist()):
            services[port].add(name)
    for service in ("https", "http", "imaps", "dns", "proxy", "stratum"):
        assert SERVICES[service][1] in services, service
    edge = seen["edge1"]
    mining = edge.take(of(edge, "src_addr", HOSTS[ROGUE]) & (edge.array("dst_port") == 3333))
    assert len({row.tobytes() for row in mining.array("dst_addr")}) > 0.9 * len(rogue_host.POOLS)
    production = edge.take(of(edge, "src_addr", HOSTS["fl13"]))
    names = DEVICES["edge1"].interfaces
    assert {names[i] for i in set(mining.array("out_if").tolist())} == {"transit-north"}
    assert set(mining.array("out_if").tolist()) == set(production.array("out_if").tolist())


@pytest.mark.parametrize("place", [NAT_PUBLIC, HOSTS["proxy01"], HOSTS[ROGUE]])
def test_rogue_raises_the_number_of_sources_at(place: str) -> None:
    counts = []
    for elapsed in (-400.0, 60.0):
        flows = everything("rogue-host", elapsed, 5)
        counts.append(len(sources(flows.take(of(flows, "dst_addr", place)))))
    before, meanwhile = counts
    assert meanwhile > 100
    assert meanwhile > 2.5 * before
