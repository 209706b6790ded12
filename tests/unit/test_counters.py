"""Traffic counters: exact totals, bounded labels, and a first sample that Prometheus can use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from exporter.batch import DictColumn, FlowBatch
from exporter.config import Config, Counter
from exporter.metrics.counters import TrafficCounters
from exporter.metrics.exposition import render
from exporter.metrics.label_sets import LEAVE_SECONDS, TURN_SECONDS
from exporter.schema import Source

TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def flows(**columns):
    """A batch from lists; text columns are those of strings."""
    length = len(next(iter(columns.values())))
    types = {"bytes": np.uint64, "packets": np.uint64, "proto": np.uint8, "source": np.int8}
    made = {}
    for name, values in columns.items():
        if isinstance(values[0], str):
            made[name] = DictColumn.encode(values)
        elif name.endswith("_addr"):
            made[name] = np.array([list(v) for v in values], np.uint8)
        elif name.endswith("_mac"):
            made[name] = np.array(values, np.uint64)
        else:
            made[name] = np.array(values, types.get(name, np.uint32))
    return FlowBatch(length, made)


def totals(counters, measure="bytes"):
    """Label values (in order of names) to value, over all counters."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in counters.collect()
        if family.name.endswith(f"_{measure}")
        for sample in family.samples
    }


def scrape(counters, *, by_prometheus=True, accept=TEXT):
    registry = CollectorRegistry()
    registry.register(counters)
    body, _ = render(registry, accept, scrape=by_prometheus)
    parse = openmetrics if accept == OPENMETRICS else prometheus
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def test_flows_are_summed_by_their_labels():
    counters = TrafficCounters([Counter(name="as", labels=["src_as", "dst_as"])])
    batch = flows(
        src_as=[1, 4_200_000_000, 1], dst_as=[2, 2, 2], bytes=[10, 20, 30], packets=[1, 2, 3]
    )
    counters.add(batch)
    counters.add(batch)
    other = ("other", "other")
    assert totals(counters) == {other: 0, ("1", "2"): 80, ("4200000000", "2"): 40}
    assert totals(counters, "packets") == {other: 0, ("1", "2"): 8, ("4200000000", "2"): 4}
    assert totals(counters, "flows") == {other: 0, ("1", "2"): 4, ("4200000000", "2"): 2}


def test_every_kind_of_column_reads_as_people_write_it():
    labels = ["device", "source", "proto", "src_addr", "src_mac", "in_if"]
    counters = TrafficCounters([Counter(name="all", labels=labels)])
    mapped = bytes(10) + b"\xff\xff\x0a\x00\x00\x01"
    ipv6 = bytes.fromhex("20010db8000000000000000000000001")
    counters.add(
        flows(
            device=["r1", "r2"],
            source=[Source.IPFIX, Source.SFLOW5],
            proto=[6, 17],
            src_addr=[mapped, ipv6],
            src_mac=[0x0200_0000_0001, 2**48 - 1],
            in_if=[7, 2**32 - 1],
            bytes=[1, 2],
        )
    )
    assert totals(counters) == {
        ("other",) * 6: 0,
        ("r1", "ipfix", "6", "10.0.0.1", "02:00:00:00:00:01", "7"): 1,
        ("r2", "sflow5", "17", "2001:db8::1", "ff:ff:ff:ff:ff:ff", "4294967295"): 2,
    }


def test_columns_that_a_batch_lacks_count_as_their_default():
    counters = TrafficCounters(
        [Counter(name="x", labels=["device", "dst_addr", "in_if", "source"])]
    )
    counters.add(FlowBatch(3, {"bytes": np.array([1, 2, 3], np.uint64)}))
    assert totals(counters)["", "::", "0", "unknown"] == 6


def test_a_full_counter_keeps_the_heaviest_newcomers_and_counts_the_rest_as_other():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"], max_series=2)])
    counters.add(flows(src_as=[1, 2, 3], bytes=[5, 50, 500]))
    counters.add(flows(src_as=[1, 2, 9], bytes=[1, 1, 10_000]))
    assert totals(counters) == {("other",): 5 + 1 + 10_000, ("2",): 51, ("3",): 500}


@pytest.mark.parametrize("labels", [["service"], ["src_as", "dst_as"], ["device", "proto"]])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_totals_are_exact_whatever_comes(labels, data):
    counters = TrafficCounters([Counter(name="x", labels=labels, max_series=5)])
    expected = dict.fromkeys(("bytes", "packets", "flows"), 0)
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.integers(1, 30))

        def column(low, high, rows=rows):
            return st.lists(st.integers(low, high), min_size=rows, max_size=rows)

        values = data.draw(column(0, 2**64 - 1))
        packets = data.draw(column(0, 2**20))
        batch = flows(
            service=[f"s{n}" for n in data.draw(column(0, 9))],
            device=[f"d{n}" for n in data.draw(column(0, 9))],
            src_as=data.draw(column(0, 2**32 - 1)),
            dst_as=data.draw(column(0, 2)),
            proto=data.draw(column(0, 255)),
            bytes=values,
            packets=packets,
        )
        counters.add(batch)
        expected["bytes"] += sum(values)
        expected["packets"] += sum(packets)
        expected["flows"] += rows
    for measure, total in expected.items():
        series = totals(counters, measure)
        assert sum(series.values()) == total
        assert len(series) <= 6


def test_texts_that_batches_share_may_become_more():
    counters = TrafficCounters([Counter(name="traffic", labels=["device"], max_series=3)])
    shared = ["a", "b"]
    for codes, further in (([0, 1], ["c", "d"]), ([2, 0], []), ([3, 3], ["e"])):
        column = DictColumn(np.array(codes, np.uint32), shared)
        counters.add(FlowBatch(2, {"device": column, "bytes": np.array([1, 1], np.uint64)}))
        shared += further
    other = DictColumn(np.array([0, 1], np.uint32), ["d", "a"])
    counters.add(FlowBatch(2, {"device": other, "bytes": np.array([10, 10], np.uint64)}))
    assert totals(counters) == {("other",): 12, ("a",): 12, ("b",): 1, ("c",): 1}


def test_the_heaviest_are_told_from_others_beyond_32_bits():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"], max_series=1)])
    counters.add(flows(src_as=[1, 2], bytes=[2**32 - 1, 2**33]))
    assert totals(counters) == {("other",): 2**32 - 1, ("2",): 2**33}


def test_a_batch_of_no_flows_counts_nothing():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"])])
    counters.add(FlowBatch(0, {}))
    assert totals(counters, "flows") == {("other",): 0}


def test_sums_are_integers_beyond_the_doubles_and_beyond_64_bits():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"])])
    counters.add(flows(src_as=[1], bytes=[2**53]))
    counters.add(flows(src_as=[1], bytes=[1]))
    assert totals(counters)[("1",)] == 2**53 + 1
    for _ in range(3):
        counters.add(flows(src_as=[1, 1], bytes=[2**64 - 1, 2**64 - 1]))
    assert totals(counters)[("1",)] == 2**53 + 1 + 6 * (2**64 - 1)
    counters.add(flows(src_as=[2, 2], bytes=[2**63, 2**63]))
    assert totals(counters)[("2",)] == 2**64


def test_values_never_go_down():
    counters = TrafficCounters(Config().counters)
    before = {}
    rng = np.random.default_rng(3)
    for _ in range(5):
        counters.add(
            flows(
                src_as=rng.integers(0, 4000, 3000).tolist(),
                dst_as=rng.integers(0, 3, 3000).tolist(),
                bytes=rng.integers(0, 2**60, 3000).tolist(),
            )
        )
        now = scrape(counters, by_prometheus=False)
        assert all(now[series] >= value for series, value in before.items())
        before = now


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_a_new_series_reads_zero_once_so_that_its_first_increase_is_seen(accept):
    counters = TrafficCounters([Counter(name="x", labels=["src_as"])])
    name = "flow_x_bytes_total"
    assert scrape(counters, accept=accept)[name, "other"] == 0
    counters.add(flows(src_as=[1], bytes=[70]))
    assert scrape(counters, accept=accept)[name, "1"] == 0
    counters.add(flows(src_as=[1, 2], bytes=[5, 6]))
    second = scrape(counters, accept=accept)
    assert (second[name, "1"], second[name, "2"]) == (75, 0)
    assert scrape(counters, accept=accept)[name, "2"] == 6


def test_other_readers_see_the_value_at_once_and_do_not_use_up_the_zero():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"])])
    counters.add(flows(src_as=[1], bytes=[70]))
    name = "flow_x_bytes_total"
    assert scrape(counters, by_prometheus=False)[name, "1"] == 70
    assert scrape(counters)[name, "1"] == 0
    assert scrape(counters)[name, "1"] == 70


def test_texts_from_devices_cannot_break_or_bloat_the_exposition():
    counters = TrafficCounters([Counter(name="x", labels=["in_if_name"])])
    counters.add(
        flows(in_if_name=['ge"0\\1\n', "x" * 100_000, "\ud800", "other"], bytes=[1, 2, 4, 8])
    )
    seen = scrape(counters, by_prometheus=False)
    name = "flow_x_bytes_total"
    assert seen[name, 'ge"0\\1\n'] == 1
    assert seen[name, "x" * 200] == 2
    assert seen[name, "?"] == 4
    assert seen[name, "other"] == 8


def test_texts_that_are_alike_as_labels_do_not_fill_memory():
    counters = TrafficCounters([Counter(name="traffic", labels=["vrf"], max_series=5)])
    counters.add(flows(vrf=["x" * 200 + str(n) for n in range(30)], bytes=[1] * 30))
    counters.add(flows(vrf=["x" * 200 + "again", "y"], bytes=[1, 1]))
    assert totals(counters) == {("x" * 200,): 10, ("other",): 22}


def test_the_quick_exposition_says_what_the_library_says():
    counters = TrafficCounters(Config().counters)
    counters.add(flows(device=["r1", 'r"2'], src_as=[1, 2], bytes=[1, 2], packets=[1, 1]))
    registry = CollectorRegistry()
    registry.register(counters)

    def lines(text):
        return {
            (
                family.name,
                family.documentation,
                family.type,
                s.name,
                *sorted(s.labels.items()),
                s.value,
            )
            for family in prometheus(text)
            for s in family.samples
        }

    quick, _ = render(registry, TEXT, scrape=False)
    assert lines(quick.decode()) == lines(generate_latest(registry).decode())


@pytest.mark.parametrize(
    ("counter", "message"),
    [
        ({"name": "exporter_insert", "labels": ["device"]}, "are the exporter's own"),
        ({"name": "x", "labels": ["device", "device"]}, "listed twice"),
        ({"name": "x", "labels": ["bytes"]}, "cannot be a label"),
        ({"name": "x", "labels": ["colour"]}, "no flow column"),
    ],
)
def test_counters_that_cannot_be_are_refused(counter, message):
    with pytest.raises(ValueError, match=message):
        Counter.model_validate(counter)


def test_counters_report_how_full_they_are():
    counters = TrafficCounters([Counter(name="x", labels=["src_as"], max_series=3)])
    counters.add(flows(src_as=[1, 2], bytes=[1, 1]))
    seen = scrape(counters)
    assert seen["flow_exporter_traffic_label_sets", "x"] == 2
    assert seen["flow_exporter_traffic_label_sets_limit", "x"] == 3


class Watched:
    """A counter by ``src_as``, read as a Prometheus does that adds up increases."""

    def __init__(self, max_series, label="src_as"):
        self.now = 0.0
        counter = Counter(name="x", labels=[label], max_series=max_series)
        self.counters = TrafficCounters([counter], lambda: self.now)
        self.label = label
        self.increase = {}
        self._before = {}

    def count(self, values, size, scrapes=2):
        """Flows of ``size`` bytes each, then so many scrapes; label values that these showed."""
        self.counters.add(flows(**{self.label: values}, bytes=[size] * len(values)))
        for _ in range(scrapes):
            seen = {
                labels[0]: value
                for (name, *labels), value in scrape(self.counters).items()
                if name == "flow_x_bytes_total"
            }
            for label, value in seen.items():
                before = self._before.get(label)
                if before is not None:
                    assert value >= before
                    self.increase[label] = self.increase.get(label, 0) + value - before
            self._before = seen
        return self._before.keys()


def test_small_label_sets_make_room_for_those_that_found_none_and_no_byte_is_lost():
    watched = Watched(4)
    watched.count([1], 0)
    watched.count([1, 2, 3], 1000)
    watched.count([9], 1)
    assert "8" not in watched.count([8], 500)
    watched.now = TURN_SECONDS
    # 9 leaves: it counts as other, and can be scraped for some minutes yet.
    assert {"1", "2", "3", "9"} <= watched.count([9, 8], 10)
    assert watched.increase["9"] == 1
    watched.now += LEAVE_SECONDS
    assert watched.count([1, 8], 500) == {"1", "2", "3", "8", "other"}
    watched.count([2, 9, 8], 7)
    assert watched.increase["8"] == 507
    assert sum(watched.increase.values()) == 3 * 1000 + 1 + 500 + 2 * 10 + 2 * 500 + 3 * 7
    seen = scrape(watched.counters)
    assert seen["flow_exporter_traffic_label_sets_replaced_total", "x"] == 1
    assert seen["flow_exporter_traffic_label_sets", "x"] == 4


def test_what_grew_in_the_last_hour_stays_whatever_had_grown_before():
    watched = Watched(2)
    watched.count([1], 10)
    watched.count([2], 5000)
    watched.now = TURN_SECONDS
    watched.count([1, 3], 1)
    watched.now = 2 * TURN_SECONDS
    watched.count([3], 1)
    watched.now += LEAVE_SECONDS
    assert watched.count([3], 1) == {"1", "3", "other"}


@pytest.mark.parametrize("refused", [False, True])
def test_nothing_leaves_where_there_is_room_or_before_it_was_scraped(refused):
    watched = Watched(1)
    watched.count([1], 5, scrapes=0 if refused else 2)
    if refused:
        watched.count([2], 1, scrapes=0)
    for _ in range(2):
        watched.now += TURN_SECONDS
        watched.counters.add(flows(src_as=[1], bytes=[5]))
    assert totals(watched.counters)["1",] == 15


def test_texts_of_label_sets_that_left_are_forgotten():
    watched = Watched(4, "vrf")
    for turn in range(30):
        watched.count([f"vrf {turn} {n}" for n in range(8)], turn + 1)
        watched.now += TURN_SECONDS
        watched.count(["other vrf"], 1)
        watched.now += LEAVE_SECONDS
    column = watched.counters._columns["vrf"]
    assert len(column._keys) <= len(column._values) <= 10


def test_a_scrape_under_way_while_label_sets_leave_tells_what_it_began_with():
    watched = Watched(2)
    watched.count([1, 2], 1000)
    watched.count([3], 1)
    watched.now = TURN_SECONDS
    watched.count([1], 1)
    begun = next(f for f in watched.counters.collect() if f.name == "flow_x_bytes")
    watched.now += LEAVE_SECONDS
    watched.counters.add(flows(src_as=[3], bytes=[70]))
    assert {line.split("{")[1] for line in begun.lines(scrape=True)} == {
        'src_as="other"} 1\n', 'src_as="1"} 1001\n', 'src_as="2"} 1000\n'
    }  # fmt: skip
    begun.scraped()
    assert scrape(watched.counters)["flow_x_bytes_total", "3"] == 0
    assert scrape(watched.counters)["flow_x_bytes_total", "3"] == 70
