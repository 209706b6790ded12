"""A story's past is the traffic that live sending would have been, in fewer records."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch, concat, format_address
from exporter.simulate.drawing import Traffic
from exporter.simulate.history import CHUNK, History
from exporter.simulate.lookups import Asking
from exporter.simulate.scenarios import SCENARIOS, Scenario, told_together
from exporter.simulate.site import HOSTS, NAT_PUBLIC, ROGUE
from exporter.simulate.telemetry import Telemetry, past_samples

# A Thursday.
DAY = 1_760_000_000_000 // 86_400_000 * 86_400_000
HOUR = 3_600_000
MINUTE = 60_000
NAMES = {address: name for name, address in HOSTS.items()} | {NAT_PUBLIC: "nat"}


def past(scenario: Scenario, begin: int, end: int, *, origin: int = 0, seed: int = 1) -> FlowBatch:
    history = History(told_together([(scenario, 0.0)]), origin or begin, seed)
    return concat([flows for _, flows in history.chunks(begin, end)])


def live(scenario: Scenario, begin: int, end: int, *, origin: int = 0) -> FlowBatch:
    traffic = Traffic(scenario.streams, seed=1)
    elapsed = (begin - (origin or begin)) / 1000
    return concat(
        [
            flows
            for n in range((end - begin) // MINUTE)
            for flows in traffic.flows(
                begin + n * MINUTE, elapsed + n * 60.0, seconds=60.0
            ).values()
        ]
    )


def per_host(flows: FlowBatch, measure: str) -> dict[str, float]:
    """Sums by destination."""
    sums: dict[str, float] = defaultdict(float)
    values = flows.array(measure).astype(np.float64).tolist()
    for address, value in zip(flows.array("dst_addr"), values, strict=True):
        name = format_address(address.tobytes())
        sums[NAMES.get(name, name)] += value
    return sums


def sources(flows: FlowBatch, address: str, start: int) -> set[bytes]:
    """Who talked to it in the five minutes from ``start`` on."""
    ended = flows.array("time_flow_end")
    rows = (flows.array("dst_addr") == np.frombuffer(pack_address(address), np.uint8)).all(axis=1)
    rows &= (ended >= start) & (ended < start + 5 * MINUTE)
    return {row.tobytes() for row in flows.array("src_addr")[rows]}


@pytest.mark.parametrize("hour", [4, 19])
def test_bits_and_packets_per_host_and_hour_are_those_of_live_sending(hour: int) -> None:
    begin = DAY + hour * HOUR
    told, sent = (make(SCENARIOS["normal"], begin, begin + HOUR) for make in (past, live))
    assert len(told) < 0.5 * len(sent)
    for measure in ("bytes", "packets"):
        one, other = per_host(told, measure), per_host(sent, measure)
        # Those with enough flows in an hour for two samples of them to be alike.
        ours = [name for name in other if name[:2] in ("fl", "ag", "db", "we", "pr", "na")]
        assert len(ours) > 20
        for name in ours:
            assert one[name] == pytest.approx(other[name], rel=0.2), (name, measure)


def test_hosts_hear_from_as_many_sources_in_five_minutes_as_live() -> None:
    begin = DAY + 9 * HOUR
    scenario = SCENARIOS["rogue-host"]
    origin = begin + HOUR // 2
    told, sent = (make(scenario, begin, begin + HOUR, origin=origin) for make in (past, live))
    for address in (NAT_PUBLIC, *(HOSTS[name] for name in ("proxy01", "fl13", "ag04", ROGUE))):
        for start in (begin + 10 * MINUTE, begin + 45 * MINUTE):
            one, other = (len(sources(flows, address, start)) for flows in (told, sent))
            assert one == pytest.approx(other, abs=max(4, 0.2 * other)), address
    quiet = sources(told, NAT_PUBLIC, begin + 10 * MINUTE)
    assert len(sources(told, NAT_PUBLIC, begin + 45 * MINUTE)) > 2.5 * len(quiet)


def test_the_same_seed_gives_the_same_past_whichever_part_is_written() -> None:
    scenario = SCENARIOS["normal"]
    begin = DAY + CHUNK - HOUR
    whole = past(scenario, begin, begin + 2 * HOUR)
    late = past(scenario, begin + HOUR // 2, begin + 2 * HOUR)
    rest = whole.take(whole.array("time_received") >= begin + HOUR // 2)
    for column in ("bytes", "src_addr", "dst_addr", "time_received", "src_port"):
        assert np.array_equal(rest.array(column), late.array(column)), column
    other = past(scenario, begin, begin + 2 * HOUR, seed=2)
    assert int(other.array("bytes").sum()) != int(whole.array("bytes").sum())


def test_a_story_begins_in_the_past_when_it_is_told_to() -> None:
    begin = DAY + 12 * HOUR
    flows = past(SCENARIOS["rogue-host"], begin, begin + HOUR, origin=begin + 40 * MINUTE)
    rogue = (flows.array("src_addr") == np.frombuffer(pack_address(HOSTS[ROGUE]), np.uint8)).all(
        axis=1
    )
    first = int(flows.array("time_received")[rogue].min())
    assert begin + 40 * MINUTE <= first < begin + 42 * MINUTE


def test_no_two_weeks_are_alike_and_weekends_are_quieter() -> None:
    octets = {}
    for day in (0, 7, 2):
        begin = DAY + day * 24 * HOUR + 12 * HOUR
        octets[day] = int(past(SCENARIOS["normal"], begin, begin + HOUR).array("bytes").sum())
    assert octets[0] != octets[7]
    assert octets[7] == pytest.approx(octets[0], rel=0.15)
    assert octets[2] < 0.8 * octets[0]


def test_queries_of_the_past_are_those_that_live_sending_tells() -> None:
    story = told_together([(SCENARIOS["rogue-host"], 0.0)])
    asking = Asking(story.lookups, DAY + 9 * HOUR)
    batches = list(asking.history(DAY + 8 * HOUR, DAY + 10 * HOUR))
    queries = [query for hour in (8, 9) for query in asking.queries(DAY // HOUR + hour)]
    times = [time for batch in batches for time in batch.array("time_received").tolist()]
    assert times == [query.time for query in queries]
    rogue = [query for query in queries if query.client == pack_address(HOSTS[ROGUE])]
    assert min(query.time for query in rogue) >= DAY + 9 * HOUR
    assert len(rogue) == pytest.approx((0.4 + 0.2) * 3600, rel=0.2)


def test_nodes_and_application_follow_the_story() -> None:
    origin = DAY + 20 * HOUR
    spike, fanin = (
        Telemetry(told_together([(SCENARIOS[name], 0.0)]), origin)
        for name in ("load-spike", "query-fanin")
    )
    before, meanwhile = (np.array([origin + minutes * MINUTE]) for minutes in (-30, 5))
    assert spike.loads("fl13", before)[0] < 0.6 < 0.9 < spike.loads("fl13", meanwhile)[0]
    assert spike.loads("fl12", meanwhile)[0] < 0.6
    assert fanin.slow(before)[0] < 2 < 4 < fanin.slow(meanwhile)[0]
    within_four = fanin.queries(meanwhile)[0]
    assert within_four[6] / within_four[-1] < 0.95

    begin = origin // 1000 - 600
    told = [
        sample
        for sample in past_samples(spike, begin, begin + 1200)
        if ("instance", "fl13:9100") in sample.labels
    ]
    values = [(sample.time, sample.value) for sample in told if ("mode", "idle") in sample.labels]
    up = [(sample.time, sample.value) for sample in told if sample.metric == "up"]
    assert up == [(time, 1.0) for time, _ in values]
    steps = np.diff([value for _, value in values]) / np.diff([time for time, _ in values])
    assert steps[0] > 0.4
    assert steps[-1] < 0.1
