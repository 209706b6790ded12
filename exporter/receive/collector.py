"""The receivers' counters as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from exporter.receive.udp import UdpReceivers


class ReceiveCollector(Collector):
    """``flow_exporter_receive_*``; the label ``listener`` is the address and port listened on."""

    def __init__(self, receivers: UdpReceivers) -> None:
        self._receivers = receivers

    def collect(self) -> Iterator[Metric]:
        """The metrics of all listeners."""
        prefix = "flow_exporter_receive_"
        label = ["listener"]
        packets = CounterMetricFamily(prefix + "packets", "UDP datagrams received.", labels=label)
        size = CounterMetricFamily(
            prefix + "bytes", "Bytes of the UDP datagrams received, without headers.", labels=label
        )
        drops = CounterMetricFamily(
            prefix + "kernel_drops",
            "UDP datagrams that the kernel dropped because the socket's buffer was full; those "
            "that came as one message count once.",
            labels=label,
        )
        buffer = GaugeMetricFamily(
            prefix + "socket_buffer_bytes",
            "Receive buffer that the kernel granted to the socket.",
            labels=label,
        )
        for receiver in self._receivers.receivers:
            name = [receiver.name]
            packets.add_metric(name, receiver.packets)
            size.add_metric(name, receiver.bytes)
            drops.add_metric(name, receiver.kernel_drops())
            buffer.add_metric(name, receiver.buffer_bytes)
        yield from (packets, size, drops, buffer)
        yield CounterMetricFamily(
            prefix + "stalled_seconds",
            "Time that reading waited because the decoder held all buffers.",
            value=self._receivers.stalled_seconds,
        )
        yield CounterMetricFamily(
            prefix + "read_errors",
            "Reads of a socket that failed.",
            value=self._receivers.read_errors,
        )
