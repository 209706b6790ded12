"""Which template each data set of a batch is decoded with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Sets, is_data_set
from exporter.decode.layout import Layout
from exporter.decode.state import Stream, WaitingSet
from exporter.decode.templates import Template
from exporter.decode.values import distinct_pairs


class Binding:
    """Which template each data set is decoded with.

    Most are bound at the end, to the templates then in force; those before a template that
    changes are bound to what was in force before.
    """

    def __init__(self, sets: Sets, stream: NDArray[np.intp]) -> None:
        self._sets = sets
        self._stream = sets.spread(stream)
        self._place = np.full(len(sets.number), -1, np.intp)
        self._templates: list[Template | None] = []
        self.woken: list[tuple[Stream, Template, list[WaitingSet]]] = []

    def bind_before(self, stream: Stream, owner: int, number: int | None, at: int) -> None:
        """Bind the sets before ``at`` that have a template (or any) of a stream."""
        rows = (self._stream == owner) & (self._sets.start < at) & (self._place < 0)
        rows &= is_data_set(self._sets.number)
        if number is not None:
            rows &= self._sets.number == number
        for used in np.unique(self._sets.number[rows]).tolist():
            template = stream.templates.get(used)
            if template is not None:
                self._place[rows & (self._sets.number == used)] = len(self._templates)
                self._templates.append(template)

    def bind_rest(self, data: NDArray[np.bool_], streams: Sequence[Stream]) -> None:
        """Bind all others to the templates in force."""
        rows = np.flatnonzero(data & (self._place < 0))
        found, place = distinct_pairs(self._stream[rows], self._sets.number[rows])
        self._place[rows] = place + len(self._templates)
        self._templates.extend(streams[owner].templates.get(number) for owner, number in found)

    def groups(self) -> Iterable[tuple[Template | None, NDArray[np.intp]]]:
        """Sets that are no flows: those of options, and those whose template is unknown."""
        for place, template in enumerate(self._templates):
            if template is None or template.options:
                yield template, np.flatnonzero(self._place == place)

    def layouts(self) -> Iterable[tuple[Layout, NDArray[np.intp]]]:
        """Sets of flows by the layout of their records, whatever device and template."""
        index: dict[Layout, int] = {}
        layout_of = [
            -1 if template is None or template.options
            else index.setdefault(template.layout, len(index))
            for template in self._templates
        ]  # fmt: skip
        if not index:
            return
        of_set = np.array([*layout_of, -1], np.intp)[self._place]
        if len(index) == 1:
            yield next(iter(index)), np.flatnonzero(of_set == 0)
            return
        order = np.argsort(of_set, kind="stable")
        bounds = np.searchsorted(of_set[order], np.arange(len(index) + 1))
        for layout, number in index.items():
            yield layout, order[bounds[number] : bounds[number + 1]]
