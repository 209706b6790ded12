"""SQL over the ``flows`` table for one question: what is big, by what, of which traffic.

The same text serves Grafana, where variables and macros leave the question open until a person
chooses, and the command line, where all is known: a :class:`Question` holds an SQL expression for
each thing that may be chosen. All of them are constant for ClickHouse: it folds the conditions
away, reads only the columns that remain, and uses its indexes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.explore.columns import COUNTED, MEASURES, NAMES, NO_DIMENSION
from exporter.explore.expressions import TIME, choose, protocol, quote, text, url_filter
from exporter.explore.owners import OWNED, owners
from exporter.explore.rollups import ROLLUPS, answerable, rows_as_flows

#: So many addresses of a name are looked for.
NAMED_LIMIT = 1000


@dataclass(frozen=True)
class Question:
    """SQL expressions for everything that a question leaves open.

    Attributes:
        start, end: the range, as DateTime; ``step``: length of a bucket in seconds.
        dimension, dimension_2: names of columns, as constant String; the second may be ``none``.
        column, column_2: these columns themselves.
        measure: name of the measure, as String. ``top``: how many keys, as String.
        address: a host, an address, a prefix, or empty, as String.
        device: names of devices, as ``{a,b}``, or ``*``, as String.
        compare: ``day``, ``week`` or anything else for no earlier range to compare with, as String.
        pinned: keys that stay whatever their rank, as shown, separated by commas, as String.
        offset: seconds by which flows are older than the buckets that they count in.
        rollup_if: a constant condition under which a rollup may be read instead of the flows where
            it can answer: such as that nothing else filters the flows. Empty: never.
        only_if: a constant condition; where it does not hold nothing is read.
        constants: further constants that ``where`` uses, as they stand in WITH.
        keys: an array of keys, as shown, to look at alone instead of ``pinned`` ones and Other.
        settings: what ends every query, such as a SETTINGS clause.
        where: a further condition over flow columns.
    """

    start: str
    end: str
    step: str
    dimension: str = "''"
    dimension_2: str = quote(NO_DIMENSION)
    column: str = "''"
    column_2: str = NO_DIMENSION
    measure: str = quote(MEASURES[0].name)
    top: str = "'10'"
    address: str = "''"
    device: str = "'*'"
    compare: str = "''"
    pinned: str = "''"
    offset: str = ""
    rollup_if: str = ""
    only_if: str = ""
    constants: str = ""
    keys: str = ""
    settings: str = ""
    where: str = ""

    @property
    def first(self) -> str:
        """Start of the first bucket."""
        return f"toStartOfInterval({self.start}, INTERVAL {self.step} second)"

    @property
    def past(self) -> str:
        """One past the last whole bucket; a range shorter than one has the one it is in."""
        return (
            f"greatest(toStartOfInterval({self.end}, INTERVAL {self.step} second),"
            f" {self.first} + {self.step})"
        )

    @property
    def buckets(self) -> str:
        """How many there are."""
        return f"intDiv(dateDiff('second', {self.first}, {self.past}), {self.step})"

    @property
    def bucket(self) -> str:
        """The bucket of a flow."""
        later = f" + {self.offset}" if self.offset else ""
        return f"toStartOfInterval(toDateTime({TIME}){later}, INTERVAL {self.step} second)"

    @property
    def seconds(self) -> str:
        """Length of all buckets together."""
        return f"dateDiff('second', {self.first}, {self.past})"

    @property
    def shift(self) -> str:
        """Seconds from the earlier range to this one; 0 where none is asked for."""
        return f"if({self.compare} = 'day', 86400, if({self.compare} = 'week', 604800, 0))"

    @property
    def pins(self) -> str:
        """The pinned keys as an array."""
        if self.keys:
            return self.keys
        return f"extractAll({self.pinned}, '[^, ](?:[^,]*[^, ])?')"

    def guarded(self, condition: str) -> Question:
        """The same, reading nothing unless the constant ``condition`` holds too."""
        both = f"({self.only_if}) AND ({condition})" if self.only_if else condition
        return replace(self, only_if=both)

    def earlier(self) -> Question:
        """The same of the range to compare with; of nothing where none is asked for."""
        return replace(self.guarded(f"{self.shift} != 0"), offset=self.shift)

    def in_range(self, time: str = TIME) -> str:
        """Whether a flow is in one of the buckets."""
        if not self.offset:
            return f"{time} >= {self.first} AND {time} < {self.past}"
        return f"{time} >= {self.first} - {self.offset} AND {time} < {self.past} - {self.offset}"

    def total(self) -> str:
        """The measure's aggregate over a group of flows."""
        cases = [(m.name, m.total) for m in MEASURES]
        return choose(self.measure, cases[1:], cases[0][1], "toFloat64")

    def divisor(self, seconds: str) -> str:
        """What the total of so many seconds is divided by."""
        counted = ", ".join(quote(m.name) for m in MEASURES if not m.per_second)
        return f"if({self.measure} IN ({counted}), 1, {seconds})"

    def unit_query(self, *, of_total: bool = False) -> str:
        """One row with Grafana's ``unit`` of the measure in a bucket, or over the range."""
        units = [(m.name, quote(m.total_unit if of_total else m.unit)) for m in MEASURES]
        return f"SELECT {choose(self.measure, units[1:], units[0][1], 'toString')} AS unit"

    def key_name(self, name: str, key: str, dimension: str) -> str:
        """What is known about a key: ``name`` from the flows, else from the tables of names."""
        autonomous_system = f"joinGet('as_names', 'name', toUInt32OrZero(toString({key})))"
        port_number = f"toUInt16OrZero(toString({key}))"
        tcp_port = f"joinGet('port_names', 'name', toUInt8(6), {port_number})"
        port = f"if({name} != '', {name}, {tcp_port})"
        return choose(
            dimension,
            [
                ("src_as", autonomous_system),
                ("dst_as", autonomous_system),
                ("src_port", port),
                ("dst_port", port),
            ],
            name,
            "toString",
        )

    def display(self, key: str, dimension: str) -> str:
        mac = f"MACNumToString(toUInt64OrZero(toString({key})))"
        shown = choose(
            dimension,
            [("proto", protocol(key)), ("src_mac", mac), ("dst_mac", mac)],
            text(key),
            "toString",
        )
        return f"if(toString({key}) = '', '(empty)', {shown})"

    def address_constants(self) -> str:
        """What ``address`` means, as a list for WITH.

        A name also stands for the addresses that resolvers gave it in the hours of the range, and
        in the one before, as answers are kept for a while.
        """
        return f"""\
  trim({self.address}) AS address,
  toIPv6OrNull(splitByChar('/', address)[1]) AS ip,
  multiIf(address = '', 'any', isNull(ip), 'name', position(address, '/') > 0, 'prefix',
    'address') AS address_kind,
  (
    SELECT groupUniqArray({NAMED_LIMIT})(addr) FROM names_seen
    WHERE address_kind = 'name' AND dns_name = lower(address)
      AND time >= toStartOfHour({self.start}) - 3600 AND time <= {self.end}
  ) AS named_addresses,
  toUInt8(least(128, toUInt16OrZero(splitByChar('/', address)[2])
    + if(position(address, '.') > 0, 96, 0))) AS prefix_length,
  assumeNotNull(IPv6CIDRToRange(ifNull(ip, toIPv6('::')), prefix_length)) AS prefix\
{"," if self.constants else ""}{self.constants}"""

    def address_matches(self, side: str) -> str:
        return self.matches(f"{side}_addr", f"{side}_host", f"{side}_network")

    def matches(self, address: str, host: str, network: str) -> str:
        """Whether these columns are what ``address`` means."""
        return (
            f"(address_kind = 'any'"
            f" OR address_kind = 'address' AND {address} = assumeNotNull(ip)"
            f" OR address_kind = 'prefix' AND {address} BETWEEN prefix.1 AND prefix.2"
            f" OR address_kind = 'name' AND ({host} = address OR {network} = address"
            f" OR startsWith({host}, concat(address, '.')) OR has(named_addresses, {address})))"
        )

    def _device_matches(self) -> str:
        """Devices arrive as ``{a,b}``, and as ``*`` for all of them."""
        devices = f"splitByChar(',', trim(BOTH '{{}}' FROM {self.device}))"
        return f"(has({devices}, '*') OR has({devices}, toString(device)))"

    def selected_flows(self) -> str:
        """The flows of the range that ``device`` and ``address`` select.

        Needs :meth:`address_constants`. An address is looked for on both sides by two reads,
        since ``src = x OR dst = x`` would use no index; a flow with it on both sides is in the
        first only.
        """
        where = f"{self.in_range()}\n          AND {self._device_matches()}"
        if self.only_if:
            where += f"\n          AND ({self.only_if})"
        if self.where:
            where += f"\n          AND (\n{self.where}\n)"
        return f"""\
        SELECT *, '' AS {NO_DIMENSION} FROM flows
        WHERE {where}
          AND {self.address_matches("src")}
        UNION ALL
        SELECT *, '' AS {NO_DIMENSION} FROM flows
        WHERE {where}
          AND address_kind != 'any' AND {self.address_matches("dst")}
          AND NOT {self.address_matches("src")}"""

    def keyed_flows(self) -> str:
        """The same, with the dimensions' values as ``key_1`` and ``key_2``, ``name`` of the first.

        A host has a name only in flows where enrichment knew it, hence the greatest of a group.
        Of the flows and the rollups one is read: of the others the condition is constant and false.
        """
        if not self.rollup_if:
            return self._keyed(self.selected_flows(), "toUInt64(1) AS flows")
        told = f"{self.rollup_if} AND {answerable(self)}"
        parts = [replace(self.guarded(f"NOT ({told})"), rollup_if="").keyed_flows()]
        for rollup in ROLLUPS:
            guard = self.guarded(f"{told} AND {rollup.condition(self)}").only_if
            read = (
                f"{rows_as_flows(rollup.table)}\n"
                f"        WHERE {self.in_range('time')}\n"
                f"          AND {self._device_matches()} AND ({guard})"
            )
            parts.append(self._keyed(read, "flows"))
        return "\n      UNION ALL\n".join(parts)

    def _keyed(self, flows: str, count: str) -> str:
        name = choose(self.dimension, list(NAMES.items()), "''", "toString")
        return f"""\
      SELECT {TIME}, bytes, packets, {count}, {", ".join(COUNTED)},
        {self.column} AS key_1, {self.column_2} AS key_2,
        {name} AS name
      FROM (
{flows}
      )"""

    def second_display(self, key: str) -> str:
        none = f"{self.dimension_2} = {quote(NO_DIMENSION)}"
        return f"if({none}, '', {self.display(key, self.dimension_2)})"

    def _top_keys(self) -> str:
        """The pinned keys and the largest others, as many more as are pinned."""
        return f"""\
      SELECT key_1, key_2 FROM (
{self.keyed_flows()}
      )
      GROUP BY key_1, key_2
      ORDER BY has({self.pins}, {self.display("key_1", self.dimension)}) DESC,
        {self.total()} DESC, key_1, key_2
      LIMIT toUInt16OrZero({self.top}) + length({self.pins})"""

    def _series(self, top: Question) -> str:
        """``time``, ``series``, ``Value``: the top keys of a question and Other, every bucket."""
        return f"""\
SELECT time, series, Value FROM (
  SELECT time, Value,
    max(name) OVER (PARTITION BY is_top, top_1, top_2) AS any_name,
    if(is_top, arrayStringConcat(arrayFilter(part -> part != '', [
      {self.display("top_1", self.dimension)},
      {self.second_display("top_2")},
      {self.key_name("any_name", "top_1", self.dimension)}]), ' '), 'Other') AS series
  FROM (
    SELECT {self.bucket} AS time,
      (key_1, key_2) IN (
{top._top_keys()}
      ) AS is_top,
      if(is_top, key_1, defaultValueOfArgumentType(key_1)) AS top_1,
      if(is_top, key_2, defaultValueOfArgumentType(key_2)) AS top_2,
      max(name) AS name,
      {self.total()} / {self.divisor(self.step)} AS Value
    FROM (
{self.keyed_flows()}
    )
    GROUP BY time, is_top, top_1, top_2
    HAVING {"is_top" if self.keys else "1"}
    ORDER BY is_top, top_1, top_2, time
      WITH FILL FROM {self.first}
        TO {self.past} STEP {self.step}
  )
)"""

    def series_query(self) -> str:
        """``time``, ``series``, ``Value``: the top keys and ``Other``, every bucket of each."""
        return f"""\
WITH
{self.address_constants()}
{self._series(self)}
ORDER BY time, series
{self.settings}"""

    def absent_series_query(self) -> str:
        """The same of pinned keys without any flow in the range: lines of zeros."""
        pinned = self.guarded(f"notEmpty({self.pins})")
        return f"""\
WITH
{self.address_constants()}
SELECT {self.first} + {self.step} * number AS time, pin AS series, toFloat64(0) AS Value
FROM (SELECT arrayJoin({self.pins}) AS pin)
ARRAY JOIN range(toUInt64({self.buckets})) AS number
WHERE pin NOT IN (
  SELECT {self.display("key_1", self.dimension)} FROM (
{pinned.keyed_flows()}
  )
  GROUP BY key_1
)
ORDER BY time, series
{self.settings}"""

    def earlier_series_query(self) -> str:
        """The same keys of the earlier range, at the present times; empty where none is asked."""
        top = self.guarded(f"{self.shift} != 0")
        return f"""\
WITH
{self.address_constants()}
SELECT time, concat(series, ', earlier') AS series, Value FROM (
{self.earlier()._series(top)}
)
WHERE {self.shift} != 0
ORDER BY time, series
{self.settings}"""

    def table_query(self) -> str:
        """One row per top key: average, 95th percentile, maximum, last bucket and total.

        Buckets without flows count as zero. ``Earlier`` is the total of the earlier range and
        ``Change`` the difference by it; both are null where none is asked for. ``Role`` and
        ``Owner`` are those of a host or device. ``filter_1`` and ``filter_2`` are for links.
        """
        values = (
            f"arrayConcat(found, arrayWithConstant({self.buckets}"
            f" - least({self.buckets}, length(found)), toFloat64(0)))"
        )
        top = self._top_keys()
        owned = ", ".join(map(quote, OWNED))
        return f"""\
WITH
{self.address_constants()}
SELECT
  {self.display("key_1", self.dimension)} AS "Key",
  {self.second_display("key_2")} AS "Second key",
  {self.key_name("any_name", "key_1", self.dimension)} AS "Name",
  owned_by.1 AS "Role", owned_by.2 AS "Owner",
  arrayAvg(buckets) AS "Average",
  arrayReduce('quantileExactInclusive(0.95)', buckets) AS "95th percentile",
  arrayMax(buckets) AS "Maximum",
  last_value AS "Last",
  total AS "Total",
  if({self.shift} = 0, NULL, earlier_total) AS "Earlier",
  if({self.shift} = 0 OR earlier_total = 0, NULL, total / earlier_total - 1) AS "Change",
  {url_filter("key_1")} AS filter_1,
  {url_filter("key_2")} AS filter_2
FROM (
  SELECT key_1, key_2, max(name) AS any_name,
    groupArrayIf(value / {self.divisor(self.step)}, NOT whole) AS found,
    {values} AS buckets,
    sumIf(value, NOT whole AND bucket = {self.past} - {self.step})
      / {self.divisor(self.step)} AS last_value,
    sumIf(value, whole) AS total
  FROM (
    SELECT key_1, key_2, bucket, grouping(bucket) = 1 AS whole, max(name) AS name,
      {self.total()} AS value
    FROM (
      SELECT *, {self.bucket} AS bucket FROM (
{self.keyed_flows()}
      )
    )
    WHERE (key_1, key_2) IN (
{top}
    )
    GROUP BY GROUPING SETS ((key_1, key_2), (key_1, key_2, bucket))
  )
  GROUP BY key_1, key_2
) AS present
LEFT JOIN (
  SELECT key_1, key_2, {self.total()} AS earlier_total FROM (
{self.earlier().keyed_flows()}
  )
  GROUP BY key_1, key_2
) AS earlier USING (key_1, key_2)
LEFT JOIN (
{owners(f"{self.dimension} IN ({owned})")}
) AS owners ON toString(key_1) = owners.subject
ORDER BY "Total" DESC, "Key", "Second key"
{self.settings}"""

    def keys_query(self) -> str:
        """``key``: the top keys of the first dimension as they are shown, largest first."""
        first = replace(self, dimension_2=quote(NO_DIMENSION), column_2=NO_DIMENSION)
        return f"""\
WITH
{self.address_constants()}
SELECT {self.display("key_1", self.dimension)} AS key
FROM (
{first._top_keys()}
)
{self.settings}"""

    def summary_query(self) -> str:
        """One row about all flows that match, whatever the dimension."""
        reads = []
        told = f"({self.rollup_if or 0} AND {answerable(self, grouped=False)})"
        raw = self.guarded(f"NOT {told}")
        counted = self._summary("count()", "uniq(src_addr)", "uniq(dst_addr)")
        reads.append(f"{counted}\nFROM (\n{raw.selected_flows()}\n)\nHAVING NOT {told}")
        merged = (f"uniqCombinedMerge(12)(unique_{side}_addr)" for side in ("src", "dst"))
        counted = self._summary("sum(flows)", *merged)
        for rollup in ROLLUPS if self.rollup_if else ():
            guard = f"({told} AND {rollup.condition(self)})"
            reads.append(
                f"{counted}\nFROM {rollup.table}\nWHERE {self.in_range('time')}"
                f" AND {self._device_matches()} AND {guard}\nHAVING {guard}"
            )
        union = "\nUNION ALL\n".join(reads)
        return f"WITH\n{self.address_constants()}\nSELECT * FROM (\n{union}\n)\n{self.settings}"

    def _summary(self, flows: str, sources: str, destinations: str) -> str:
        return f"""\
SELECT
  toFloat64(sum(bytes)) * 8 / {self.seconds} AS "Bits/s",
  toFloat64(sum(packets)) / {self.seconds} AS "Packets/s",
  toFloat64({flows}) AS "Flows",
  toFloat64({sources}) AS "Sources",
  toFloat64({destinations}) AS "Destinations",
  toFloat64(sum(bytes)) / greatest(toFloat64(sum(packets)), 1) AS "Bytes per packet\""""

    def raw_flows_query(self, limit: int) -> str:
        """The latest flows that match, one row each.

        Their oldest time is found first, so that all columns are read of few rows only.
        """
        return f"""\
WITH
{self.address_constants()}
SELECT
  {TIME} AS "Received",
  time_flow_start AS "Start",
  time_flow_end AS "End",
  toString(device) AS "Device",
  {text("src_addr")} AS "Source",
  toString(src_host) AS "Source host",
  src_port AS "Source port",
  {text("dst_addr")} AS "Destination",
  toString(dst_host) AS "Destination host",
  dst_port AS "Destination port",
  {protocol("proto")} AS "Protocol",
  toFloat64(bytes) AS "Bytes",
  toFloat64(packets) AS "Packets",
  src_as AS "Source AS",
  dst_as AS "Destination AS",
  in_if AS "In",
  out_if AS "Out",
  tcp_flags AS "TCP flags",
  sampling_rate AS "Sampled 1 in",
  toString(source) AS "From"
FROM (
{self.selected_flows()}
)
WHERE {TIME} >= (
  SELECT min({TIME}) FROM (
    SELECT {TIME} FROM (
{self.selected_flows()}
    )
    ORDER BY {TIME} DESC
    LIMIT {limit}
  )
)
ORDER BY {TIME} DESC
LIMIT {limit}
{self.settings}"""
