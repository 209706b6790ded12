"""Which template each data set of a batch is decoded with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Sets
from exporter.decode.devices import Stream, WaitingSet
from exporter.decode.layout import Layout
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
        self._rows: _RowsByNumber | None = None
        self.woken: list[tuple[Stream, Template, list[WaitingSet]]] = []

    def bind_before(self, stream: Stream, owner: int, number: int | None, at: int) -> None:
        """Bind the sets before ``at`` that have a template (or any) of a stream."""
        if self._rows is None:
            self._rows = _RowsByNumber(self._sets, self._stream)
        for used in list(stream.templates) if number is None else [number]:
            template = stream.templates.get(used)
            if template is not None:
                rows = self._rows.take_before(owner, used, at)
                if len(rows):
                    self._place[rows] = len(self._templates)
                    self._templates.append(template)

    def bind_rest(self, data: NDArray[np.bool_], streams: Sequence[Stream]) -> None:
        """Bind all others to the templates in force."""
        rows = np.flatnonzero(data & (self._place < 0))
        found, place = distinct_pairs(self._stream[rows], self._sets.number[rows])
        self._place[rows] = place + len(self._templates)
        self._templates.extend(streams[owner].templates.get(number) for owner, number in found)

    def groups(self) -> Iterable[tuple[Template | None, NDArray[np.intp]]]:
        """Sets that are no flows: all whose template is unknown, then those of options."""
        unknown = np.array([*(template is None for template in self._templates), False])
        rows = np.flatnonzero(unknown[self._place])
        if len(rows):
            yield None, rows
        options = [
            (place, template)
            for place, template in enumerate(self._templates)
            if template is not None and template.options
        ]
        if options:
            order = np.argsort(self._place, kind="stable")
            bounds = np.searchsorted(self._place[order], np.arange(len(self._templates) + 1))
            for place, template in options:
                yield template, order[bounds[place] : bounds[place + 1]]

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


class _RowsByNumber:
    """Sets by stream and number, to find few of very many without looking at all."""

    def __init__(self, sets: Sets, stream: NDArray[np.intp]) -> None:
        keys = stream.astype(np.int64) << 16 | sets.number
        self._order = np.lexsort((sets.start, keys))
        self._keys = keys[self._order]
        self._starts = sets.start[self._order]
        self._taken: dict[int, int] = {}

    def take_before(self, owner: int, number: int, at: int) -> NDArray[np.intp]:
        """Those before octet ``at`` that were not taken yet."""
        key = owner << 16 | number
        begin, end = np.searchsorted(self._keys, (key, key + 1)).tolist()
        begin = self._taken.get(key, begin)
        end = begin + int(np.searchsorted(self._starts[begin:end], at))
        self._taken[key] = end
        return self._order[begin:end]
