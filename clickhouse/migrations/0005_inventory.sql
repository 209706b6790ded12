-- Devices and interfaces as the flows show them. Fed from flows_1m, whose blocks are small.

-- cluster: on every node
CREATE TABLE IF NOT EXISTS devices
(
    device      LowCardinality(String) COMMENT 'Name of the device.',
    device_addr SimpleAggregateFunction(anyLast, IPv6) COMMENT 'Address of the device.',
    site        SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Site of the device.',
    role        SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Role of the device.',
    owner       SimpleAggregateFunction(anyLast, Nullable(String)) COMMENT 'Owner of the device, as configured.',
    labels      SimpleAggregateFunction(anyLast, Nullable(String)) COMMENT 'Labels of the device, as a JSON object.',
    first_seen  SimpleAggregateFunction(min, DateTime('UTC')) COMMENT 'First minute with traffic.',
    last_seen   SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'Last minute with traffic.'
)
ENGINE = AggregatingMergeTree
ORDER BY device
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Devices that reported flows; read with FINAL.';

CREATE MATERIALIZED VIEW IF NOT EXISTS devices_from_flows_1m TO devices AS
SELECT
    m.device AS device,
    any(m.device_addr) AS device_addr,
    any(m.site) AS site,
    any(m.role) AS role,
    min(m.time) AS first_seen,
    max(m.time) AS last_seen
FROM flows_1m AS m
GROUP BY device;

-- cluster: on every node
CREATE TABLE IF NOT EXISTS interfaces
(
    device     LowCardinality(String) COMMENT 'Name of the device.',
    interface  UInt32 COMMENT 'Index of the interface (ifIndex).',
    name       SimpleAggregateFunction(anyLast, LowCardinality(String)) COMMENT 'Name of the interface.',
    alias      SimpleAggregateFunction(anyLast, Nullable(String)) COMMENT 'Description on the device (ifAlias), by SNMP.',
    provider   SimpleAggregateFunction(anyLast, Nullable(String)) COMMENT 'Who is behind it, as configured.',
    first_seen SimpleAggregateFunction(min, DateTime('UTC')) COMMENT 'First minute with traffic.',
    last_seen  SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'Last minute with traffic.'
)
ENGINE = AggregatingMergeTree
ORDER BY (device, interface)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Interfaces that carried traffic; read with FINAL.';

CREATE MATERIALIZED VIEW IF NOT EXISTS interfaces_from_flows_1m TO interfaces AS
SELECT
    m.device AS device,
    used.1 AS interface,
    any(used.2) AS name,
    min(m.time) AS first_seen,
    max(m.time) AS last_seen
FROM flows_1m AS m
ARRAY JOIN [(m.in_if, toString(m.in_if_name)), (m.out_if, toString(m.out_if_name))] AS used
GROUP BY device, interface;

-- The collector adds what it knows beside the flows: owner, labels, alias, provider above, which the
-- views leave NULL and so unchanged, and the hosts below.
-- cluster: on every node
CREATE TABLE IF NOT EXISTS hosts
(
    addr    IPv6 COMMENT 'Address of the host.',
    name    String COMMENT 'Name of the host.',
    role    LowCardinality(String) COMMENT 'What it is for.',
    owner   LowCardinality(String) COMMENT 'Who answers for it.',
    updated DateTime('UTC') COMMENT 'When the collector last told something new.'
)
ENGINE = ReplacingMergeTree(updated)
ORDER BY addr
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Hosts of which a role or an owner is known; read with FINAL.';
