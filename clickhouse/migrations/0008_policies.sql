-- What policies look up: lists (mining pools, threat lists, groups of nodes) and speeds of interfaces.

-- Written by every collector that has the file. Rows go by the content of the whole list, so that
-- a query sees all of it or, of another version, nothing.
-- cluster: on every node
CREATE TABLE IF NOT EXISTS policy_lists
(
    version   UInt64 COMMENT 'Hash of the list''s content.',
    length    UInt8 COMMENT 'Length of the prefix, IPv4 as mapped into IPv6; or number of labels of the name.',
    addr      IPv6 COMMENT 'First address of the prefix.',
    name      String COMMENT 'Name, which stands for all names below it too.',
    stored_at DateTime('UTC') COMMENT 'When a collector stored it last.'
)
ENGINE = ReplacingMergeTree(stored_at)
ORDER BY (version, length, addr, name)
TTL stored_at + INTERVAL 7 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Entries of the lists of policies.yaml.';

-- As devices tell by SNMP or sFlow, or the configuration says; written by the collector.
-- cluster: on every node
CREATE TABLE IF NOT EXISTS interface_speeds
(
    device    LowCardinality(String) COMMENT 'Name of the device.',
    interface UInt32 COMMENT 'Index of the interface (ifIndex).',
    speed     UInt64 COMMENT 'Bits per second.',
    stored_at DateTime('UTC') COMMENT 'When that was told; the latest counts.'
)
ENGINE = ReplacingMergeTree(stored_at)
ORDER BY (device, interface)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Speeds of interfaces, of which policies tell the use in percent; read with FINAL.';
