"""What the decoders remember of devices, within the bounds of the configuration."""

from __future__ import annotations

import ipaddress
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from exporter import config
from exporter.batch import format_address
from exporter.decode.connections import Connections
from exporter.decode.elements import ElementTable
from exporter.decode.layout import VARIABLE, Field, Layout
from exporter.decode.sampling import Sampling, Scope
from exporter.decode.sequence import Sequence as SequenceNumbers
from exporter.decode.templates import Definition, Template
from exporter.schema import Source

#: Observation domains kept per device.
MAX_DOMAINS: Final = 1024
#: Template fields kept over all devices together: some hundred megabytes.
MAX_FIELDS: Final = 2_000_000
#: Names (of interfaces, VRFs, applications) kept per device, and over all devices together.
MAX_NAMES_PER_DEVICE: Final = 32_768
MAX_NAMES: Final = 1_000_000
#: What a set that waits takes besides its octets, more or less: it may have four of them.
WAITING_OCTETS: Final = 512
#: A device not heard of for this long may make room for a new one, in milliseconds.
IDLE: Final = 600_000


Key = TypeVar("Key", int, bytes)


class LimitError(Exception):
    """A bound was reached; the text is the reason's name."""


class Device:
    """A device by its address, with what it told about itself and how it is counted."""

    __slots__ = (
        "address", "applications", "clock_skew", "errors", "interfaces", "label", "names",
        "rates", "reverse_counters", "sampling_rate", "sampling_rate_override", "seen", "streams",
        "system_init", "telling", "templates", "times_replaced", "unknown_sampling", "vrfs",
        "waiting", "waiting_bytes",
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
        self.label = format_address(self.address)
        self.sampling_rate = 0
        self.sampling_rate_override = 0
        self.reverse_counters = False
        if configured is not None:
            self.label = configured.name or self.label
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


def _by_address(devices: Sequence[config.Device]) -> dict[bytes, config.Device]:
    return {packed_address(device.address): device for device in devices}


class State:
    """All devices, their streams and templates."""

    def __init__(
        self, settings: config.Decode, devices: Sequence[config.Device], table: ElementTable
    ) -> None:
        self._settings = settings
        self._table = table
        self._configured = _by_address(devices)
        self.devices: dict[bytes, Device] = {}
        self._layouts: weakref.WeakValueDictionary[tuple[Field, ...], Layout] = (
            weakref.WeakValueDictionary()
        )
        self.connections = Connections()
        self.fields = 0
        self.names = 0
        self.waiting_bytes = 0
        #: Devices with sets that wait, those first that have some for longest.
        self._waiting: OrderedDict[Device, None] = OrderedDict()
        self._full_until = 0
        #: Counters of devices that made room for others: totals must not go back.
        self.errors_elsewhere: Counter[str] = Counter()

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on."""
        self._configured = _by_address(devices)
        for address, device in self.devices.items():
            device.configure(self._configured.get(address))

    def streams(self) -> Iterator[Stream]:
        """All streams of all devices."""
        for device in self.devices.values():
            yield from device.streams.values()

    def stream(self, address: bytes, source: Source, domain: int, now: int) -> Stream:
        """The stream of a datagram; ``address`` of 16 octets, ``now`` in milliseconds.

        Raises:
            LimitError: too many devices, or observation domains of one device.
        """
        device = self.device(address, now)
        found = device.streams.get((source, domain))
        if found is None:
            if len(device.streams) >= MAX_DOMAINS:
                raise LimitError("too_many_domains")
            found = device.streams[(source, domain)] = Stream(
                device, source, domain, self.connections
            )
        return found

    def device(self, address: bytes, now: int) -> Device:
        """The device of an address.

        Raises:
            LimitError: too many devices.
        """
        device = self.devices.get(address)
        if device is None:
            configured = self._configured.get(address)
            # Whoever forges senders' addresses must not keep the configured ones out.
            if configured is None and len(self.devices) >= self._settings.max_devices:
                self._make_room(now)
            device = self.devices[address] = Device(address, configured)
        device.seen = max(device.seen, now)
        return device

    def define(self, stream: Stream, definition: Definition, now: int) -> Template:
        """Put a template in force.

        Raises:
            LimitError: the template is not usable, or there are too many.
        """
        fields = definition.fields
        known = stream.templates.get(definition.id)
        if (
            known is not None
            and known.layout.fields == fields
            and known.options == definition.options
        ):
            known.told = now
            return known
        self._check(stream.device, definition, known)
        before = 0
        if known is not None:
            if known.before == hash(fields):
                # Of two devices with one address and domain each tells its own, time and again.
                stream.device.errors["template_clash"] += 1
            before = hash(known.layout.fields)
            self.withdraw(stream, definition.id)
        template = Template(definition.id, self.layout(fields), definition.options, now, before)
        stream.templates[definition.id] = template
        stream.device.templates += 1
        self.fields += len(fields)
        return template

    def layout(self, fields: tuple[Field, ...]) -> Layout:
        """The layout of these fields, one object for all templates that have them."""
        layout = self._layouts.get(fields)
        if layout is None:
            layout = self._layouts[fields] = Layout(fields, self._table)
        return layout

    def withdraw(self, stream: Stream, number: int) -> None:
        """Forget a template."""
        template = stream.templates.pop(number, None)
        if template is not None:
            stream.device.templates -= 1
            self.fields -= len(template.layout.fields)

    def withdraw_all(self, stream: Stream, *, options: bool | None = None) -> None:
        """Forget all templates of a stream, or all that are (or are not) of options."""
        for number, template in list(stream.templates.items()):
            if options is None or template.options == options:
                self.withdraw(stream, number)

    def learn_name(self, device: Device, names: dict[Key, str], key: Key, name: str) -> None:
        """Keep a name that a device told in options, while there is room."""
        known = names.get(key)
        if known == name or not name:
            return
        if known is None:
            if device.names >= MAX_NAMES_PER_DEVICE or self.names >= MAX_NAMES:
                return
            device.names += 1
            self.names += 1
        names[key] = name

    def wait(self, stream: Stream, number: int, waiting: WaitingSet) -> bool:
        """Keep a data set until its template arrives; others make room.

        Of a device that has enough the oldest for the same template, else those that wait for
        longest: what never gets its template must not keep others from waiting.
        """
        device, settings = stream.device, self._settings
        size, key = waiting.size, (stream, number)
        if size > min(settings.max_waiting_bytes_per_device, settings.max_waiting_bytes):
            stream.waiting_dropped += 1
            return False
        while device.waiting_bytes + size > settings.max_waiting_bytes_per_device:
            self._drop_oldest(device, key)
        while self.waiting_bytes + size > settings.max_waiting_bytes:
            self._drop_oldest(device if device.waiting else next(iter(self._waiting)), key)
        device.waiting.setdefault(key, deque()).append(waiting)
        self._waiting.setdefault(device)
        self._count_waiting(stream, 1, size)
        return True

    def take_waiting(self, stream: Stream, number: int) -> list[WaitingSet]:
        """The data sets that waited for a template."""
        taken = list(stream.device.waiting.pop((stream, number), ()))
        self._count_waiting(stream, -len(taken), -sum(waiting.size for waiting in taken))
        return taken

    def _drop_oldest(self, device: Device, key: tuple[Stream, int]) -> None:
        """Drop a set of a device that has some: of those by ``key``, if any."""
        if key not in device.waiting:
            key = next(iter(device.waiting))
        queue = device.waiting[key]
        size = queue.popleft().size
        if not queue:
            del device.waiting[key]
        key[0].waiting_dropped += 1
        self._count_waiting(key[0], -1, -size)

    def _count_waiting(self, stream: Stream, sets: int, size: int) -> None:
        device = stream.device
        stream.waiting_sets += sets
        device.waiting_bytes += size
        self.waiting_bytes += size
        if not device.waiting:
            self._waiting.pop(device, None)

    def _check(self, device: Device, definition: Definition, known: Template | None) -> None:
        fields = definition.fields
        if len(fields) > self._settings.max_fields_per_template:
            raise LimitError("too_many_fields")
        size = sum(1 if field.length == VARIABLE else field.length for field in fields)
        if not 0 < size <= 65_535:
            raise LimitError("unusable_template")
        if known is None and device.templates >= self._settings.max_templates_per_device:
            raise LimitError("too_many_templates")
        if self.fields + len(fields) > MAX_FIELDS:
            raise LimitError("too_many_templates")

    def _make_room(self, now: int) -> None:
        """Forget a device that is silent; configured ones stay."""
        if now < self._full_until:
            raise LimitError("too_many_devices")
        candidates = (d for d in self.devices.values() if d.address not in self._configured)
        oldest = min(candidates, key=lambda device: device.seen, default=None)
        if oldest is None or now - oldest.seen < IDLE:
            self._full_until = now + 1000  # looking through all devices is not free
            raise LimitError("too_many_devices")
        for stream in oldest.streams.values():
            self.withdraw_all(stream)
        for stream, number in list(oldest.waiting):
            self.take_waiting(stream, number)
        self.names -= oldest.names
        self.errors_elsewhere.update(oldest.errors)
        del self.devices[oldest.address]


def packed_address(address: str) -> bytes:
    """An address as 16 octets, IPv4 mapped."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + parsed.packed
    return parsed.packed
