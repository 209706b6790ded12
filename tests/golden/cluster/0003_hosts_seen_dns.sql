-- Who is there, and which names they asked for.

-- cluster: sharded by cityHash64(addr)
CREATE TABLE IF NOT EXISTS flow.hosts_seen_local ON CLUSTER 'flow'
(
    addr       IPv6 COMMENT 'Internal address: in a network that is internal, or a private one.',
    host       SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the host.',
    network    SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Named network of the host.',
    device     SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'A device that reported it.',
    first_seen SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'First flow that it sent.',
    last_seen  SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'Last flow that it sent.'
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/flow/hosts_seen_local', '{replica}')
ORDER BY addr
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800
COMMENT 'First and last time that an internal address sent traffic; group by addr with min and max.';

CREATE TABLE IF NOT EXISTS flow.hosts_seen ON CLUSTER 'flow' AS flow.hosts_seen_local
ENGINE = Distributed('flow', 'flow', 'hosts_seen_local', cityHash64(addr))
COMMENT 'First and last time that an internal address sent traffic; group by addr with min and max.';

-- Sources only: somebody who scans a network would make every address of it look alive.
CREATE MATERIALIZED VIEW IF NOT EXISTS flow.hosts_seen_from_flows ON CLUSTER 'flow' TO flow.hosts_seen_local AS
SELECT
    src_addr AS addr,
    any(src_host) AS host,
    any(src_network) AS network,
    any(f.device) AS device,
    min(time_received) AS first_seen,
    max(time_received) AS last_seen
FROM flow.flows_local AS f
WHERE src_internal
GROUP BY addr;

-- cluster: sharded by cityHash64(src_addr)
CREATE TABLE IF NOT EXISTS flow.dns_queries_local ON CLUSTER 'flow'
(
    time_received DateTime64(3, 'UTC') COMMENT 'When the exporter heard of the query.' CODEC(T64, ZSTD(1)),
    device        LowCardinality(String) COMMENT 'Name of the device that reported it.' CODEC(ZSTD(1)),
    source        LowCardinality(String) COMMENT 'How it was seen: dnstap, or the protocol of a flow.' CODEC(ZSTD(1)),
    src_addr      IPv6 COMMENT 'Who asked.' CODEC(ZSTD(1)),
    dst_addr      IPv6 COMMENT 'Which resolver was asked.' CODEC(ZSTD(1)),
    src_host      LowCardinality(String) COMMENT 'Name of who asked.' CODEC(ZSTD(1)),
    src_network   LowCardinality(String) COMMENT 'Named network of who asked.' CODEC(ZSTD(1)),
    dns_name      String COMMENT 'Name asked for.' CODEC(ZSTD(1)),
    dns_type      LowCardinality(String) COMMENT 'Record type asked for (A, AAAA, MX).' CODEC(ZSTD(1)),
    dns_rcode     LowCardinality(String) COMMENT 'Response code by name (NOERROR, NXDOMAIN).' CODEC(ZSTD(1)),
    dns_latency   Float32 COMMENT 'Seconds from query to response.' CODEC(ZSTD(1)),
    answers       Array(IPv6) COMMENT 'Addresses that the name resolved to then.' CODEC(ZSTD(1)),

    INDEX dns_name dns_name TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX answers answers TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/flow/dns_queries_local', '{replica}')
PARTITION BY toDate(time_received)
PRIMARY KEY (toStartOfHour(time_received), src_addr, dns_name)
ORDER BY (toStartOfHour(time_received), src_addr, dns_name, time_received)
TTL toDateTime(time_received) + INTERVAL 90 DAY DELETE
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'DNS queries, from resolvers (dnstap) and from flows that carry names.';

CREATE TABLE IF NOT EXISTS flow.dns_queries ON CLUSTER 'flow' AS flow.dns_queries_local
ENGINE = Distributed('flow', 'flow', 'dns_queries_local', cityHash64(src_addr))
COMMENT 'DNS queries, from resolvers (dnstap) and from flows that carry names.';

CREATE MATERIALIZED VIEW IF NOT EXISTS flow.dns_queries_from_flows ON CLUSTER 'flow' TO flow.dns_queries_local AS
SELECT
    time_received,
    device,
    toString(f.source) AS source,
    src_addr,
    dst_addr,
    src_host,
    src_network,
    dns_name,
    dns_rcode,
    dns_latency
FROM flow.flows_local AS f
WHERE dns_name != '';

-- cluster: sharded by cityHash64(dns_name)
CREATE TABLE IF NOT EXISTS flow.names_seen_local ON CLUSTER 'flow'
(
    time       DateTime('UTC') COMMENT 'Start of the hour.' CODEC(Delta, ZSTD(1)),
    dns_name   String COMMENT 'Name that was asked for.' CODEC(ZSTD(1)),
    addr       IPv6 COMMENT 'Address that it resolved to.' CODEC(ZSTD(1)),
    first_seen SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'First answer of the hour.' CODEC(ZSTD(1)),
    last_seen  SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'Last answer of the hour.' CODEC(ZSTD(1)),
    answers    SimpleAggregateFunction(sum, UInt64) COMMENT 'Answers of the hour.' CODEC(T64, ZSTD(1)),

    INDEX addr addr TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/flow/names_seen_local', '{replica}')
PARTITION BY toYYYYMM(time)
ORDER BY (dns_name, time, addr)
TTL time + INTERVAL 90 DAY DELETE
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'Which addresses a name had in which hour, by what resolvers answered; group by what is asked for.';

CREATE TABLE IF NOT EXISTS flow.names_seen ON CLUSTER 'flow' AS flow.names_seen_local
ENGINE = Distributed('flow', 'flow', 'names_seen_local', cityHash64(dns_name))
COMMENT 'Which addresses a name had in which hour, by what resolvers answered; group by what is asked for.';

CREATE MATERIALIZED VIEW IF NOT EXISTS flow.names_seen_from_dns_queries ON CLUSTER 'flow' TO flow.names_seen_local AS
SELECT
    toStartOfHour(time_received) AS time,
    dns_name,
    answer AS addr,
    min(time_received) AS first_seen,
    max(time_received) AS last_seen,
    count() AS answers
FROM flow.dns_queries_local AS q
ARRAY JOIN q.answers AS answer
GROUP BY time, dns_name, addr;
