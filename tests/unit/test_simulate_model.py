"""The simulated datacenter: the same for the same seed, quiet when normal, loud in a spike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from exporter.address import pack_address
from exporter.batch import FlowBatch, concat
from exporter.config import Config
from exporter.enrich.geo_as_names import read_names
from exporter.simulate.demo import demo_config, write_as_names
from exporter.simulate.devices import DEVICES
from exporter.simulate.drawing import Traffic
from exporter.simulate.scenarios import SCENARIOS
from exporter.simulate.senders import encoder_for
from exporter.simulate.site import HOSTS, SERVICES, SPIKE_AS
from exporter.simulate.streams import Rhythm
from exporter.simulate.traffic import AGGREGATOR, normal_streams
from tests.support.simulated import once

# A Thursday.
DAY = 1_760_000_000_000 // 86_400_000 * 86_400_000
HOUR = 3_600_000
POLICIES = yaml.safe_load(
    (Path(__file__).parents[2] / "alerting/policies.yaml").read_text(encoding="utf-8")
)["policies"]


def seconds_of(
    scenario: str, hour: int, count: int, *, seed: int = 1, rate: float = 0
) -> FlowBatch:
    traffic = Traffic(SCENARIOS[scenario].streams, seed=seed, flows_per_second=rate)
    begin = DAY + hour * HOUR
    step = 10
    return concat(
        [
            once(traffic.flows(begin + second * 1000, float(second), seconds=float(step)))
            for second in range(0, count, step)
        ]
    )


def threshold(policy: str) -> float:
    (found,) = (p for p in POLICIES if p["name"] == policy)
    return float(found["bounds"]["above"]["static"])


def per_host(flows: FlowBatch, measure: str) -> dict[bytes, float]:
    sums: dict[bytes, float] = {}
    for address, value in zip(flows.array("dst_addr"), flows.array(measure).tolist(), strict=True):
        key = address.tobytes()
        sums[key] = sums.get(key, 0.0) + value
    return sums


def messages(scenario: str, seed: int) -> list[bytes]:
    """What all devices send in three seconds."""
    traffic = Traffic(SCENARIOS[scenario].streams, seed=seed)
    encoders = {name: encoder_for(device, boot=DAY) for name, device in DEVICES.items()}
    return [
        message
        for second in range(20, 23)
        for name, flows in sorted(traffic.flows(DAY + second * 1000, float(second)).items())
        for message in encoders[name].encode(flows, DAY + (second + 1) * 1000)
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_gives_the_same_bytes(scenario: str) -> None:
    assert messages(scenario, 3) == messages(scenario, 3)
    assert messages(scenario, 3) != messages(scenario, 4)


def test_ingest_of_the_overwhelmed_node_has_room_for_a_dip_at_any_hour_of_the_week() -> None:
    (policy,) = (p for p in POLICIES if p["name"] == "service_dip")
    times = DAY + np.arange(7 * 24) * HOUR
    ingest = sum(
        stream.bits_per_second * stream.rhythm.levels(times)
        for stream in normal_streams()
        if stream.name in (f"ingest-{AGGREGATOR}-edge1", f"ingest-{AGGREGATOR}-edge2")
    )
    # As the rules have it: what is lower than half of the usual by less than the minimum is small.
    below = policy["bounds"]["below"]["baseline_ratio"] * ingest - policy["minimum"]
    assert (below > 0.2 * ingest).all()


@pytest.mark.parametrize("hour", [4, 13, 19])
def test_a_normal_day_stays_well_below_the_shipped_thresholds(hour: int) -> None:
    seconds = 120
    flows = seconds_of("normal", hour, seconds)
    bits = max(per_host(flows, "bytes").values()) * 8 / seconds
    packets = max(per_host(flows, "packets").values()) / seconds
    assert bits < 0.6 * threshold("host_bits")
    assert packets < 0.6 * threshold("host_packets")

    known = np.isin(flows.array("dst_port"), [port for _, port in SERVICES.values()])
    sources: dict[tuple[bytes, int], set[bytes]] = {}
    served = flows.take(known)
    for source, target, port in zip(
        served.array("src_addr"), served.array("dst_addr"), served.array("dst_port"), strict=True
    ):
        sources.setdefault((target.tobytes(), int(port)), set()).add(source.tobytes())
    assert max(map(len, sources.values())) < 0.9 * threshold("service_sources")


@pytest.mark.parametrize("hour", [4, 19])
def test_the_load_spike_exceeds_the_thresholds_for_one_host_alone(hour: int) -> None:
    seconds = 60
    flows = seconds_of("load-spike", hour, seconds)
    for measure, policy, unit in (("bytes", "host_bits", 8), ("packets", "host_packets", 1)):
        limit = threshold(policy)
        over = {
            host for host, sum_ in per_host(flows, measure).items() if sum_ * unit / seconds > limit
        }
        assert over == {pack_address(HOSTS["fl13"])}, policy
    to_fl13 = flows.take((flows.array("dst_addr") == list(pack_address(HOSTS["fl13"]))).all(axis=1))
    by_as: dict[int, int] = {}
    for number, octets in zip(
        to_fl13.array("src_as").tolist(), to_fl13.array("bytes").tolist(), strict=True
    ):
        by_as[number] = by_as.get(number, 0) + octets
    assert max(by_as, key=by_as.__getitem__) == SPIKE_AS.asn
    assert by_as[SPIKE_AS.asn] > 0.8 * sum(by_as.values())


def test_the_rate_changes_the_number_of_flows_and_not_the_volume() -> None:
    few, many = (seconds_of("normal", 19, 60, rate=rate) for rate in (100, 1000))
    switched = sum(
        len(batch)
        for second in range(60)
        for name, batch in Traffic(SCENARIOS["normal"].streams, seed=1)
        .flows(DAY + 19 * HOUR + second * 1000, float(second))
        .items()
        if DEVICES[name].protocol == "sflow5"
    )
    assert len(many) - switched > 4 * (len(few) - switched)
    assert int(many.array("bytes").sum()) == pytest.approx(int(few.array("bytes").sum()), rel=0.2)


def test_rhythm() -> None:
    rhythm = Rhythm(night=0.4, weekend=0.5, peak_hour=19)
    times = np.array([DAY + 19 * HOUR, DAY + 7 * HOUR, DAY + 48 * HOUR + 19 * HOUR])
    assert rhythm.levels(times) == pytest.approx([1.0, 0.4, 0.5])


def test_the_demo_configuration_is_valid_and_names_every_device_host_and_as(
    tmp_path: Path,
) -> None:
    config = Config.model_validate(demo_config())
    assert {d.address: d.name for d in config.devices} == {
        d.address: d.name for d in DEVICES.values()
    }
    hosts = {host.name: host for host in config.hosts}
    assert {"k122", "k212", "fl13", "ag04"} <= hosts.keys()
    assert (hosts["k122"].role, hosts["k122"].owner) == ("dev-vm", "interns")
    edges = [device for device in config.devices if device.role == "router"]
    assert len({device.interfaces[1].provider for device in edges}) == 2
    write_as_names(tmp_path / "names.csv")
    told = read_names(str(tmp_path / "names.csv"))
    assert told[SPIKE_AS.asn] == "Example Transit"
    flows = seconds_of("rogue-host", 12, 60)
    assert set(flows.array("src_as").tolist()) - {0} <= told.keys()


def test_the_command_lists_scenarios_and_refuses_others() -> None:
    command = [sys.executable, "-m", "exporter", "simulate"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(SCENARIOS)
    refused = subprocess.run([*command, "nothing"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no scenario is named 'nothing'" in refused.stderr
