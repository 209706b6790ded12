-- Alerts come home to lie beside the flows.

-- cluster: on every node
CREATE TABLE IF NOT EXISTS flow.alerts ON CLUSTER 'flow'
(
    fingerprint   String COMMENT 'Alertmanager''s fingerprint of the labels.',
    starts_at     DateTime64(3, 'UTC') COMMENT 'When the alert began to fire.',
    ends_at       Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was resolved; null while it fires.',
    updated_at    DateTime64(3, 'UTC') COMMENT 'When this state was learned; the last one wins.',
    status        Enum8('firing' = 1, 'resolved' = 2) COMMENT 'State of the alert.',
    alertname     LowCardinality(String) COMMENT 'Name of the alert.',
    severity      LowCardinality(String) COMMENT 'critical, warning or info.',
    policy        LowCardinality(String) COMMENT 'Policy that it watches, if any.',
    team          LowCardinality(String) COMMENT 'Team that it is routed to.',
    incident      LowCardinality(String) COMMENT 'Incident that it is grouped into.',
    labels        Map(String, String) COMMENT 'All labels.',
    annotations   Map(String, String) COMMENT 'All annotations.',
    generator_url String COMMENT 'Where the alert was evaluated.',
    value         Float64 COMMENT 'Value at its last evaluation, where known.',
    source        LowCardinality(String) COMMENT 'Who told of it: prometheus or webhook.'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/every_node/flow/alerts', '{shard}-{replica}', updated_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (fingerprint, starts_at)
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800
COMMENT 'One row per alert and start; read with FINAL.';

-- cluster: on every node
CREATE TABLE IF NOT EXISTS flow.incident_evidence ON CLUSTER 'flow'
(
    fingerprint String COMMENT 'Fingerprint of the alert.',
    starts_at   DateTime64(3, 'UTC') COMMENT 'When the alert began to fire.',
    captured_at DateTime64(3, 'UTC') COMMENT 'When this evidence was taken; the last one wins.',
    alertname   LowCardinality(String) COMMENT 'Name of the alert.',
    policy      LowCardinality(String) COMMENT 'Policy that it watches.',
    dimension   LowCardinality(String) COMMENT 'Flow column that was grouped by.',
    window      Enum8('before' = 1, 'during' = 2) COMMENT 'The time before the alert, or its own.',
    rank        UInt16 COMMENT '1 for the largest contributor.',
    value       String COMMENT 'Value of the dimension, as text.',
    bytes       UInt64 COMMENT 'Bytes in the window.',
    packets     UInt64 COMMENT 'Packets in the window.',
    flows       UInt64 COMMENT 'Flows in the window.'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/every_node/flow/incident_evidence', '{shard}-{replica}', captured_at)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (fingerprint, starts_at, dimension, window, rank)
SETTINGS replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800
COMMENT 'Top contributors when an alert fired, kept beyond the life of the flows; read with FINAL.';
