"""Devices as the decoders know them, and what each sends in one protocol and domain."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from exporter import config
from exporter.batch import format_address
from exporter.decode.connections import Connections
from exporter.decode.sampling import Sampling, Scope
from exporter.decode.sequence import Sequence as SequenceNumbers
from exporter.decode.templates import Template
from exporter.schema import Source

#: Label of all other devices, and of what cannot be laid to a device that is kept.
OTHER: Final = "other"
#: What a set that waits takes besides its octets, more or less: it may have four of them.
WAITING_OCTETS: Final = 512
#: What a stream counts itself, and what its sequence numbers do.
_COUNTS: Final = ("packets", "bytes", "records", "options", "duplicates", "waiting_dropped")
_SEQUENCE_COUNTS: Final = ("lost", "reordered", "restarts")


class Device:
    """A device by its address, with what it told about itself and how it is counted.

    ``name`` is the configured one, else the address; ``label`` is what metrics call it, which is
    :data:`OTHER` for those that have no metrics of their own.
    """

    __slots__ = (
        "address", "applications", "clock_skew", "configured", "errors", "interfaces", "label",
        "name", "names", "rates", "reverse_counters", "sampling_rate", "sampling_rate_override",
        "seen", "streams", "system_init", "telling", "templates", "times_replaced",
        "unknown_sampling", "vrfs", "waiting", "waiting_bytes",
    )  # fmt: skip

    def __init__(self, address: bytes, configured: config.Device | None) -> None:
        self.address = address
        self.configure(configured)
        self.seen = 0
        self.streams: dict[tuple[Source, int], Stream] = {}
        #: Names told in options: of interfaces and VRFs by number, of applications by octets.
        self.interfaces: dict[int, str] = {}
        self.vrfs: dict[int, str] = {}
        self.applications: dict[bytes, str] = {}
        self.names = 0
        #: Rates for whole observation domains, and how many of a protocol told each.
        self.rates: dict[Source, Counter[int]] = {}
        #: What each of the domains told that told any rate.
        self.telling: dict[Source, list[Sampling]] = {}
        self.system_init = 0
        self.templates = 0
        #: Sets without a template by stream and number, those first that wait for longest.
        self.waiting: OrderedDict[tuple[Stream, int], deque[WaitingSet]] = OrderedDict()
        self.waiting_bytes = 0
        self.clock_skew = 0.0
        self.times_replaced = 0
        self.unknown_sampling = 0
        self.errors: Counter[str] = Counter()

    def common_rate(self, source: Source) -> int:
        """The one rate that observation domains told; 0 where there is none, or several."""
        rates = self.rates.get(source, ())
        return next(iter(rates)) if len(rates) == 1 else 0

    def configure(self, configured: config.Device | None) -> None:
        """Take over what the configuration says; of templates from their next repetition on."""
        self.configured = configured is not None
        self.name = self.label = format_address(self.address)
        self.sampling_rate = 0
        self.sampling_rate_override = 0
        self.reverse_counters = False
        if configured is not None:
            self.name = self.label = configured.name or self.name
            self.sampling_rate = configured.sampling_rate or 0
            self.sampling_rate_override = configured.sampling_rate_override or 0
            self.reverse_counters = configured.reverse_counters


class Stream:
    """What one device sends in one protocol and observation domain."""

    __slots__ = (
        "boot", "bytes", "connections", "device", "domain", "duplicates", "last_sequence",
        "options", "packets", "records", "sampling", "sequence", "serial", "source", "templates",
        "waiting_dropped", "waiting_sets",
    )  # fmt: skip

    def __init__(
        self, device: Device, source: Source, domain: int, connections: Connections
    ) -> None:
        self.device = device
        self.source = source
        self.domain = domain
        #: Of all devices, in which this stream has a number of its own.
        self.connections = connections
        self.serial = connections.add_stream()
        self.templates: dict[int, Template] = {}
        self.sampling = Sampling()
        self.sequence = SequenceNumbers()
        #: Of the datagram before, to notice repeated ones; below 0 while none came.
        self.last_sequence = -1
        #: When the device started, by its uptime, in milliseconds since the epoch; 0: unknown.
        self.boot = 0
        self.packets = 0
        self.bytes = 0
        #: Flow records as reported, and options records.
        self.records = 0
        self.options = 0
        self.duplicates = 0
        self.waiting_sets = 0
        self.waiting_dropped = 0

    def forget_connections(self) -> None:
        """Those that come are others, whatever their numbers."""
        self.serial = self.connections.add_stream()

    def move_counts(self, other: Stream) -> None:
        """Add what was counted to another stream's, and begin anew."""
        for counts, others, names in (
            (self, other, _COUNTS),
            (self.sequence, other.sequence, _SEQUENCE_COUNTS),
        ):
            for name in names:
                setattr(others, name, getattr(others, name) + getattr(counts, name))
                setattr(counts, name, 0)

    @property
    def rates(self) -> Sampling:
        """The domain's rates; where it told none, those of the one domain that did."""
        telling = self.device.telling.get(self.source, ())
        return telling[0] if len(telling) == 1 and not self.sampling.told else self.sampling

    def learn_rate(self, rate: int, scope: Scope) -> None:
        """Keep a sampling rate that was told in options."""
        before, first = self.sampling.general, not self.sampling.told
        self.sampling.learn(rate, scope)
        if first and self.sampling.told:
            self.device.telling.setdefault(self.source, []).append(self.sampling)
        now = self.sampling.general
        if now != before:
            rates = self.device.rates.setdefault(self.source, Counter())
            rates[now] += 1
            rates[before] -= 1
            if rates[before] <= 0:
                del rates[before]


@dataclass(frozen=True, slots=True)
class WaitingSet:
    """A data set whose template is not known yet, with the times of its datagram."""

    body: bytes
    received: int
    exported: int
    uptime: int

    @property
    def size(self) -> int:
        """Octets of memory that it takes, more or less."""
        return len(self.body) + WAITING_OCTETS
