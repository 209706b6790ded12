-- Traffic by interface, protocol and port, per minute and per hour; by host and by network per hour.
-- Sums stay exact: each flow's bytes and packets are divided among the minutes that it covered.
-- A merge holds nearly all distinct counts of its parts in memory, ten megabytes and more of each
-- part of a large insert: hence twelve parts at once.

CREATE TABLE IF NOT EXISTS flows_1m
(
    time            DateTime('UTC') COMMENT 'Start of the minute.' CODEC(Delta, ZSTD(1)),
    device          LowCardinality(String) COMMENT 'Name of the device.' CODEC(ZSTD(1)),
    in_if           UInt32 COMMENT 'Index of the input interface (ifIndex).' CODEC(ZSTD(1)),
    out_if          UInt32 COMMENT 'Index of the output interface (ifIndex).' CODEC(ZSTD(1)),
    proto           UInt8 COMMENT 'IP protocol number.' CODEC(ZSTD(1)),
    port            UInt16 COMMENT 'The lower one of both ports: nearly always the service''s.' CODEC(ZSTD(1)),
    service         LowCardinality(String) COMMENT 'Name of the service that the flows belong to.' CODEC(ZSTD(1)),
    device_addr     SimpleAggregateFunction(anyLast, IPv6) COMMENT 'Address of the device.' CODEC(ZSTD(1)),
    site            SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Site of the device.' CODEC(ZSTD(1)),
    role            SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Role of the device.' CODEC(ZSTD(1)),
    in_if_name      SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the input interface.' CODEC(ZSTD(1)),
    out_if_name     SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the output interface.' CODEC(ZSTD(1)),
    bytes           SimpleAggregateFunction(sum, UInt64) COMMENT 'Bytes within this minute.' CODEC(T64, ZSTD(1)),
    packets         SimpleAggregateFunction(sum, UInt64) COMMENT 'Packets within this minute.' CODEC(T64, ZSTD(1)),
    flows           SimpleAggregateFunction(sum, UInt64) COMMENT 'Flows that ended within this minute.' CODEC(T64, ZSTD(1)),
    unique_src_addr AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct source addresses; read with uniqCombinedMerge(12).' CODEC(ZSTD(1)),
    unique_dst_addr AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct destination addresses; read with uniqCombinedMerge(12).' CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(time)
ORDER BY (time, device, in_if, out_if, proto, port, service)
TTL time + INTERVAL 90 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1,
    max_parts_to_merge_at_once = 12
COMMENT 'Traffic per minute by interface, protocol and port.';

CREATE TABLE IF NOT EXISTS flows_1h
(
    time            DateTime('UTC') COMMENT 'Start of the hour.' CODEC(Delta, ZSTD(1)),
    device          LowCardinality(String) COMMENT 'Name of the device.' CODEC(ZSTD(1)),
    in_if           UInt32 COMMENT 'Index of the input interface (ifIndex).' CODEC(ZSTD(1)),
    out_if          UInt32 COMMENT 'Index of the output interface (ifIndex).' CODEC(ZSTD(1)),
    proto           UInt8 COMMENT 'IP protocol number.' CODEC(ZSTD(1)),
    port            UInt16 COMMENT 'The lower one of both ports: nearly always the service''s.' CODEC(ZSTD(1)),
    service         LowCardinality(String) COMMENT 'Name of the service that the flows belong to.' CODEC(ZSTD(1)),
    device_addr     SimpleAggregateFunction(anyLast, IPv6) COMMENT 'Address of the device.' CODEC(ZSTD(1)),
    site            SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Site of the device.' CODEC(ZSTD(1)),
    role            SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Role of the device.' CODEC(ZSTD(1)),
    in_if_name      SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the input interface.' CODEC(ZSTD(1)),
    out_if_name     SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the output interface.' CODEC(ZSTD(1)),
    bytes           SimpleAggregateFunction(sum, UInt64) COMMENT 'Bytes within this hour.' CODEC(T64, ZSTD(1)),
    packets         SimpleAggregateFunction(sum, UInt64) COMMENT 'Packets within this hour.' CODEC(T64, ZSTD(1)),
    flows           SimpleAggregateFunction(sum, UInt64) COMMENT 'Flows that ended within this hour.' CODEC(T64, ZSTD(1)),
    unique_src_addr AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct source addresses; read with uniqCombinedMerge(12).' CODEC(ZSTD(1)),
    unique_dst_addr AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct destination addresses; read with uniqCombinedMerge(12).' CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, device, in_if, out_if, proto, port, service)
TTL time + INTERVAL 730 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1,
    max_parts_to_merge_at_once = 12
COMMENT 'Traffic per hour by interface, protocol and port.';

CREATE TABLE IF NOT EXISTS hosts_1h
(
    time             DateTime('UTC') COMMENT 'Start of the hour of reception.' CODEC(Delta, ZSTD(1)),
    addr             IPv6 COMMENT 'Address of the host.' CODEC(ZSTD(1)),
    host             SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the host.' CODEC(ZSTD(1)),
    network          SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Named network of the host.' CODEC(ZSTD(1)),
    bytes_sent       SimpleAggregateFunction(sum, UInt64) COMMENT 'Bytes with this source address.' CODEC(T64, ZSTD(1)),
    bytes_received   SimpleAggregateFunction(sum, UInt64) COMMENT 'Bytes with this destination address.' CODEC(T64, ZSTD(1)),
    packets_sent     SimpleAggregateFunction(sum, UInt64) COMMENT 'Packets with this source address.' CODEC(T64, ZSTD(1)),
    packets_received SimpleAggregateFunction(sum, UInt64) COMMENT 'Packets with this destination address.' CODEC(T64, ZSTD(1)),
    flows_sent       SimpleAggregateFunction(sum, UInt64) COMMENT 'Flows with this source address.' CODEC(T64, ZSTD(1)),
    flows_received   SimpleAggregateFunction(sum, UInt64) COMMENT 'Flows with this destination address.' CODEC(T64, ZSTD(1)),
    unique_dst_addr  AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct addresses it sent to; read with uniqCombinedMerge(12).' CODEC(ZSTD(1)),
    unique_src_addr  AggregateFunction(uniqCombined(12), UInt64) COMMENT 'Distinct addresses it heard from; read with uniqCombinedMerge(12).' CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, addr)
TTL time + INTERVAL 365 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1,
    max_parts_to_merge_at_once = 12
COMMENT 'Traffic per hour by host, both directions: top talkers beyond the life of single flows.';

CREATE TABLE IF NOT EXISTS networks_1h
(
    time        DateTime('UTC') COMMENT 'Start of the hour of reception.' CODEC(Delta, ZSTD(1)),
    src_network LowCardinality(String) COMMENT 'Named network of the source.' CODEC(ZSTD(1)),
    dst_network LowCardinality(String) COMMENT 'Named network of the destination.' CODEC(ZSTD(1)),
    src_country LowCardinality(String) COMMENT 'Country of the source, ISO 3166 alpha-2.' CODEC(ZSTD(1)),
    dst_country LowCardinality(String) COMMENT 'Country of the destination, ISO 3166 alpha-2.' CODEC(ZSTD(1)),
    src_as      UInt32 COMMENT 'Source AS number.' CODEC(ZSTD(1)),
    dst_as      UInt32 COMMENT 'Destination AS number.' CODEC(ZSTD(1)),
    bytes       SimpleAggregateFunction(sum, UInt64) COMMENT 'Bytes.' CODEC(T64, ZSTD(1)),
    packets     SimpleAggregateFunction(sum, UInt64) COMMENT 'Packets.' CODEC(T64, ZSTD(1)),
    flows       SimpleAggregateFunction(sum, UInt64) COMMENT 'Flows.' CODEC(T64, ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, src_network, dst_network, src_country, dst_country, src_as, dst_as)
TTL time + INTERVAL 730 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'Traffic per hour by network, country and AS of both ends.';

-- A flow [first, last) gives each minute what it had carried by that minute's end, less what it had
-- carried by the minute's start: the differences add up to the whole, to the byte.
-- A device's clock is believed from six hours before to one minute after the reception; beyond
-- that, and for the part of a flow longer than an hour, the reception tells the time.
-- A block of flows that last longer than four minutes on average is divided among the last four
-- minutes only: whoever sends nothing but hour-long flows must not cost sixty rows for each.
-- Grouping by a hash of the texts keeps the key within 32 bytes; addresses are counted by theirs,
-- here and by host, as numbers are cheaper to count than texts of 16 bytes.
CREATE MATERIALIZED VIEW IF NOT EXISTS flows_1m_from_flows TO flows_1m AS
WITH
    minute * 60000 AS minute_start,
    minute_start + 60000 AS minute_end,
    greatest(duration, 1) AS divisor,
    minute_end >= last AS is_last
SELECT
    toDateTime(minute * 60, 'UTC') AS time,
    any(f.device) AS device,
    in_if,
    out_if,
    proto,
    port,
    any(f.service) AS service,
    any(f.device_addr) AS device_addr,
    any(f.site) AS site,
    any(f.role) AS role,
    any(f.in_if_name) AS in_if_name,
    any(f.out_if_name) AS out_if_name,
    sum(toUInt64(
        if(is_last, f.bytes, toUInt64(f.bytes * ((minute_end - first) / divisor)))
        - if(minute_start <= first, 0, toUInt64(f.bytes * ((minute_start - first) / divisor)))
    )) AS bytes,
    sum(toUInt64(
        if(is_last, f.packets, toUInt64(f.packets * ((minute_end - first) / divisor)))
        - if(minute_start <= first, 0, toUInt64(f.packets * ((minute_start - first) / divisor)))
    )) AS packets,
    countIf(is_last) AS flows,
    uniqCombinedState(12)(cityHash64(src_addr)) AS unique_src_addr,
    uniqCombinedState(12)(cityHash64(dst_addr)) AS unique_dst_addr
FROM
(
    WITH
        toUnixTimestamp64Milli(time_received) AS received,
        toUnixTimestamp64Milli(time_flow_end) AS told_last,
        least(greatest(told_last - toUnixTimestamp64Milli(time_flow_start), 0), 3600000) AS told,
        sum(told) OVER () / greatest(count() OVER (), 1000) > 240000 AS too_long
    SELECT
        if(told_last BETWEEN received - 21600000 AND received + 60000, told_last, received) AS last,
        if(too_long, least(told, 240000), told) AS duration,
        last - duration AS first,
        least(src_port, dst_port) AS port,
        device, device_addr, site, role, in_if, out_if, in_if_name, out_if_name, proto, service,
        src_addr, dst_addr, bytes, packets
    FROM flows
) AS f
ARRAY JOIN range(toUInt32(intDiv(first, 60000)), toUInt32(intDiv(greatest(last - 1, first), 60000) + 1)) AS minute
GROUP BY minute, cityHash64(f.device, f.service), in_if, out_if, proto, port;

-- Rows of one hour meet when parts are merged: few would within one insert, and grouping costs as
-- much as all of flows_1m.
CREATE MATERIALIZED VIEW IF NOT EXISTS flows_1h_from_flows_1m TO flows_1h AS
SELECT * REPLACE (toStartOfHour(time) AS time)
FROM flows_1m;

CREATE MATERIALIZED VIEW IF NOT EXISTS hosts_1h_from_sources TO hosts_1h AS
SELECT
    toStartOfHour(toDateTime(time_received, 'UTC')) AS time,
    src_addr AS addr,
    any(src_host) AS host,
    any(src_network) AS network,
    sum(bytes) AS bytes_sent,
    sum(packets) AS packets_sent,
    count() AS flows_sent,
    uniqCombinedState(12)(cityHash64(dst_addr)) AS unique_dst_addr
FROM flows
GROUP BY time, addr;

CREATE MATERIALIZED VIEW IF NOT EXISTS hosts_1h_from_destinations TO hosts_1h AS
SELECT
    toStartOfHour(toDateTime(time_received, 'UTC')) AS time,
    dst_addr AS addr,
    any(dst_host) AS host,
    any(dst_network) AS network,
    sum(bytes) AS bytes_received,
    sum(packets) AS packets_received,
    count() AS flows_received,
    uniqCombinedState(12)(cityHash64(src_addr)) AS unique_src_addr
FROM flows
GROUP BY time, addr;

CREATE MATERIALIZED VIEW IF NOT EXISTS networks_1h_from_flows TO networks_1h AS
SELECT
    toStartOfHour(toDateTime(time_received, 'UTC')) AS time,
    src_network,
    dst_network,
    src_country,
    dst_country,
    src_as,
    dst_as,
    sum(f.bytes) AS bytes,
    sum(f.packets) AS packets,
    count() AS flows
FROM flows AS f
GROUP BY time, src_network, dst_network, src_country, dst_country, src_as, dst_as;
