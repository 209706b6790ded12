"""What the decoders remember of devices, within the bounds of the configuration."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from exporter import config
from exporter.address import pack_address
from exporter.batch import format_address
from exporter.decode.connections import Connections
from exporter.decode.devices import OTHER, Device, Stream
from exporter.decode.elements import ElementTable
from exporter.decode.layout import VARIABLE, Field, Layout
from exporter.decode.templates import Definition, Template
from exporter.decode.waiting import Waiting
from exporter.schema import Source

#: Observation domains kept per device.
MAX_DOMAINS: Final = 1024
#: Template fields kept over all devices together: some hundred megabytes.
MAX_FIELDS: Final = 2_000_000
#: Names (of interfaces, VRFs, applications) kept per device, and over all devices together.
MAX_NAMES_PER_DEVICE: Final = 32_768
MAX_NAMES: Final = 1_000_000
#: A device not heard of for this long may make room for a new one, in milliseconds.
IDLE: Final = 600_000
#: Looking through all devices is not free: so many milliseconds from one time to the next.
_LOOK: Final = 1_000
#: Devices that are not configured and yet have metrics of their own, each a dozen series: whoever
#: forges senders' addresses must not make more of them than Prometheus can read.
MAX_TOLD: Final = 1000

Key = TypeVar("Key", int, bytes)


class LimitError(Exception):
    """A bound was reached; the text is the reason's name."""


def _by_address(devices: Sequence[config.Device]) -> dict[bytes, config.Device]:
    return {pack_address(device.address): device for device in devices}


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
        self.waiting = Waiting(settings)
        self._full_until = 0
        #: Devices that are not configured and have metrics of their own.
        self._told = 0
        #: Counts what is of no device that is kept. Of those without metrics of their own that made
        #: room for others it has all that was counted: totals must not go back.
        self.elsewhere = Device(bytes(16), None)
        self.elsewhere.label = OTHER
        #: Held while what was counted moves there, and by those who add all of it up.
        self.counting = threading.Lock()

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on.

        Who has metrics of his own keeps them. Who gets them begins anew: what was counted until now
        stays with the others.
        """
        self._configured = _by_address(devices)
        with self.counting:
            for address, device in self.devices.items():
                was_other = device.label == OTHER
                device.configure(self._configured.get(address))
                if was_other and device.configured:
                    self._count_elsewhere(device)
                elif was_other:
                    device.label = OTHER
            self._told = sum(
                not device.configured and device.label != OTHER for device in self.devices.values()
            )

    def configured_names(self) -> set[str]:
        """What metrics call the devices of the configuration, heard of or not."""
        return {
            device.name or format_address(address) for address, device in self._configured.items()
        }

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
            self._label(device)
        device.seen = now
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

    def _label(self, device: Device) -> None:
        if device.configured:
            return
        if self._told < MAX_TOLD:
            self._told += 1
        else:
            device.label = OTHER

    def _make_room(self, now: int) -> None:
        """Forget a device that is silent; configured ones stay."""
        if now < self._full_until <= now + _LOOK:
            raise LimitError("too_many_devices")

        def last_seen(device: Device) -> int:
            # Heard of later than now: before the clock was set back.
            return device.seen if device.seen <= now + IDLE else 0

        candidates = (device for device in self.devices.values() if not device.configured)
        oldest = min(candidates, key=last_seen, default=None)
        if oldest is None or now - last_seen(oldest) < IDLE:
            self._full_until = now + _LOOK
            raise LimitError("too_many_devices")
        for stream in oldest.streams.values():
            self.withdraw_all(stream)
        for stream, number in list(oldest.waiting):
            self.waiting.take(stream, number)
        self.names -= oldest.names
        with self.counting:
            if oldest.label == OTHER:
                self._count_elsewhere(oldest)
            else:
                self.elsewhere.errors.update(oldest.errors)
                self._told -= 1
            del self.devices[oldest.address]

    def _count_elsewhere(self, device: Device) -> None:
        """Move there what was counted of a device."""
        elsewhere = self.elsewhere
        elsewhere.errors.update(device.errors)
        device.errors.clear()
        elsewhere.times_replaced += device.times_replaced
        elsewhere.unknown_sampling += device.unknown_sampling
        device.times_replaced = device.unknown_sampling = 0
        for (source, _), stream in device.streams.items():
            key = (source, 0)
            if key not in elsewhere.streams:
                elsewhere.streams[key] = Stream(elsewhere, source, 0, self.connections)
            stream.move_counts(elsewhere.streams[key])
