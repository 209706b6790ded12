"""One question about the flows: what is big, by what, of which traffic; and the flows it is about.

The same text serves Grafana, where variables and macros leave the question open until a person
chooses, and the command line, where all is known: see :mod:`exporter.explore.choices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exporter.explore.choices import Choice, Dimension, by, measuring
from exporter.explore.columns import MEASURES, NO_DIMENSION, OTHER_NAMES, SHARE
from exporter.explore.drawn import ESTIMATED, FEW, LOOKED_AT, WEIGHT
from exporter.explore.expressions import TIME, quote
from exporter.explore.hours import after_hours, flow_state, hour_constants, hour_rows
from exporter.explore.rollups import answerable, rollup_rows

#: So many addresses of a name are looked for.
NAMED_LIMIT = 1000

#: An address with a length that it can have.
_PREFIX: Final = quote(
    "^([^:/]+/0*([12]?[0-9]|3[0-2])|[^/]*:[^/]*/0*([1-9]?[0-9]|1[01][0-9]|12[0-8]))$"
)

_NONE: Final = by(NO_DIMENSION)
_BITS: Final = measuring(MEASURES[0].name)


@dataclass(frozen=True)
class Question:
    """SQL expressions for everything that a question leaves open.

    An empty text of the optional ones means that nothing is asked of that kind, whatever a person
    chooses.

    Attributes:
        start, end: the range, as DateTime; ``step``: length of a bucket in seconds;
            ``asked_step``: the length asked for where ``step`` may be a longer one, see
            :func:`exporter.explore.hours.in_hours`. ``end_step``: the range ends with a whole one
            of so many seconds instead of with a whole bucket, so the last one may be shorter.
        dimension, dimension_2: what to group by.
        measure: what is summed or counted. ``top``: how many keys, as String.
        address: a host, an address, a prefix, or empty, as String.
        device: names of devices, as ``{a,b}``, or ``*``, as String.
        compare: ``day``, ``week`` or anything else for no earlier range to compare with, as String.
        pinned: keys that stay whatever their rank, as shown, separated by commas, as String.
        rollup_if: a constant condition under which a rollup may be read instead of the flows where
            it can answer: such as that nothing else filters the flows. Empty: never.
        beyond: a constant condition under which a rollup answers however short the range is: flows
            of it are gone, as :func:`exporter.explore.drawn.looked_at_query` tells. Empty: never.
        hourly: likewise that it has hours only: buckets have so, too.
        estimated: a constant condition under which drawn flows stand for all where sums are asked
            for: :func:`exporter.explore.drawn.looked_at_query` tells. Empty: never.
        few: a constant condition under which so few flows match that they fit into memory, which
            the same query tells. Empty: never.
        only_if: a constant condition; where it does not hold nothing is read.
        constants: further constants that ``where`` uses, as they stand in WITH.
        keys: an array of keys, as shown, to look at alone instead of ``pinned`` ones and Other.
        settings: what ends every query, such as a SETTINGS clause.
        where: a further condition over flow columns.
    """

    start: str
    end: str
    step: str
    asked_step: str = ""
    end_step: str = ""
    dimension: Dimension = _NONE
    dimension_2: Dimension = _NONE
    measure: Choice = _BITS
    top: str = "'10'"
    address: str = ""
    device: str = ""
    compare: str = ""
    pinned: str = ""
    rollup_if: str = ""
    beyond: str = ""
    hourly: str = ""
    estimated: str = ""
    few: str = ""
    only_if: str = ""
    constants: str = ""
    keys: str = ""
    settings: str = ""
    where: str = ""

    # Times.

    @property
    def first(self) -> str:
        """Start of the first bucket."""
        return f"toStartOfInterval({self.start}, INTERVAL {self.step} second)"

    @property
    def _end_step(self) -> str:
        return self.end_step or self.asked_step

    @property
    def past(self) -> str:
        """One past the last whole bucket; a range shorter than one has the one it is in.

        Where buckets are longer than the step of the end, the last one may be a shorter one.
        """
        step = self._end_step or self.step
        return (
            f"greatest(toStartOfInterval({self.end}, INTERVAL {step} second),"
            f" {self.first} + {step})"
        )

    @property
    def seconds(self) -> str:
        """Length of all buckets together."""
        return f"dateDiff('second', {self.first}, {self.past})"

    @property
    def bucket_seconds(self) -> str:
        """Length of the bucket that begins at ``bucket``."""
        if not self._end_step:
            return self.step
        return f"least({self.step}, dateDiff('second', bucket, range_end))"

    @property
    def buckets(self) -> str:
        """How many buckets the range has."""
        if not self._end_step:
            return f"intDiv({self.seconds}, {self.step})"
        return f"intDiv({self.seconds} + {self.step} - 1, {self.step})"

    @property
    def bucket(self) -> str:
        """The bucket of a flow; that of a flow of the earlier range is the one it compares with."""
        later = " + if(is_earlier, shift, 0)" if self.compare else ""
        return f"toStartOfInterval(toDateTime({TIME}){later}, INTERVAL {self.step} second)"

    def in_range(self, time: str = TIME) -> str:
        """Whether a flow is in one of the buckets."""
        return f"{time} >= {self.first} AND {time} < {self.past}"

    def _in_ranges(self, time: str = TIME) -> str:
        """The same, of the earlier range too where one is asked for."""
        if not self.compare:
            return f"{time} >= range_start AND {time} < range_end"
        return (
            f"{time} < range_end AND {time} >= range_start - shift"
            f" AND if(shift = 0, 1, {time} >= range_start OR {time} < range_end - shift)"
        )

    # Measures.

    @property
    def counts(self) -> str:
        """Whether different values are counted: constant."""
        return self.measure.holds(
            "startsWith({}, 'unique_')", self.measure.known.startswith("unique_")
        )

    @property
    def is_share(self) -> str:
        """Whether totals are percentages of that of all keys: constant."""
        return self.measure.is_one_of((SHARE,))

    @property
    def total(self) -> str:
        """The measure's aggregate over a group of flows with their ``amount``."""
        return self._total("")

    @property
    def total_of_key(self) -> str:
        """The same over all flows of a flow's key."""
        return self._total(" OVER (PARTITION BY key_1, key_2)")

    def _total(self, over: str) -> str:
        factors = {m.name: m.factor for m in MEASURES if m.factor != 1}
        factor = str(factors.get(self.measure.known, 1))
        if not self.measure.known:
            plain = [m.name for m in MEASURES if m.factor == 1]
            factor = f"if({self.measure.is_one_of(plain)}, 1, {MEASURES[0].factor})"
        # Of an address there is no sum: the inner condition leaves none.
        summed = f"sum(if({self.counts}, 0, amount)){over} * {factor}"
        different = f"uniq(amount){over}"
        if self.asked_step:
            different = f"if(from_states, uniqCombinedMerge(12)(state){over}, {different})"
        return f"toFloat64(if({self.counts}, {different}, {summed}))"

    def shared(self, value: str, partition: str) -> str:
        """A total as it is shown: a percentage of all in its ``partition`` where it is a share.

        ``value`` is a column of a subquery that has all of the partition.
        """
        if self.measure.known and self.measure.known != SHARE:
            return value
        of = f"greatest(sum({value}) OVER (PARTITION BY {partition}), 1)"
        return f"if({self.is_share}, 100 * {value} / {of}, {value})"

    @property
    def _is_no_rate(self) -> str:
        counted = [measure.name for measure in MEASURES if not measure.per_second]
        return self.measure.is_one_of(counted)

    def divisor(self, seconds: str) -> str:
        """What the total of so many seconds is divided by."""
        return f"if({self._is_no_rate}, 1, {seconds})"

    def average(self, values: str, total: str) -> str:
        """The average of a key's ``values``, one per bucket, which come to ``total``.

        Of buckets of different lengths each counts for its own.
        """
        if not self.end_step:
            return f"arrayAvg({values})"
        return f"if({self._is_no_rate}, arrayAvg({values}), {total} / {self.seconds})"

    def unit_query(self, *, of_total: bool = False) -> str:
        """One row with Grafana's ``unit`` of the measure in a bucket, or over the range."""
        units = [(m.name, m.total_unit if of_total else m.unit) for m in MEASURES]
        cases = (f"{self.measure.text} = {quote(name)}, {quote(unit)}" for name, unit in units)
        return f"SELECT multiIf({', '.join(cases)}, {quote(units[0][1])}) AS unit"

    # What is read.

    def constants_list(self, *, grouped: bool = True, ranked: bool = False) -> str:
        """What the question's subqueries need, as a list for WITH.

        A name also stands for the addresses that resolvers gave it in the hours of the range, and
        in the one before, as answers are kept for a while.
        """
        made = []
        if self.asked_step:
            made += hour_constants(self)
        made += [f"{self.first} AS range_start", f"{self.past} AS range_end"]
        if self.compare:
            made.append(
                f"multiIf({self.compare} = 'day', 86400, {self.compare} = 'week', 604800, 0)"
                " AS shift"
            )
        if self.address:
            made.append(self.address_constants())
        if self.constants:
            made.append(self.constants)
        if self.rollup_if:
            made.append(f"{answerable(self, grouped=grouped)} AS from_rollup")
        if self.estimated:
            made.append(f"({self.estimated} AND NOT {self.counts}) AS {ESTIMATED}")
        if self.few and ranked:
            made.append(f"({self.few}{' AND shift = 0' if self.compare else ''}) AS {FEW}")
        return ",\n".join(f"  {each.strip()}" for each in made)

    def address_constants(self) -> str:
        """What ``address`` means, as a list for WITH.

        An address with a length that it cannot have makes the query fail, and ClickHouse say so:
        no other question is answered in its place.
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
  CAST(if(address_kind != 'prefix' OR match(address, {_PREFIX}), '1',
    concat('address: ', address, ' is not a prefix such as 10.0.0.0/8')), 'UInt8') AS is_prefix,
  toUInt8(least(128, toUInt16OrZero(splitByChar('/', address)[2])
    + if(position(address, ':') > 0, 0, 96))) AS prefix_length,
  assumeNotNull(IPv6CIDRToRange(ifNull(ip, toIPv6('::')), prefix_length)) AS prefix"""

    def matches(self, address: str, host: str, network: str) -> str:
        """Whether these columns are what ``address`` means."""
        return (
            f"(address_kind = 'any'"
            f" OR address_kind = 'address' AND {address} = assumeNotNull(ip)"
            f" OR address_kind = 'prefix' AND is_prefix AND {address} BETWEEN prefix.1 AND prefix.2"
            f" OR address_kind = 'name' AND ({host} = address OR {network} = address"
            f" OR startsWith({host}, concat(address, '.')) OR has(named_addresses, {address})))"
        )

    def address_matches(self, side: str) -> str:
        """Whether a flow has ``address`` on one side, ``src`` or ``dst``."""
        return self.matches(f"{side}_addr", f"{side}_host", f"{side}_network")

    @property
    def _devices(self) -> str:
        return f"splitByChar(',', trim(BOTH '{{}}' FROM {self.device}))"

    @property
    def any_device(self) -> str:
        """Whether all devices are asked for: constant."""
        return f"has({self._devices}, '*')"

    @property
    def of_devices(self) -> str:
        """Whether a row is of the devices asked for."""
        return f"({self.any_device} OR has({self._devices}, toString(device)))"

    def conditions(self, time: str = TIME, *, device: bool = True) -> list[str]:
        """What flows and rows of rollups have to fulfil; not ``device``: of those without one."""
        held = [self._in_ranges(time)]
        if self.device and device:
            held.append(self.of_devices)
        if self.only_if:
            held.append(f"({self.only_if})")
        return held

    def selected_flows(self) -> str:
        """The flows of the range that ``device``, ``address`` and ``where`` select: ``FROM …``."""
        held = []
        if self.rollup_if:
            held.append("NOT from_rollup")
        if self.asked_step:
            held.append(f"(NOT by_hour OR {after_hours(self)})")
        if self.estimated:
            held.append(LOOKED_AT)
        return self.filtered_flows("*, weight" if self.estimated else "*", held)

    def filtered_flows(self, columns: str, further: Sequence[str]) -> str:
        """The same of flows that fulfil ``further`` conditions, as ``FROM …`` with ``columns``.

        An address is looked for on both sides by two reads, since ``src = x OR dst = x`` would use
        no index. A flow with it on both sides is in the second only: the first reads less, so it is
        cheaper to look at the other side there.
        """
        held = [*self.conditions(), *further]
        if self.where:
            held.append(f"(\n{self.where}\n)")
        conditions = "\n          AND ".join(held)
        if not self.address:
            return f"FROM flows\n        WHERE {conditions}"
        source, destination = self.address_matches("src"), self.address_matches("dst")
        return f"""FROM (
          SELECT {columns} FROM flows WHERE {conditions}
          AND {source} AND if(address_kind != 'any' AND {destination}, 0, 1)
          UNION ALL
          SELECT {columns} FROM flows PREWHERE address_kind != 'any' AND {destination}
          WHERE {conditions}
        )"""

    def keyed_flows(self) -> str:
        """``flow``, for WITH: each flow's time, ``amount``, ``bytes``, keys, ``name`` of the first.

        A host has a name only in flows where enrichment knew it, hence the greatest of a group.
        Of the flows and the rollups one is read: of the other the condition is constant and false.
        """
        flows = self.selected_flows()
        times = f" * {WEIGHT}" if self.estimated else ""
        amount = self.measure.column
        if self.measure.known and self.counts != "1":
            amount += times
        if self.dimension.known and self.measure.known:
            inner = flows
        else:
            amounts = (f"{m.amount}{'' if m.distinct else times} AS {m.name}" for m in MEASURES)
            names = (f"{told} AS {name}_name" for name, told in OTHER_NAMES.items())
            weight = ["weight"] if amount != self.measure.column else []
            columns = ", ".join(("*", *weight, *amounts, *names))
            inner = f"FROM (\n        SELECT {columns}\n        {flows}\n      )"
        state = f", {flow_state()} AS state" if self.asked_step else ""
        reads = [
            f"SELECT {TIME}, bytes, {amount} AS amount,\n"
            f"        {self.dimension.column} AS key_1, {self.dimension_2.column} AS key_2,\n"
            f"        toString({self.dimension.name}) AS name{state}\n      {inner}"
        ]
        if self.asked_step and self.measure.rollup_column:
            reads.append(hour_rows(self))
        if (
            self.rollup_if
            and self.measure.rollup_column
            and self.counts != "1"
            and all(dimension.rollup_column for dimension in (self.dimension, self.dimension_2))
        ):
            held = " AND ".join([*self.conditions("time"), "from_rollup"])
            reads.append(rollup_rows(self, held))
        return "  flow AS (\n      " + "\n      UNION ALL\n      ".join(reads) + "\n  )"

    @property
    def is_earlier(self) -> str:
        """Whether a flow of ``flow`` is of the earlier range."""
        return f"shift != 0 AND {TIME} < range_start" if self.compare else "0"

    @property
    def pins(self) -> str:
        """The pinned keys as an array."""
        if self.keys:
            return self.keys
        return f"extractAll({self.pinned}, '[^, ](?:[^,]*[^, ])?')" if self.pinned else ""
