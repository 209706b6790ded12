"""Sampling rates that a device told in options."""

from __future__ import annotations

from typing import Final

#: Samplers and interfaces whose rates are kept per observation domain.
MAX_RATES: Final = 4096
#: Identifiers of samplers beyond this are all taken as this one.
MAX_SAMPLER: Final = (1 << 32) - 1


class Sampling:
    """Rates (1 in N packets) of one observation domain, by sampler, by interface, or for all."""

    __slots__ = ("general", "interfaces", "samplers")

    def __init__(self) -> None:
        self.general = 0
        self.samplers: dict[int, int] = {}
        self.interfaces: dict[int, int] = {}

    def learn(self, rate: int, *, sampler: int | None, interface: int | None) -> None:
        """Keep a rate that an options record told for a sampler, an interface, or for all."""
        if not 1 <= rate < 1 << 32:
            return
        if sampler is not None:
            if sampler in self.samplers or len(self.samplers) < MAX_RATES:
                self.samplers[sampler] = rate
        elif interface is not None:
            if interface in self.interfaces or len(self.interfaces) < MAX_RATES:
                self.interfaces[interface] = rate
        else:
            self.general = rate

    def known(self, sampler: int | None, interface: int | None) -> int:
        """What was told for a sampler, an interface, or for all; 0 where nothing was."""
        if sampler is not None:
            return self.samplers.get(sampler, 0)
        if interface is not None:
            return self.interfaces.get(interface, 0)
        return self.general

    def rate(self) -> int:
        """The rate of records that name no sampler; 0 where none was told.

        Where all samplers of the domain have one rate, it is that.
        """
        if self.general:
            return self.general
        rates = set(self.samplers.values())
        return rates.pop() if len(rates) == 1 else 0
