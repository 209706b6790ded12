"""The pipeline: nothing is lost on the way, not by errors, not by merging, not at the end."""

import logging
import threading
import time

import numpy as np
import pytest

import exporter.pipeline
import exporter.receive.udp
from exporter.batch import DictColumn, FlowBatch
from exporter.config import Config, Counter
from exporter.enrich import Enricher, NameSources
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.metrics.counters import TrafficCounters
from exporter.pipeline import Pipeline
from exporter.store.writer import WriterStoppedError
from tests.support.stack import soon


def flows(number, length=1):
    return FlowBatch(
        length,
        {
            "src_as": np.full(length, number, np.uint32),
            "bytes": np.full(length, 10, np.uint64),
            "vrf": DictColumn.constant(f"vrf{number}", length),
        },
    )


class Given:
    """Receivers that give what the test puts in, and drain when told to stop."""

    def __init__(self):
        self.put = []
        self.stopped = False
        self.failure = None

    def start(self):
        pass

    def stop(self):
        self.stopped = True

    def batches(self, stop):
        while not stop.is_set() or self.put:
            if self.failure:
                raise self.failure
            if self.put:
                yield self.put.pop(0)
            else:
                time.sleep(0.002)


class AsGiven:
    """A decoder for which the datagrams are flows already; an exception is raised."""

    def decode(self, batch):
        if isinstance(batch, Exception):
            raise batch
        return batch

    def save(self):
        pass


class Kept:
    """A writer that keeps all batches, while ``room`` is set."""

    def __init__(self):
        self.alive = True
        self.batches = []
        self.room = threading.Event()
        self.room.set()
        self.stopped = threading.Event()

    def start(self):
        pass

    def write(self, batch):
        while not self.room.wait(0.01):
            if self.stopped.is_set():
                raise WriterStoppedError
        self.batches.append(batch)

    def stop(self, timeout=1.0):
        self.stopped.set()
        return 0

    @property
    def flows(self):
        return sum(map(len, self.batches))


class Rig:
    def __init__(self, enricher=None, sources=()):
        self.receivers, self.writer = Given(), Kept()
        self.counters = TrafficCounters([Counter(name="x", labels=["src_as"])])
        self.pipeline = Pipeline(
            self.receivers,
            AsGiven(),
            enricher or NameSources(Config()).enricher,
            self.counters,
            self.writer,
            sources,
        )

    def __enter__(self):
        self.pipeline.start()
        return self

    def __exit__(self, *_):
        self.writer.room.set()
        self.pipeline.stop(20.0)

    def counted(self):
        return sum(s.value for f in self.counters.collect() if f.name == "flow_x_flows"
                   for s in f.samples)  # fmt: skip

    def metric(self, name, **labels):
        return sum(s.value for f in self.pipeline.collect() for s in f.samples
                   if s.name == name and labels.items() <= s.labels.items())  # fmt: skip


def test_a_single_flow_is_enriched_counted_and_written_without_waiting_for_others():
    with Rig() as rig:
        rig.receivers.put.append([flows(7)])
        soon(lambda: rig.writer.flows)
        assert rig.counted() == 1
        assert "dst_service" in rig.writer.batches[0].columns
        assert rig.metric("flow_exporter_pipeline_flows_total") == 1


def test_small_batches_are_merged_and_keep_their_rows_in_order():
    with Rig() as rig:
        rig.receivers.put += [[flows(n, 2), flows(n + 1000)] for n in range(200)]
        soon(lambda: rig.writer.flows == 600)
        assert len(rig.writer.batches) < 20
    numbers = np.concatenate([b.array("src_as") for b in rig.writer.batches]).tolist()
    assert numbers == [m for n in range(200) for m in (n, n, n + 1000)]
    assert rig.writer.batches[-1].dictionary("vrf").values[-1] == "vrf1199"


@pytest.mark.parametrize("stage", ["decode", "enrich"])
def test_an_error_in_one_batch_is_counted_logged_once_and_stops_nothing(stage, caplog):
    class Faulty(Enricher):
        def enrich(self, batch):
            if 13 in batch.array("src_as"):
                raise ZeroDivisionError
            return super().enrich(batch)

    faulty = Faulty(Config(), LearnedInterfaces(), [])
    with Rig(faulty) as rig, caplog.at_level(logging.ERROR):
        errors = "flow_exporter_pipeline_errors_total"
        for number in range(1, 4):
            rig.receivers.put.append(ZeroDivisionError() if stage == "decode" else [flows(13)])
            soon(lambda number=number: rig.metric(errors, stage=stage) == number)
        rig.receivers.put.append([flows(7)])
        soon(lambda: rig.writer.batches and 7 in rig.writer.batches[-1].array("src_as"))
        assert rig.metric(errors, stage=stage) == 3
        assert rig.pipeline.alive
    # What fails to get names is counted and stored without them.
    assert rig.writer.flows == rig.counted() == (1 if stage == "decode" else 4)
    assert len(caplog.records) == 1


def test_a_full_writer_holds_up_decoding_within_bounds_and_says_so(monkeypatch):
    monkeypatch.setattr(exporter.pipeline, "BATCH_FLOWS", 10)
    monkeypatch.setattr(exporter.pipeline, "MAX_WAITING_FLOWS", 40)
    monkeypatch.setattr(exporter.pipeline, "_CONGESTED_SECONDS", 0.05)
    with Rig() as rig:
        assert rig.pipeline.congestion() is None
        rig.writer.room.clear()
        rig.receivers.put += [[flows(n, 5)] for n in range(100)]
        soon(lambda: rig.metric("flow_exporter_pipeline_waiting_flows") >= 40)
        soon(lambda: rig.pipeline.congestion())
        assert len(rig.receivers.put) > 80
        assert rig.metric("flow_exporter_pipeline_waiting_flows") < 50
        assert "queue is full" in rig.pipeline.congestion()
        rig.writer.room.set()
        soon(lambda: rig.writer.flows == 500)
        assert rig.pipeline.congestion() is None


def test_a_write_that_takes_no_longer_than_a_second_is_no_congestion(monkeypatch):
    """Most wait a little: the collector would be ready and not ready in turns."""
    with Rig() as rig:
        rig.writer.room.clear()
        began = float(int(time.monotonic()))  # so that what is added to it stays exact
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda: began)
            rig.receivers.put.append([flows(7)])
            soon(lambda: rig.pipeline._writing_since == began)
            for seconds, congested in ((0.0, False), (1.0, False), (1.01, True)):
                patched.setattr(time, "monotonic", lambda now=began + seconds: now)
                assert bool(rig.pipeline.congestion()) is congested, seconds
        rig.writer.room.set()
        soon(lambda: rig.writer.flows == 1)
        assert rig.pipeline.congestion() is None


def test_stopping_brings_what_was_received_to_its_end():
    rig = Rig()
    with rig:
        rig.receivers.put += [[flows(n, 3)] for n in range(50)]
    assert rig.writer.flows == rig.counted() == 150
    assert rig.receivers.stopped
    assert rig.writer.stopped.is_set()
    assert not rig.pipeline.alive


def test_stopping_does_not_wait_for_a_writer_without_room(caplog):
    rig = Rig()
    rig.pipeline.start()
    rig.writer.room.clear()
    rig.receivers.put.append([flows(1)])
    soon(lambda: not rig.receivers.put)
    began = time.monotonic()
    rig.pipeline.stop(1.0)
    assert time.monotonic() - began < 20  # not for ever
    assert not rig.pipeline.alive
    assert "after the writer had stopped" in caplog.text


def test_receivers_that_fail_end_the_pipeline_visibly():
    with Rig() as rig:
        rig.receivers.failure = RuntimeError("receiving has stopped")
        soon(lambda: not rig.pipeline.alive)
        assert rig.metric("flow_exporter_pipeline_errors_total", stage="receive") == 1


class Offering:
    """A source of flows whose thread is the test's."""

    def __init__(self):
        self.stopped = False

    def start(self, offer):
        self.offer = offer

    def stop(self):
        self.stopped = True


def test_a_writer_whose_threads_have_ended_is_told():
    with Rig() as rig:
        soon(lambda: rig.pipeline.alive)
        rig.writer.alive = False
        assert not rig.pipeline.alive


def test_flows_of_sources_take_the_same_way_and_are_brought_to_their_end():
    source = Offering()
    with Rig(sources=[source]) as rig:
        rig.receivers.put.append([flows(1)])
        assert source.offer(flows(2, 3), 0.0)
    assert source.stopped
    assert rig.writer.flows == rig.counted() == 4
    assert not source.offer(flows(3), 0.0)  # nobody takes it any more


def test_small_batches_wait_for_others_until_they_are_enough(monkeypatch):
    monkeypatch.setattr(exporter.pipeline, "BATCH_FLOWS", 10)
    monkeypatch.setattr(exporter.pipeline, "LINGER_SECONDS", 60.0)
    source = Offering()
    with Rig(sources=[source]) as rig:
        for number in range(5):
            time.sleep(0.02)  # for whoever does not wait to take it
            assert source.offer(flows(number, 2), 5.0)
        soon(lambda: rig.writer.flows == 10)
        assert len(rig.writer.batches) == 1


def test_a_small_batch_does_not_wait_for_ever():
    source = Offering()
    with Rig(sources=[source]) as rig:
        assert source.offer(flows(1, 2), 5.0)
        soon(lambda: rig.writer.flows == 2)


def test_sources_are_told_when_there_is_no_room(monkeypatch):
    monkeypatch.setattr(exporter.pipeline, "BATCH_FLOWS", 10)
    monkeypatch.setattr(exporter.pipeline, "MAX_WAITING_FLOWS", 40)
    source = Offering()
    with Rig(sources=[source]) as rig:
        rig.writer.room.clear()
        taken = 0
        while source.offer(flows(taken, 10), 0.3):
            taken += 10
        assert 40 <= taken <= 60
        rig.writer.room.set()
        assert source.offer(flows(taken, 10), 5.0)
        soon(lambda: rig.writer.flows == taken + 10)


def test_by_default_flows_are_stored_within_five_seconds():
    waits = [
        exporter.receive.udp.LINGER_SECONDS,
        exporter.pipeline.LINGER_SECONDS,
        Config().clickhouse.batch_seconds,
    ]
    assert sum(waits) <= 5.0 - 0.2, "an insert takes some time, too"
