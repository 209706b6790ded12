"""What a policy can measure: the SQL of each measure over a table's columns, and its unit."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from exporter.policies.tables import DNS_QUERIES, FLOWS, TABLES


@dataclass(frozen=True, slots=True)
class Measure:
    """``sql`` aggregates the rows of one key; ``{seconds:Float64}`` in it is the window.

    ``rollup_sql`` does the same of rows of the rollup ``flows_1m``, where they can tell it.
    ``share`` says of what the value is then a percentage: of the sum over all keys, or of the
    capacity of the interface that the key names. ``column`` is what is counted, which cannot be a
    dimension too. ``has_past`` is false of a measure that depends on what was known then.
    """

    name: str
    sql: str
    unit: str
    description: str
    rollup_sql: str = ""
    tables: tuple[str, ...] = (FLOWS.name,)
    share: Literal["", "total", "capacity"] = ""
    column: str = ""
    has_past: bool = True


#: Columns whose different values can be counted.
_COUNTED: Final = (
    "src_addr", "dst_addr", "src_port", "dst_port", "src_as", "dst_as", "dns_name",
)  # fmt: skip

# Who is new in the present hour, unless everybody is because the store itself is: since a day ago.
_NEW_SRC_ADDR: Final = """max(src_addr GLOBAL IN (
            SELECT addr FROM hosts_seen
            GROUP BY addr
            HAVING min(first_seen)
                >= fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC') - INTERVAL 1 HOUR
        ))
        * ((SELECT min(first_seen) FROM hosts_seen)
            < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC') - INTERVAL 1 DAY)"""

_BITS: Final = "sum(bytes) * 8 / {seconds:Float64}"
_PACKETS: Final = "sum(packets) / {seconds:Float64}"


def _measures() -> tuple[Measure, ...]:
    rates = (
        Measure(
            "bits_per_second",
            _BITS,
            "bit/s",
            "Bits of all flows in the window, divided by its length.",
            rollup_sql=_BITS,
        ),
        Measure(
            "packets_per_second",
            _PACKETS,
            "packets/s",
            "Packets of all flows in the window, divided by its length.",
            rollup_sql=_PACKETS,
        ),
        Measure(
            "flows_per_second",
            "count() / {seconds:Float64}",
            "flows/s",
            "Flow records in the window, divided by its length; not scaled by the sampling rate.",
            rollup_sql="sum(flows) / {seconds:Float64}",
        ),
        Measure(
            "syn_only_flows_per_second",
            "countIf(proto = 6 AND bitAnd(tcp_flags, 0x17) = 0x02) / {seconds:Float64}",
            "flows/s",
            "The same of TCP flows that have SYN but neither ACK, RST nor FIN.",
        ),
        Measure(
            "queries",
            "count()",
            "queries",
            "DNS queries in the window.",
            tables=(DNS_QUERIES.name,),
        ),
    )
    shares = (
        Measure(
            "share_of_total",
            "sum(bytes)",
            "%",
            "Percent of the bytes of all flows that pass the policy's filter in the window.",
            share="total",
        ),
        Measure(
            "share_of_capacity",
            _BITS,
            "%",
            "Bits per second as percent of the speed of the interface: the dimensions are "
            "`device` and either `in_if` or `out_if`. Interfaces of unknown speed are left out.",
            rollup_sql=_BITS,
            share="capacity",
        ),
    )
    unique = tuple(
        Measure(
            f"unique_{name}",
            f"uniq({name})",
            f"different {name}",
            f"Different values of `{name}` in the window (an estimate within about 1 %).",
            tables=tuple(table.name for table in TABLES.values() if name in table.columns),
            column=name,
        )
        for name in _COUNTED
    )
    new = Measure(
        "new_src_addr",
        _NEW_SRC_ADDR,
        "new src_addr",
        "1 where an internal `src_addr` has sent its first flow within the last hour, else 0; "
        "0 for all during the first day of the store.",
        has_past=False,
    )
    return (*rates, *shares, *unique, new)


#: All measures by name.
MEASURES: Final = MappingProxyType({measure.name: measure for measure in _measures()})
