"""Sampling rates per row, and counters multiplied by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter.decode import values
from exporter.decode.devices import Stream
from exporter.decode.records import Records
from exporter.decode.sampling import MAX_SAMPLER
from exporter.schema import Direction, SamplingSource

if TYPE_CHECKING:
    from exporter.decode.flows import DataSets

_MAX_RATE = (1 << 32) - 1
_TURNED = 1 << 16


def apply_rates(
    columns: dict[str, Any], records: Records, sets: DataSets, per_stream: Sequence[int]
) -> None:
    """Fill ``sampling_rate`` and ``sampling_source``, and multiply ``bytes`` and ``packets``.

    Most specific first: the configured override, the record (or the datagram's header), the
    sampler, interface or template of the record as told in options, options for all, the
    configured default. ``per_stream`` has the rows of each stream.
    """
    told = _told_in_records(columns)
    sampler = columns.pop("sampler", None)
    streams = sets.streams
    bases = [_base(stream, named=sampler is not None) for stream in streams]
    rates = np.array([rate for rate, _ in bases], np.uint32)
    sources = np.array([source for _, source in bases], np.int8)
    if sets.rate is None:
        rate, source = _spread(records, sets, rates, sources)
    else:
        header = sets.rate > 0
        rate = records.spread(np.where(header, sets.rate, rates[sets.stream]).astype(np.uint32))
        source = records.spread(
            np.where(header, SamplingSource.RECORD, sources[sets.stream]).astype(np.int8)
        )
    if any(stream.rates.templates for stream in streams):
        _look_up(records.spread(sets.number), records, sets, rate, source, by="templates")
    if any(stream.rates.interfaces for stream in streams):
        for interfaces in _interfaces(columns):
            _look_up(interfaces, records, sets, rate, source, by="interfaces")
    if sampler is not None:
        _look_up(sampler, records, sets, rate, source, by="samplers")
    if told is not None:
        found = told > 0
        rate[found] = told[found]
        source[found] = SamplingSource.RECORD
    _override(records, sets, rate, source)
    columns["sampling_rate"] = rate
    columns["sampling_source"] = source
    lowest, highest = rate.min(), rate.max()
    if highest != 1 or lowest != 1:
        factor = highest if lowest == highest else rate
        columns["bytes"] *= factor
        columns["packets"] *= factor
    _count_unknown(records, sets, source, per_stream)


def _interfaces(columns: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Interfaces that flows were sampled at: in, and out of those that tell to be metered there."""
    arrived, left = columns.get("in_if"), columns.get("out_if")
    if arrived is not None:
        yield arrived
    direction = columns.get("direction")
    if left is not None and direction is not None:
        out = direction == np.int8(Direction.EGRESS)
        if out.any():
            yield np.where(out, left, np.uint32(0) if arrived is None else arrived)


def _told_in_records(columns: dict[str, Any]) -> NDArray[np.uint32] | None:
    """Rates that the records themselves tell, 0 where they do not."""
    told = _in_network_order(columns.pop("sampling_rate", None))
    selected = columns.pop("selected_packets", None)
    skipped = columns.pop("skipped_packets", None)
    if selected is None:
        return told
    # Devices that tell no space mean 1 in that many.
    one_in = selected if skipped is None else (selected + skipped) // np.maximum(selected, 1)
    one_in = np.where(selected > 0, np.minimum(one_in, _MAX_RATE), 0).astype(np.uint32)
    return one_in if told is None else np.where(told > 0, told, one_in)


def _in_network_order(rates: NDArray[np.uint32] | None) -> NDArray[np.uint32] | None:
    """Rates, those turned around that MikroTik sends in the order of its processor.

    Multiples of 65,536 are what becomes of rates below that; nothing else samples so rarely.
    """
    if rates is None or not len(rates) or rates.max() < _TURNED:
        return rates
    return np.where(rates % _TURNED == 0, rates.byteswap(), rates)


def _base(stream: Stream, *, named: bool) -> tuple[int, SamplingSource]:
    """Rate and source where nothing more specific is told.

    ``named``: the records name their sampler, so another sampler's rate is not theirs. Of a domain
    that tells of no sampling at all it is what other domains tell.
    """
    sampling = stream.rates
    rate = sampling.general if named else sampling.rate()
    if not sampling.told:
        rate = stream.device.common_rate(stream.source)
    if rate:
        return rate, SamplingSource.OPTIONS
    if stream.device.sampling_rate:
        return stream.device.sampling_rate, SamplingSource.CONFIGURED
    return 1, SamplingSource.UNKNOWN


def _spread(
    records: Records, sets: DataSets, rates: NDArray[np.uint32], sources: NDArray[np.int8]
) -> tuple[NDArray[np.uint32], NDArray[np.int8]]:
    if len(rates) == 1:
        count = len(records)
        return np.full(count, rates[0]), np.full(count, sources[0])
    return records.spread(rates[sets.stream]), records.spread(sources[sets.stream])


def _look_up(
    keys: NDArray[Any], records: Records, sets: DataSets, rate: NDArray[np.uint32],
    source: NDArray[np.int8], *, by: str,
) -> None:  # fmt: skip
    """Overwrite ``rate`` and ``source`` where options tell a rate for the row's key.

    Of keys beyond :data:`MAX_SAMPLER` all are one.
    """
    told = [getattr(stream.rates, by) for stream in sets.streams]
    if not any(told):
        return
    keys = np.minimum(keys, MAX_SAMPLER)
    pairs, places = values.distinct_pairs(records.spread(sets.stream), keys)
    found = np.array([told[stream].get(key, 0) for stream, key in pairs], np.uint32)
    if len(found) == 1:
        if found[0]:
            rate[:], source[:] = found[0], SamplingSource.OPTIONS
        return
    rates = found[places]
    rows = rates > 0
    np.copyto(rate, rates, where=rows)
    np.copyto(source, np.int8(SamplingSource.OPTIONS), where=rows)


def _override(
    records: Records, sets: DataSets, rate: NDArray[np.uint32], source: NDArray[np.int8]
) -> None:
    overrides = [stream.device.sampling_rate_override for stream in sets.streams]
    if not any(overrides):
        return
    forced = records.spread(np.array(overrides, np.uint32)[sets.stream])
    rows = forced > 0
    rate[rows] = forced[rows]
    source[rows] = SamplingSource.CONFIGURED


def _count_unknown(
    records: Records, sets: DataSets, source: NDArray[np.int8], per_stream: Sequence[int]
) -> None:
    unknown = source == np.int8(SamplingSource.UNKNOWN)  # a plain enum is of 64 bits
    if not unknown.any():
        return
    counts = per_stream
    if not unknown.all():
        per_set = np.bincount(records.set_of, unknown, len(sets))
        counts = np.bincount(sets.stream, per_set, len(sets.streams)).astype(int).tolist()
    for stream, rows in zip(sets.streams, counts, strict=True):
        stream.device.unknown_sampling += rows
