"""Sampling rates that a device told in options."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Samplers, interfaces and templates whose rates are kept per observation domain, of each kind.
MAX_RATES: Final = 4096
#: Identifiers of samplers beyond this are all taken as this one.
MAX_SAMPLER: Final = (1 << 32) - 1


class Scope(NamedTuple):
    """What an options record tells of: the first of these that is there, else the whole domain."""

    sampler: int | None = None
    interface: int | None = None
    template: int | None = None


class Sampling:
    """Rates (1 in N packets) of one observation domain: for all, or for what :class:`Scope` has."""

    __slots__ = ("general", "interfaces", "samplers", "templates")

    def __init__(self) -> None:
        self.general = 0
        self.samplers: dict[int, int] = {}
        self.interfaces: dict[int, int] = {}
        self.templates: dict[int, int] = {}

    def learn(self, rate: int, scope: Scope) -> None:
        """Keep a rate that an options record told; one that cannot be is passed over."""
        if not 1 <= rate < 1 << 32:
            return
        rates, key = self._place(scope)
        if rates is None:
            self.general = rate
        elif key in rates or len(rates) < MAX_RATES:
            rates[key] = rate

    def known(self, scope: Scope) -> int:
        """What was told before in that scope; 0 where nothing was."""
        rates, key = self._place(scope)
        return self.general if rates is None else rates.get(key, 0)

    @property
    def told(self) -> bool:
        """Whether any rate was told."""
        return bool(self.general or self.samplers or self.interfaces or self.templates)

    def rate(self) -> int:
        """The rate of records that name no sampler; 0 where none was told.

        Where all samplers and templates of the domain have one rate, it is that.
        """
        if self.general:
            return self.general
        rates = {*self.samplers.values(), *self.templates.values()}
        return rates.pop() if len(rates) == 1 else 0

    def _place(self, scope: Scope) -> tuple[dict[int, int] | None, int]:
        if scope.sampler is not None:
            return self.samplers, scope.sampler
        if scope.interface is not None:
            return self.interfaces, scope.interface
        if scope.template is not None:
            return self.templates, scope.template
        return None, 0
