"""Files beside the configuration that hold devices, networks, hosts and targets of Prometheus."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, RootModel, ValidationError, model_validator

from exporter.config.faults import faults_of, shown
from exporter.config.load import load_yaml, read_text
from exporter.config.names import Device, Host, Interface, Network, parse_prefix
from exporter.config.section import ConfigError, Section

Row = TypeVar("Row", bound=BaseModel)

_YAML = frozenset({".yaml", ".yml", ".json"})
#: Labels of a device's target that are settings of the device; the others stay labels.
_SETTINGS = (
    "name",
    "site",
    "role",
    "owner",
    "snmp",
    "sampling_rate",
    "sampling_rate_override",
    "reverse_counters",
)


class TargetGroup(Section):
    """Targets that share labels, as in Prometheus' `file_sd` and `http_sd`."""

    targets: list[str] = Field(description="Addresses or names, with or without a port.")
    labels: dict[str, str] = Field(default_factory=dict, description="What is true of all of them.")


class DeviceGroup(TargetGroup):
    """Devices as targets. `interfaces` is ours: Prometheus refuses a file that has it."""

    interfaces: dict[int, Interface | str] = Field(
        default_factory=dict, description="Interfaces by ifIndex, as of a device."
    )

    @model_validator(mode="after")
    def _devices(self) -> Self:
        try:
            self.devices()
        except ValidationError as error:
            raise ValueError(_one_line(error, Device)) from error
        return self

    def devices(self) -> list[Device]:
        """A device for each target."""
        labels = {k: v for k, v in self.labels.items() if not k.startswith("__")}
        settings: dict[str, Any] = {k: labels.pop(k) for k in _SETTINGS if k in labels}
        settings |= {"labels": labels, "interfaces": self.interfaces}
        return [
            Device.model_validate({"address": target_host(target)} | settings)
            for target in self.targets
        ]


class _DeviceGroups(RootModel[list[DeviceGroup]]):
    pass


class TargetGroups(RootModel[list[TargetGroup]]):
    """What a file of `file_sd` and an answer of `http_sd` hold."""


class _Networks(RootModel[list[Network]]):
    pass


class _Hosts(RootModel[list[Host]]):
    pass


class _NetworkRow(Section):
    prefix: str
    name: str
    internal: bool = True


def target_host(target: str) -> str:
    """The host of ``host:port``, ``[address]:port``, or either without the port."""
    text = target.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def load_devices(path: Path) -> list[Device]:
    """Devices of a file in the form of Prometheus' `file_sd`, YAML or JSON.

    Raises:
        ConfigError: one line per fault, each as ``file:line: where: what``; so do all below.
    """
    groups = load_yaml(path, _DeviceGroups).root
    return [device for group in groups for device in group.devices()]


def load_targets(path: Path) -> list[TargetGroup]:
    """Groups of a file of `file_sd`, YAML or JSON."""
    return load_yaml(path, TargetGroups).root


def load_networks(path: Path) -> list[Network]:
    """Networks of a YAML file like the configuration's, or of CSV: ``prefix,name[,internal]``."""
    if path.suffix in _YAML:
        return load_yaml(path, _Networks).root
    found: dict[str, Network] = {}
    prefixes: dict[str, list[str]] = {}
    for line, row in _csv_rows(path, _NetworkRow):
        try:
            prefix = parse_prefix(row.prefix)
        except ValueError as error:
            raise ConfigError(f"{path}:{line}: prefix: {error}") from error
        network = found.setdefault(
            row.name, Network(name=row.name, prefixes=[prefix], internal=row.internal)
        )
        if network.internal != row.internal:
            raise ConfigError(
                f"{path}:{line}: network {row.name} is internal in one line and not in another"
            )
        prefixes.setdefault(row.name, []).append(prefix)
    return [
        network.model_copy(update={"prefixes": prefixes[name]}) for name, network in found.items()
    ]


def load_hosts(path: Path) -> list[Host]:
    """Hosts of a YAML file, of CSV (``address,name[,role][,owner]``), else as ``/etc/hosts``."""
    if path.suffix in _YAML:
        return load_yaml(path, _Hosts).root
    if path.suffix == ".csv":
        return [row for _, row in _csv_rows(path, Host)]
    return list(_hosts_lines(path))


def _hosts_lines(path: Path) -> Iterator[Host]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) == 1:
            raise ConfigError(f"{path}:{number}: {words[0]} has no name")
        try:
            yield Host(address=words[0].partition("%")[0], name=words[1])
        except ValidationError as error:
            raise ConfigError(f"{path}:{number}: {_one_line(error, Host)}") from error


def _csv_rows(path: Path, model: type[Row]) -> Iterator[tuple[int, Row]]:
    """Rows with the numbers of their lines; empty lines and those that begin with # are none."""
    lines = [
        (number, line)
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise ConfigError(f"{path}:1: the first line must name the columns")
    header, *rows = (_cells(path, number, line) for number, line in lines)
    names = [name.strip() for name in header]
    unknown = [name for name in names if name not in model.model_fields]
    if unknown:
        known = ", ".join(model.model_fields)
        raise ConfigError(f"{path}:{lines[0][0]}: no column is {unknown[0]!r}, there are {known}")
    for (number, _), row in zip(lines[1:], rows, strict=True):
        if len(row) != len(names):
            raise ConfigError(f"{path}:{number}: {len(row)} values for {len(names)} columns")
        values = {k: v.strip() for k, v in zip(names, row, strict=True) if v.strip()}
        try:
            yield number, model.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{path}:{number}: {_one_line(error, model)}") from error


def _cells(path: Path, number: int, line: str) -> list[str]:
    """The values of one line: none goes on in the next."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ConfigError(f"{path}:{number}: {error}") from error


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    return "; ".join(f"{shown(place)}: {what}" for place, what in faults_of(error, model))
