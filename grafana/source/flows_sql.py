"""SQL over the ``flows`` table for panels: top keys by any dimension and measure, zero-filled.

How a variable's value gets into a query. Grafana's quoting formats (``sqlstring``,
``singlequote``) leave a backslash alone, which ClickHouse takes as an escape, so ``\\'`` would end
the string. Hence every value is percent-encoded by Grafana (only letters, digits, ``-_.~%``
remain) and decoded by ClickHouse: :func:`variable`. Names of columns are matched by
``COLUMNS('^name$')``, whose argument is a string too, so an identifier is never pasted. Values
picked from a list are compared with constants. All of it is constant for ClickHouse: it folds the
conditions away, reads only the columns that remain, and uses its indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: What every query filters and buckets time by; the policies use the same column.
TIME = "time_received"

#: Flow columns to group by, with the words shown for them.
DIMENSIONS = (
    ("Source address", "src_addr"),
    ("Destination address", "dst_addr"),
    ("Source host", "src_host"),
    ("Destination host", "dst_host"),
    ("Source port", "src_port"),
    ("Destination port", "dst_port"),
    ("Service", "service"),
    ("Source service", "src_service"),
    ("Destination service", "dst_service"),
    ("IP protocol", "proto"),
    ("Source AS", "src_as"),
    ("Destination AS", "dst_as"),
    ("Source network", "src_network"),
    ("Destination network", "dst_network"),
    ("Source country", "src_country"),
    ("Destination country", "dst_country"),
    ("Device", "device"),
    ("Device address", "device_addr"),
    ("Site", "site"),
    ("Role", "role"),
    ("Input interface", "in_if"),
    ("Output interface", "out_if"),
    ("Input interface name", "in_if_name"),
    ("Output interface name", "out_if_name"),
    ("Direction", "direction"),
    ("Next hop", "next_hop"),
    ("VRF", "vrf"),
    ("Source VLAN", "src_vlan"),
    ("Destination VLAN", "dst_vlan"),
    ("Source MAC", "src_mac"),
    ("Destination MAC", "dst_mac"),
    ("Source address after NAT", "nat_src_addr"),
    ("Destination address after NAT", "nat_dst_addr"),
    ("EtherType", "etype"),
    ("TCP flags", "tcp_flags"),
    ("Type of service", "tos"),
    ("ICMP type", "icmp_type"),
    ("Forwarding status", "forwarding_status"),
    ("Application", "app"),
    ("DNS name", "dns_name"),
    ("DNS response code", "dns_rcode"),
    ("TLS server name", "tls_sni"),
    ("HTTP host", "http_host"),
    ("Protocol of the record", "source"),
    ("Sampling rate", "sampling_rate"),
)

#: Stands for "no second dimension": a constant column of every subquery.
NO_DIMENSION = "none"

#: The column that tells more about a key, by dimension.
_NAMES = {
    "src_addr": "src_host",
    "dst_addr": "dst_host",
    "src_port": "src_service",
    "dst_port": "dst_service",
    "in_if": "in_if_name",
    "out_if": "out_if_name",
    "device": "role",
}


@dataclass(frozen=True)
class Measure:
    """What is summed or counted over a group of flows.

    ``total`` is an aggregate; ``per_second`` says whether a bucket shows it divided by its
    length. ``total_unit`` is Grafana's unit of the sum over the whole range.
    """

    name: str
    label: str
    total: str
    per_second: bool
    unit: str
    total_unit: str


MEASURES = (
    Measure("bits_per_second", "Bits/s", "sum(bytes) * 8", True, "bps", "decbits"),
    Measure("packets_per_second", "Packets/s", "sum(packets)", True, "pps", "short"),
    Measure("flows_per_second", "Flows/s", "count()", True, "cps", "short"),
    Measure("unique_src_addr", "Unique sources", "uniq(src_addr)", False, "short", "short"),
    Measure("unique_dst_addr", "Unique destinations", "uniq(dst_addr)", False, "short", "short"),
)

#: First and one past the last whole bucket of the range; a shorter range has the one it is in.
_FIRST = "toStartOfInterval($__fromTime, INTERVAL $__interval_s second)"
_PAST = (
    f"greatest(toStartOfInterval($__toTime, INTERVAL $__interval_s second),"
    f" {_FIRST} + $__interval_s)"
)
_BUCKETS = f"intDiv(dateDiff('second', {_FIRST}, {_PAST}), $__interval_s)"
_BUCKET = f"toStartOfInterval(toDateTime({TIME}), INTERVAL $__interval_s second)"

#: Ad-hoc filters reach every read of the table, in whichever subquery.
SETTINGS = "SETTINGS $__adHocFilters('flows')"


def variable(name: str) -> str:
    """A dashboard variable's value as an SQL string expression, whatever characters it has."""
    return f"decodeURLComponent('${{{name}:percentencode}}')"


def quote(text: str) -> str:
    """A constant of ours as an SQL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def choose(selector: str, cases: Sequence[tuple[str, str]], default: str, cast: str) -> str:
    """The expression of the case that the constant ``selector`` names.

    Each level is wrapped in ``cast``: ClickHouse folds an ``if`` on a constant only when it is
    not itself the branch of another one, and with it drops the columns of the other cases.
    """
    expression = f"{cast}({default})"
    for value, case in reversed(cases):
        expression = f"{cast}(if({selector} = {quote(value)}, {cast}({case}), {expression}))"
    return expression


def text(expression: str) -> str:
    """A value of any column type as people read it: IPv4 addresses without their mapping."""
    return f"replaceRegexpOne(toString({expression}), '^::ffff:([0-9.]+)$', '\\\\1')"


def protocol(key: str) -> str:
    """An IP protocol number of any type as its name, where it has one."""
    name = f"joinGet('protocol_names', 'name', toUInt8OrZero(toString({key})))"
    return f"if({name} = '', toString({key}), {name})"


def _key_name(name: str, key: str, dimension: str) -> str:
    """What is known about a key: ``name`` from the flows, else from the tables of names."""
    autonomous_system = f"joinGet('as_names', 'name', toUInt32OrZero(toString({key})))"
    port_number = f"toUInt16OrZero(toString({key}))"
    tcp_port = f"joinGet('port_names', 'name', toUInt8(6), {port_number})"
    port = f"if({name} != '', {name}, {tcp_port})"
    return choose(
        variable(dimension),
        [
            ("src_as", autonomous_system),
            ("dst_as", autonomous_system),
            ("src_port", port),
            ("dst_port", port),
        ],
        name,
        "toString",
    )


def _column(name: str) -> str:
    """The flow column that a variable names."""
    return f"identity(COLUMNS('^${{{name}:percentencode}}$'))"


def _total() -> str:
    cases = [(m.name, m.total) for m in MEASURES]
    return choose(variable("measure"), cases[1:], cases[0][1], "toFloat64")


def _seconds() -> str:
    """What the total of a bucket is divided by."""
    counted = ", ".join(quote(m.name) for m in MEASURES if not m.per_second)
    return f"if({variable('measure')} IN ({counted}), 1, $__interval_s)"


def _display(key: str, dimension: str) -> str:
    mac = f"MACNumToString(toUInt64OrZero(toString({key})))"
    shown = choose(
        variable(dimension),
        [("proto", protocol(key)), ("src_mac", mac), ("dst_mac", mac)],
        text(key),
        "toString",
    )
    return f"if(toString({key}) = '', '(empty)', {shown})"


def _url_filter(key: str) -> str:
    """The key as the value of an ad-hoc filter in a URL takes it."""
    value = text(key)
    for character, escape in (("|", "__gfp__"), (",", "__gfc__"), ("#", "__gfh__")):
        value = f"replaceAll({value}, '{character}', '{escape}')"
    return value


def unit_query(*, of_total: bool = False) -> str:
    """One row, one column ``unit``: Grafana's unit of the measure in a bucket or over the range."""
    units = [(m.name, quote(m.total_unit if of_total else m.unit)) for m in MEASURES]
    return f"SELECT {choose(variable('measure'), units[1:], units[0][1], 'toString')} AS unit"


def devices_query() -> str:
    """Names of the devices that reported in the range."""
    return f"SELECT DISTINCT toString(device) FROM flows WHERE $__timeFilter({TIME}) ORDER BY 1"


def ad_hoc_values_query() -> str:
    """Values of the column that the plugin puts for ``$__adhoc_column``: recent ones, not all.

    The plugin parses it as PostgreSQL's dialect, so no ``INTERVAL 6 HOUR``.
    """
    recent = f"{TIME} > subtractHours(now(), 6)"
    return f"SELECT DISTINCT $__adhoc_column FROM flow.flows WHERE {recent} LIMIT 1000"


def address_constants() -> str:
    """What the ``address`` variable means, as a list for WITH."""
    return f"""\
  trim({variable("address")}) AS address,
  toIPv6OrNull(splitByChar('/', address)[1]) AS ip,
  multiIf(address = '', 'any', isNull(ip), 'name', position(address, '/') > 0, 'prefix',
    'address') AS address_kind,
  toUInt8(least(128, toUInt16OrZero(splitByChar('/', address)[2])
    + if(position(address, '.') > 0, 96, 0))) AS prefix_length,
  assumeNotNull(IPv6CIDRToRange(ifNull(ip, toIPv6('::')), prefix_length)) AS prefix"""


def _address_matches(side: str) -> str:
    return _matches(f"{side}_addr", f"{side}_host", f"{side}_network")


def _matches(address: str, host: str, network: str) -> str:
    """Whether these columns are what the ``address`` variable means."""
    return (
        f"(address_kind = 'any'"
        f" OR address_kind = 'address' AND {address} = assumeNotNull(ip)"
        f" OR address_kind = 'prefix' AND {address} BETWEEN prefix.1 AND prefix.2"
        f" OR address_kind = 'name' AND ({host} = address OR {network} = address"
        f" OR startsWith({host}, concat(address, '.'))))"
    )


def _device_matches() -> str:
    """Devices arrive as ``{a,b}``, and as ``*`` for all of them."""
    devices = f"splitByChar(',', trim(BOTH '{{}}' FROM {variable('device')}))"
    return f"(has({devices}, '*') OR has({devices}, toString(device)))"


def _in_range() -> str:
    return f"{TIME} >= {_FIRST} AND {TIME} < {_PAST}"


def selected_flows() -> str:
    """The flows of the range that the variables ``device`` and ``address`` select.

    Needs :func:`address_constants`. An address is looked for on both sides by two reads, since
    ``src = x OR dst = x`` would use no index; a flow with it on both sides is in the first only.
    """
    where = f"{_in_range()}\n          AND {_device_matches()}"
    return f"""\
        SELECT *, '' AS {NO_DIMENSION} FROM flows
        WHERE {where}
          AND {_address_matches("src")}
        UNION ALL
        SELECT *, '' AS {NO_DIMENSION} FROM flows
        WHERE {where}
          AND address_kind != 'any' AND {_address_matches("dst")}
          AND NOT {_address_matches("src")}"""


def _keyed_flows() -> str:
    """The same with the dimensions' values as ``key_1`` and ``key_2``, and ``name`` of the first.

    A host has a name in the flows only where enrichment knew it, hence the greatest of a group.
    """
    name = choose(variable("dimension"), list(_NAMES.items()), "''", "toString")
    return f"""\
      SELECT {TIME}, bytes, packets, src_addr, dst_addr,
        {_column("dimension")} AS key_1, {_column("dimension_2")} AS key_2,
        {name} AS name
      FROM (
{selected_flows()}
      )"""


def _second_display(key: str) -> str:
    none = f"{variable('dimension_2')} = {quote(NO_DIMENSION)}"
    return f"if({none}, '', {_display(key, 'dimension_2')})"


def _top_keys() -> str:
    return f"""\
      SELECT key_1, key_2 FROM (
{_keyed_flows()}
      )
      GROUP BY key_1, key_2
      ORDER BY {_total()} DESC, key_1, key_2
      LIMIT toUInt16OrZero({variable("top")})"""


def series_query() -> str:
    """``time``, ``series``, ``Value``: the top keys and ``Other``, every bucket of each."""
    return f"""\
WITH
{address_constants()}
SELECT time, series, Value FROM (
  SELECT time, Value,
    max(name) OVER (PARTITION BY is_top, top_1, top_2) AS key_name,
    if(is_top, arrayStringConcat(arrayFilter(part -> part != '', [
      {_display("top_1", "dimension")},
      {_second_display("top_2")},
      {_key_name("key_name", "top_1", "dimension")}]), ' '), 'Other') AS series
  FROM (
    SELECT {_BUCKET} AS time,
      (key_1, key_2) IN (
{_top_keys()}
      ) AS is_top,
      if(is_top, key_1, defaultValueOfArgumentType(key_1)) AS top_1,
      if(is_top, key_2, defaultValueOfArgumentType(key_2)) AS top_2,
      max(name) AS name,
      {_total()} / {_seconds()} AS Value
    FROM (
{_keyed_flows()}
    )
    GROUP BY time, is_top, top_1, top_2
    ORDER BY is_top, top_1, top_2, time
      WITH FILL FROM {_FIRST}
        TO {_PAST} STEP $__interval_s
  )
)
ORDER BY time, series
{SETTINGS}"""


def table_query() -> str:
    """One row per top key: average, 95th percentile, maximum, last bucket and total.

    Buckets without flows count as zero. ``filter_1`` and ``filter_2`` are for links.
    """
    values = (
        f"arrayConcat(found, arrayWithConstant({_BUCKETS}"
        f" - least({_BUCKETS}, length(found)), toFloat64(0)))"
    )
    return f"""\
WITH
{address_constants()}
SELECT
  {_display("key_1", "dimension")} AS "Key",
  {_second_display("key_2")} AS "Second key",
  {_key_name("key_name", "key_1", "dimension")} AS "Name",
  arrayAvg(buckets) AS "Average",
  arrayReduce('quantileExactInclusive(0.95)', buckets) AS "95th percentile",
  arrayMax(buckets) AS "Maximum",
  last_value AS "Last",
  total AS "Total",
  {_url_filter("key_1")} AS filter_1,
  {_url_filter("key_2")} AS filter_2
FROM (
  SELECT key_1, key_2, max(name) AS key_name,
    groupArrayIf(value / {_seconds()}, NOT whole) AS found,
    {values} AS buckets,
    sumIf(value, NOT whole AND bucket = {_PAST} - $__interval_s) / {_seconds()} AS last_value,
    sumIf(value, whole) AS total
  FROM (
    SELECT key_1, key_2, bucket, grouping(bucket) = 1 AS whole, max(name) AS name,
      {_total()} AS value
    FROM (
      SELECT *, {_BUCKET} AS bucket FROM (
{_keyed_flows()}
      )
    )
    WHERE (key_1, key_2) IN (
{_top_keys()}
    )
    GROUP BY GROUPING SETS ((key_1, key_2), (key_1, key_2, bucket))
  )
  GROUP BY key_1, key_2
)
ORDER BY "Total" DESC, "Key", "Second key"
{SETTINGS}"""


def summary_query() -> str:
    """One row about all flows that match, whatever the dimension."""
    return f"""\
WITH
{address_constants()}
SELECT
  toFloat64(sum(bytes)) * 8 / dateDiff('second', {_FIRST}, {_PAST}) AS "Bits/s",
  toFloat64(sum(packets)) / dateDiff('second', {_FIRST}, {_PAST}) AS "Packets/s",
  toFloat64(count()) AS "Flows",
  toFloat64(uniq(src_addr)) AS "Sources",
  toFloat64(uniq(dst_addr)) AS "Destinations",
  toFloat64(sum(bytes)) / greatest(toFloat64(sum(packets)), 1) AS "Bytes per packet"
FROM (
{selected_flows()}
)
{SETTINGS}"""


def raw_flows_query(limit: int) -> str:
    """The latest flows that match, one row each.

    Their oldest time is found first, so that all columns are read of few rows only.
    """
    return f"""\
WITH
{address_constants()}
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
{selected_flows()}
)
WHERE {TIME} >= (
  SELECT min({TIME}) FROM (
    SELECT {TIME} FROM (
{selected_flows()}
    )
    ORDER BY {TIME} DESC
    LIMIT {limit}
  )
)
ORDER BY {TIME} DESC
LIMIT {limit}
{SETTINGS}"""


def top_query(
    key: str, second: str = "", *, name: str = "''", where: str = "1", limit: int = 10
) -> str:
    """The largest values of one column, or of two, in the range, whatever the variables say."""
    seconds = "dateDiff('second', $__fromTime, $__toTime)"
    keys = ["key_1", "key_2"] if second else ["key_1"]
    columns = [f"{key} AS key_1"] + ([f"{second} AS key_2"] if second else [])
    shown = [f'{text("key_1")} AS "Key"'] + ([f'{text("key_2")} AS "With"'] if second else [])
    filters = [f"{_url_filter(k)} AS filter_{i}" for i, k in enumerate(keys, start=1)]
    key_name = {
        "src_as": "joinGet('as_names', 'name', toUInt32OrZero(toString(key_1)))",
        "dst_port": "if(key_name != '', key_name,"
        " joinGet('port_names', 'name', toUInt8(6), toUInt16OrZero(toString(key_1))))",
    }.get(key, "key_name")
    return f"""\
SELECT {", ".join(shown)}, {key_name} AS "Name",
  octets * 8 / {seconds} AS "Bits/s", frames / {seconds} AS "Packets/s",
  {", ".join(filters)}
FROM (
  SELECT {", ".join(columns)}, toString(max({name})) AS key_name,
    toFloat64(sum(bytes)) AS octets, toFloat64(sum(packets)) AS frames
  FROM flows
  WHERE $__timeFilter({TIME}) AND {where}
  GROUP BY {", ".join(keys)}
  ORDER BY octets DESC, {", ".join(keys)}
  LIMIT {limit}
)
ORDER BY "Bits/s" DESC, filter_1"""


def _of_host(sent: str, received: str) -> str:
    """What the host's flows give, as two reads: those it sent and those it received."""
    return f"""\
    SELECT {sent} FROM flows
    WHERE {_in_range()} AND {_address_matches("src")}
    UNION ALL
    SELECT {received} FROM flows
    WHERE {_in_range()} AND {_address_matches("dst")}"""


def host_series_query() -> str:
    """``time``, ``series`` (Sent, Received), ``Value`` in bits per second, every bucket."""
    reads = _of_host(
        f"'Sent' AS series, {_BUCKET} AS time, bytes",
        f"'Received' AS series, {_BUCKET} AS time, bytes",
    )
    return f"""\
WITH
{address_constants()}
SELECT time, series, Value FROM (
  SELECT series, time, toFloat64(sum(bytes)) * 8 / $__interval_s AS Value
  FROM (
{reads}
  )
  GROUP BY series, time
  ORDER BY series, time
    WITH FILL FROM {_FIRST}
      TO {_PAST} STEP $__interval_s
)
ORDER BY time, series"""


def host_summary_query() -> str:
    """One row about the host of the ``address`` variable."""
    seconds = f"dateDiff('second', {_FIRST}, {_PAST})"
    reads = _of_host(
        f"{TIME}, bytes AS sent, 0 AS received, dst_addr AS peer",
        f"{TIME}, 0 AS sent, bytes AS received, src_addr AS peer",
    )
    return f"""\
WITH
{address_constants()}
SELECT
  toFloat64(sum(sent)) * 8 / {seconds} AS "Sent bits/s",
  toFloat64(sum(received)) * 8 / {seconds} AS "Received bits/s",
  toFloat64(count()) AS "Flows",
  toFloat64(uniq(peer)) AS "Peers",
  toFloat64(toUnixTimestamp64Milli(min({TIME}))) AS "First seen",
  toFloat64(toUnixTimestamp64Milli(max({TIME}))) AS "Last seen"
FROM (
{reads}
)"""


def host_breakdown_query(sent: Sequence[str], received: Sequence[str], limit: int = 50) -> str:
    """The host's traffic by a pair of columns: (key, name) of flows sent and of those received."""
    seconds = f"dateDiff('second', {_FIRST}, {_PAST})"
    reads = _of_host(
        f"{sent[0]} AS key, toString({sent[1]}) AS name, bytes AS sent, 0 AS received",
        f"{received[0]} AS key, toString({received[1]}) AS name, 0 AS sent, bytes AS received",
    )
    return f"""\
WITH
{address_constants()}
SELECT {text("key")} AS "Key", name AS "Name",
  toFloat64(sum(sent)) * 8 / {seconds} AS "Sent",
  toFloat64(sum(received)) * 8 / {seconds} AS "Received",
  toFloat64(count()) AS "Flows"
FROM (
{reads}
)
GROUP BY key, name
ORDER BY sum(sent) + sum(received) DESC, key, name
LIMIT {limit}"""


def host_names_query(limit: int = 200) -> str:
    """DNS names that the host asked for, most frequent first; from resolvers and from flows."""
    return f"""\
WITH
{address_constants()}
SELECT dns_name AS "Name asked", toFloat64(count()) AS "Questions",
  toString(topK(1)(dns_rcode)[1]) AS "Usual answer",
  min({TIME}) AS "First asked", max({TIME}) AS "Last asked"
FROM dns_queries
WHERE {_in_range()} AND {_matches("src_addr", "src_host", "src_network")}
GROUP BY dns_name
ORDER BY count() DESC, dns_name
LIMIT {limit}"""


def host_seen_query(limit: int = 100) -> str:
    """Internal addresses of the ``address`` variable with their first and last flow ever."""
    return f"""\
WITH
{address_constants()}
SELECT {text("seen_addr")} AS "Address", toString(seen_host) AS "Name",
  toString(seen_network) AS "Network", toString(seen_device) AS "Device",
  seen_first AS "First seen", seen_last AS "Last seen"
FROM (
  SELECT addr AS seen_addr, anyLast(host) AS seen_host, anyLast(network) AS seen_network,
    anyLast(device) AS seen_device, min(first_seen) AS seen_first, max(last_seen) AS seen_last
  FROM hosts_seen
  WHERE {_matches("addr", "host", "network")}
  GROUP BY addr
)
ORDER BY seen_first DESC
LIMIT {limit}"""


def alert_history_query(limit: int = 500) -> str:
    """Alerts that fired within the range, latest first, one row per start."""
    return f"""\
SELECT starts_at AS "Since", ends_at AS "Until",
  dateDiff('second', starts_at, ifNull(ends_at, least(now(), $__toTime))) AS "Duration",
  toString(severity) AS "Severity", toString(alertname) AS "Alert", toString(policy) AS "Policy",
  toString(incident) AS "Incident", annotations['summary'] AS "Summary",
  annotations['description'] AS "Description", value AS "Value", toString(status) AS "Status",
  if(match(annotations['dashboard_url'], '^(https?:/)?/'), annotations['dashboard_url'], '')
    AS "Dashboard"
FROM alerts FINAL
WHERE starts_at <= $__toTime AND ifNull(ends_at, now()) >= $__fromTime
ORDER BY starts_at DESC, fingerprint
LIMIT {limit}"""


def alert_count_query() -> str:
    """``time``, ``series`` (severity), ``Value``: alerts that began, per bucket."""
    bucket = "toStartOfInterval(toDateTime(starts_at), INTERVAL $__interval_s second)"
    return f"""\
SELECT time, series, Value FROM (
  SELECT {bucket} AS time, CAST(severity, 'String') AS series, toFloat64(count()) AS Value
  FROM alerts FINAL
  WHERE starts_at >= {_FIRST} AND starts_at < {_PAST}
  GROUP BY series, time
  ORDER BY series, time
    WITH FILL FROM {_FIRST}
      TO {_PAST} STEP $__interval_s
)
ORDER BY time, series"""
