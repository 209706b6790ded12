"""What a policy can measure: the SQL of each measure over flow columns, and its unit."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from exporter.schema import BY_NAME


@dataclass(frozen=True, slots=True)
class Measure:
    """``sql`` aggregates the flows of one key; ``{seconds:Float64}`` in it is the window.

    ``column`` is what is counted, which cannot be a dimension too. ``has_past`` is false of a
    measure that depends on what was known then.
    """

    name: str
    sql: str
    unit: str
    description: str
    column: str = ""
    has_past: bool = True


#: Columns whose different values can be counted.
_COUNTED: Final = ("src_addr", "dst_addr", "src_port", "dst_port", "src_as", "dst_as")


# Who is new in the present hour, unless everybody is because the store itself is: since a day ago.
_NEW_SRC_ADDR: Final = """max(src_addr GLOBAL IN (
            SELECT addr FROM hosts_seen
            GROUP BY addr
            HAVING min(first_seen)
                >= fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC') - INTERVAL 1 HOUR
        ))
        * ((SELECT min(first_seen) FROM hosts_seen)
            < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC') - INTERVAL 1 DAY)"""


def _measures() -> tuple[Measure, ...]:
    rates = (
        Measure(
            "bits_per_second",
            "sum(bytes) * 8 / {seconds:Float64}",
            "bit/s",
            "Bits of all flows in the window, divided by its length.",
        ),
        Measure(
            "packets_per_second",
            "sum(packets) / {seconds:Float64}",
            "packets/s",
            "Packets of all flows in the window, divided by its length.",
        ),
        Measure(
            "flows_per_second",
            "count() / {seconds:Float64}",
            "flows/s",
            "Flow records in the window, divided by its length; not scaled by the sampling rate.",
        ),
    )
    unique = tuple(
        Measure(
            f"unique_{name}",
            f"uniq({name})",
            f"different {name}",
            f"Different values of `{name}` in the window (an estimate within about 1 %).",
            column=name,
        )
        for name in _COUNTED
        if name in BY_NAME
    )
    new = Measure(
        "new_src_addr",
        _NEW_SRC_ADDR,
        "new src_addr",
        "1 where an internal `src_addr` has sent its first flow within the last hour, else 0; "
        "0 for all during the first day of the store.",
        has_past=False,
    )
    return (*rates, *unique, new)


#: All measures by name.
MEASURES: Final = MappingProxyType({measure.name: measure for measure in _measures()})
