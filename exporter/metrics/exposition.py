"""Metrics as text, with a short cut for families of thousands of series.

prometheus-client spends about 10 us on a sample, most of it on sorting and escaping labels that
never change: 0.3 s for the 30,000 of a full set of interface counters, every scrape. A
:class:`SeriesFamily` keeps the text before the value of each series, and costs a thirtieth.
Any other tool sees an ordinary ``Metric`` with samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast, overload

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_EOF = b"# EOF\n"


def escape(value: str) -> str:
    """A label value as it stands between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class SeriesFamily(Metric):
    """A counter family of many series, whose labels never change.

    ``labels`` and ``prefixes`` (the text of a sample up to its value, with the space) have the
    series in order of their appearance, at least ``len(values)`` of them. From ``announced`` on
    they have not been scraped yet, which ``scraped`` is to be told.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        labels: Sequence[tuple[str, ...]],
        prefixes: Sequence[str],
        values: Sequence[int],
        announced: int,
        scraped: Callable[[], None],
    ) -> None:
        super().__init__(name, documentation, "counter")
        self._prefixes = prefixes
        self._values = values
        self._announced = announced
        self.scraped = scraped
        self.samples = cast("list[Sample]", _Samples(f"{name}_total", label_names, labels, values))

    def lines(self, *, scrape: bool) -> Iterator[str]:
        """One line per series; for a scrape, a series reads 0 the first time.

        Prometheus takes no increase from the first sample of a series: had it the value of the
        first batch already, that batch would be missing in every ``increase()`` and ``rate()``.
        """
        for index, (prefix, value) in enumerate(zip(self._prefixes, self._values, strict=False)):
            yield f"{prefix}{0 if scrape and index >= self._announced else value}\n"


class _Samples(Sequence[Sample]):
    """Samples made when someone asks for them."""

    def __init__(
        self,
        name: str,
        label_names: Sequence[str],
        labels: Sequence[tuple[str, ...]],
        values: Sequence[int],
    ) -> None:
        self._name = name
        self._label_names = label_names
        self._labels = labels
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        labels = dict(zip(self._label_names, self._labels[index], strict=True))
        return Sample(self._name, labels, self._values[index])


class _Collected(CollectorRegistry):
    """What was collected already, for an encoder that takes a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def render(registry: Collector, accept: str, *, scrape: bool) -> tuple[bytes, str]:
    """All metrics in the format that ``accept`` prefers, and its content type.

    ``scrape`` is true when the reader is a Prometheus (see :meth:`SeriesFamily.lines`).
    """
    encoder, content_type = choose_encoder(accept)
    openmetrics = content_type.startswith("application/openmetrics-text")
    large: list[SeriesFamily] = []
    small: list[Metric] = []
    for metric in registry.collect():
        if isinstance(metric, SeriesFamily):
            large.append(metric)
        else:
            small.append(metric)
    parts = [encoder(_Collected(small)).removesuffix(_EOF)]
    for family in large:
        name = family.name if openmetrics else f"{family.name}_total"
        head = f"# HELP {name} {family.documentation}\n# TYPE {name} counter\n"
        parts.append((head + "".join(family.lines(scrape=scrape))).encode())
    if openmetrics:
        parts.append(_EOF)
    if scrape:
        for family in large:
            family.scraped()
    return b"".join(parts), content_type
