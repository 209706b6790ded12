"""Health of the decoders as Prometheus metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporter.decode.devices import OTHER, Device, Stream
from exporter.decode.state import State

_PREFIX = "flow_exporter_"


class DecodeStats(Collector):
    """Counters of all devices, read from the decoder's state when asked.

    Devices that are configured and a bounded number of others have a label of their own; all else
    is counted under the device ``other``.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def errors(self) -> Counter[tuple[str, str]]:
        """Errors so far by (device, reason)."""
        found: Counter[tuple[str, str]] = Counter()
        for device in (self._state.elsewhere, *list(self._state.devices.values())):
            for reason, number in list(device.errors.items()):
                found[device.label, reason] += number
        return found

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only by collecting, which costs little at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the decoders."""
        with self._state.counting:  # or what moves meanwhile were counted twice, and then once
            families = list(self._collect())
        yield from families

    def _collect(self) -> Iterator[Metric]:
        devices = list(self._state.devices.values())
        heard_of = len(devices)
        if any(device.label == OTHER for device in devices) or self._state.elsewhere.streams:
            devices.append(self._state.elsewhere)
        streams = [stream for device in devices for stream in list(device.streams.values())]
        yield from _stream_counters(streams)
        errors = CounterMetricFamily(
            f"{_PREFIX}decode_errors", "Faults in what devices sent, by reason.",
            labels=["device", "reason"],
        )  # fmt: skip
        for (device, reason), number in self.errors().items():
            errors.add_metric([device, reason], number)
        yield errors
        yield from _device_metrics(devices)
        yield GaugeMetricFamily(f"{_PREFIX}devices", "Devices heard of.", value=heard_of)
        configured = GaugeMetricFamily(
            f"{_PREFIX}device_configured", "1 for devices that the configuration names.",
            labels=["device"],
        )  # fmt: skip
        for label in self._state.configured_names():
            configured.add_metric([label], 1)
        yield configured
        yield GaugeMetricFamily(
            f"{_PREFIX}waiting_bytes", "Memory of records that wait for their template.",
            value=self._state.waiting.size,
        )  # fmt: skip


def _stream_counters(streams: Iterable[Stream]) -> Iterator[Metric]:
    families: list[tuple[str, str, Callable[[Stream], int]]] = [
        ("received_packets", "Datagrams received.", lambda s: s.packets),
        ("received_bytes", "Octets of datagrams received.", lambda s: s.bytes),
        ("decoded_records", "Flow records decoded, as reported.", lambda s: s.records),
        ("decoded_options", "Options records decoded.", lambda s: s.options),
        ("duplicate_packets", "Datagrams that came again and were dropped.",
         lambda s: s.duplicates),
        ("sequence_lost", "Datagrams (NetFlow v9) or records that never came.",
         lambda s: s.sequence.lost),
        ("sequence_reordered", "Datagrams that came late.", lambda s: s.sequence.reordered),
        ("sequence_restarts", "Sequence numbers that began anew.",
         lambda s: s.sequence.restarts),
        ("waiting_dropped", "Sets of records dropped before their template came.",
         lambda s: s.waiting_dropped),
    ]  # fmt: skip
    streams = list(streams)
    for name, text, value in families:
        family = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=["device", "source"])
        for labels, number in _summed(streams, value).items():
            family.add_metric(labels, number)
        yield family
    waiting = GaugeMetricFamily(
        f"{_PREFIX}waiting_sets", "Sets of records that wait for their template.",
        labels=["device", "source"],
    )  # fmt: skip
    for labels, number in _summed(streams, lambda s: s.waiting_sets).items():
        waiting.add_metric(labels, number)
    yield waiting


def _summed(streams: Iterable[Stream], value: Callable[[Stream], int]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for stream in streams:
        found[stream.device.label, stream.source.name.lower()] += value(stream)
    return found


def _device_metrics(devices: Iterable[Device]) -> Iterator[Metric]:
    # A device may have several addresses, and so several entries of one name.
    by_label: dict[str, list[Device]] = {}
    for device in devices:
        by_label.setdefault(device.label, []).append(device)
    families: list[tuple[CounterMetricFamily | GaugeMetricFamily, Callable[[Device], int]]] = [
        (
            CounterMetricFamily(
                f"{_PREFIX}times_replaced",
                "Flows whose times made no sense and became that of reception.",
                labels=["device"],
            ),
            lambda d: d.times_replaced,
        ),
        (
            CounterMetricFamily(
                f"{_PREFIX}unknown_sampling",
                "Flow records whose sampling rate nothing tells.",
                labels=["device"],
            ),
            lambda d: d.unknown_sampling,
        ),
        (
            GaugeMetricFamily(f"{_PREFIX}templates", "Templates in force.", labels=["device"]),
            lambda d: d.templates,
        ),
    ]
    for family, value in families:
        for label, entries in by_label.items():
            family.add_metric([label], sum(map(value, entries)))
        yield family
    skew = GaugeMetricFamily(
        f"{_PREFIX}clock_skew_seconds", "How far the device's clock is ahead of ours.",
        labels=["device"],
    )  # fmt: skip
    for label, entries in by_label.items():
        if label != OTHER:
            skew.add_metric([label], max(entries, key=lambda d: d.seen).clock_skew)
    yield skew
