"""Asks devices by SNMP for their interfaces, again and again, in a thread of its own.

One walk at a time per device and a few devices at a time; who does not answer is asked less and
less often. Nothing waits for the answers: names are those that are known.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.address import pack_address
from exporter.config import ConfigError, Device, Snmp, SnmpAccess
from exporter.config.load import read_bytes
from exporter.enrich.learned_interfaces import LearnedInterface, LearnedInterfaces
from exporter.logs import RareLog
from exporter.metric_families import by_label
from exporter.own_file import OwnFile

if TYPE_CHECKING:
    from exporter.enrich.snmp_walk import Walker

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.5
#: Wait after a first failure, doubled with each further one up to the time between two walks.
_RETRY_SECONDS: Final = 30.0
#: A walk may take this many times as long as one answer.
_WALK_TIMEOUTS: Final = 60


@dataclass(slots=True)
class _Target:
    """One device: when it is to be asked next, and how it went."""

    device: Device
    due: float = 0.0
    failures: int = 0
    walking: bool = False
    succeeded_at: float = 0.0


class SnmpPoller(Collector):
    """Keeps ``interfaces`` up to date for all devices that name an access."""

    def __init__(self, interfaces: LearnedInterfaces) -> None:
        self._interfaces = interfaces
        self._settings = Snmp()
        self._targets: dict[str, _Target] = {}
        self._walks = Counter({"ok": 0, "failed": 0})
        self._walkers: dict[SnmpAccess, Walker] = {}
        self._saved = -1
        self._cache_file = OwnFile("snmp.cache_file")
        self._errors = 0
        self._log = RareLog(log)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, settings: Snmp, devices: Sequence[Device]) -> None:
        """Ask these devices so from now on; what is known of the others is forgotten."""
        asked = {device.address: device for device in devices if device.snmp}
        try:
            require_package(devices)
        except ConfigError as error:  # a file of devices may want it while we run
            self._errors += 1
            log.error("no device is asked: %s", error)
            asked = {}
        known = {access.name for access in settings.access}
        for device in asked.values():
            if device.snmp not in known:
                log.error("device %s: no snmp.access is named %r", device.address, device.snmp)
        first = self._settings.cache_file != settings.cache_file
        old = self._targets
        self._settings = settings
        self._targets = {
            address: old[address] if address in old and old[address].device == device
            else _Target(device)
            for address, device in asked.items()
            if device.snmp in known
        }  # fmt: skip
        self._interfaces.keep_only({pack_address(address) for address in self._targets})
        if first and settings.cache_file:
            self._load(Path(settings.cache_file))

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._run, name="snmp", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self._cache_file.release()

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_snmp_*``."""
        yield by_label(
            CounterMetricFamily, "flow_exporter_snmp_walks", "Times that a device was asked.",
            "result", self._walks,
        )  # fmt: skip
        yield CounterMetricFamily(
            "flow_exporter_snmp_errors",
            "Faults of the exporter itself between walks; see the log.",
            self._errors,
        )
        success = GaugeMetricFamily(
            "flow_exporter_snmp_last_success_timestamp_seconds",
            "When a device last told all of its interfaces; 0: not since the start.",
            labels=["device"],
        )
        failures = GaugeMetricFamily(
            "flow_exporter_snmp_failures",
            "How often a device has not answered, or not rightly, since it last did.",
            labels=["device"],
        )
        for target in list(self._targets.values()):
            name = target.device.name or target.device.address
            success.add_metric([name], target.succeeded_at)
            failures.add_metric([name], target.failures)
        yield success
        yield failures

    def _run(self) -> None:
        asyncio.run(self._ask_all())

    async def _ask_all(self) -> None:
        walks: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            try:
                self._begin(walks)
                self._save()
            except Exception as error:  # a fault of ours in one turn must not end the thread
                self._errors += 1
                self._log.error("fault", f"SNMP: a fault of the exporter itself: {error!r}")
            await asyncio.sleep(_TICK_SECONDS)
        for task in list(walks):
            task.cancel()
        await asyncio.gather(*walks, return_exceptions=True)
        for walker in self._walkers.values():
            walker.close()

    def _begin(self, walks: set[asyncio.Task[None]]) -> None:
        """Ask those that are due, as many as may be asked at once."""
        now = time.monotonic()
        waiting = (t for t in list(self._targets.values()) if not t.walking and t.due <= now)
        for target in sorted(waiting, key=lambda t: t.due):
            if len(walks) >= self._settings.parallel:
                break
            target.walking = True
            task = asyncio.create_task(self._ask(target))
            walks.add(task)
            task.add_done_callback(walks.discard)

    async def _ask(self, target: _Target) -> None:
        from exporter.enrich.snmp_walk import SnmpError

        settings, device = self._settings, target.device
        try:
            walker = self._walker(device.snmp)
            found = await asyncio.wait_for(
                walker.interfaces(device.address), _WALK_TIMEOUTS * settings.timeout_seconds
            )
            if self._targets.get(device.address) is target:
                self._interfaces.put(pack_address(device.address), found)
        except (SnmpError, ConfigError, OSError, TimeoutError) as error:
            self._walks["failed"] += 1
            target.failures += 1
            wait = min(_RETRY_SECONDS * 2 ** (target.failures - 1), settings.refresh_seconds)
            if target.failures == 1:
                log.warning("SNMP: %s: %s", device.address, str(error) or "no answer")
        except Exception:
            self._walks["failed"] += 1
            target.failures += 1
            wait = settings.refresh_seconds
            log.exception("SNMP: %s", device.address)
        else:
            self._walks["ok"] += 1
            target.failures = 0
            target.succeeded_at = time.time()
            wait = settings.refresh_seconds
        target.due = time.monotonic() + wait
        target.walking = False

    def _walker(self, name: str) -> Walker:
        """Asks with that access as it is now, and the secrets that its files hold now."""
        from exporter.enrich.snmp_walk import Walker, secrets

        access = next(access for access in self._settings.access if access.name == name)
        walker = self._walkers.get(access)
        if walker is None or walker.secrets != secrets(access):
            # The old one is left to the walks that use it.
            walker = self._walkers[access] = Walker(access, self._settings)
        return walker

    def _load(self, file: Path) -> None:
        try:
            saved = json.loads(read_bytes(file))
            for address, interfaces in saved.items():
                if address in self._targets:
                    found = {
                        int(index): LearnedInterface(str(name), str(alias), int(speed))
                        for index, (name, alias, speed) in interfaces.items()
                    }
                    self._interfaces.put(pack_address(address), found)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s: not used, devices are asked anew: %s", file, error)
        self._saved = self._interfaces.changes

    def _save(self) -> None:
        changes = self._interfaces.changes
        if not self._settings.cache_file or changes == self._saved:
            return
        file = Path(self._settings.cache_file)
        try:
            self._cache_file.hold(file)
        except ConfigError as error:
            self._log.error("cache", str(error))
            return
        self._saved = changes
        known = self._interfaces.snapshot()
        document = {
            address: {
                str(index): [found.name, found.alias, found.speed]
                for index, found in known.get(pack_address(address), {}).items()
            }
            for address in self._targets
            if pack_address(address) in known
        }
        try:
            new = file.with_name(file.name + ".new")
            new.write_text(json.dumps(document), encoding="utf-8")
            new.replace(file)
        except OSError as error:
            log.warning("%s: %s", file, error)


def require_package(devices: Sequence[Device]) -> None:
    """Whether what these devices need is there.

    Raises:
        ConfigError: one is to be asked by SNMP, and the extra is not installed.
    """
    if any(device.snmp for device in devices) and importlib.util.find_spec("pysnmp") is None:
        raise ConfigError("snmp: not installed: `pip install '.[snmp]'` in the checkout")
