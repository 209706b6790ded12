"""What a configuration names besides itself: read whole or not at all, and asked about."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from clickhouse_connect.driver.exceptions import ClickHouseError

from exporter.config import Config, ConfigError
from exporter.policies.check import refused_queries
from exporter.policies.model import Policy, PolicySet, load_policies
from exporter.policies.new_normal import NewNormal, idle_new_normals, load_new_normals
from exporter.store.client import StoreError, connect
from exporter.web_config import WebConfig, load_web_config

log = logging.getLogger(__name__)

#: What a reload takes over; a change of any other setting is told in the log and waits.
_RELOADED: Final = frozenset(
    {
        "device_files",
        "devices",
        "geo",
        "host_files",
        "host_targets",
        "hosts",
        "network_files",
        "networks",
        "policies",
        "services",
        "snmp",
    }
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and the files of it that are read as wholes."""

    config: Config
    policies: PolicySet
    new_normals: list[NewNormal]
    web: WebConfig

    @classmethod
    def of(cls, config: Config) -> Self:
        """Read them.

        Raises:
            ConfigError: one cannot be read or is wrong.
        """
        settings = config.policies
        return cls(
            config,
            load_policies(Path(settings.file)) if settings.file else PolicySet(),
            load_new_normals(settings.new_normals) if settings.file else [],
            load_web_config(config.http.web_config_file),
        )

    def idle_new_normals(self) -> list[str]:
        """New normals that do nothing, each as ``file:line: what``."""
        if not self.new_normals:
            return []
        file = self.config.policies.new_normals
        try:
            return idle_new_normals(file, self.new_normals, self.policies.policies, time.time())
        except OSError as error:
            return [f"{file}: {error.strerror}"]

    def ask_about_policies(self, running: Sequence[Policy]) -> None:
        """Have ClickHouse look at the policies that are not ``running`` yet, if it answers.

        Raises:
            ConfigError: it would not evaluate one of them.
        """
        if all(policy in running for policy in self.policies.policies):
            return
        try:
            with connect(self.config.clickhouse) as client:
                file = Path(self.config.policies.file)
                faults = refused_queries(client, file, self.policies, running)
        except (ConfigError, StoreError, ClickHouseError, OSError) as error:
            log.warning("ClickHouse could not be asked about the policies: %s", error)
            return
        if faults:
            raise ConfigError("\n".join(faults))


def waiting(old: Config, new: Config) -> Iterator[str]:
    """Settings that differ and that only a start takes over."""
    for name in Config.model_fields:
        if name not in _RELOADED and getattr(old, name) != getattr(new, name):
            yield name
    if old.geo.as_names_file != new.geo.as_names_file:
        yield "geo.as_names_file"
    if old.policies.query_timeout_seconds != new.policies.query_timeout_seconds:
        yield "policies.query_timeout_seconds"
