-- One row per flow as reported. The columns are those of exporter/schema.py, in its order.
--
-- Partition and order go by the time of reception, never by a device's own clock: a clock that is
-- wrong cannot scatter rows over old partitions. Within a slot, flows of one pair of hosts lie
-- together, which is what makes them small and "traffic of this host" quick.
-- The time itself is in the order but not in the primary key: with it there a condition on the time
-- would be held against it, which is spread over all pairs, and no longer against the five minutes.
-- The deduplication window lets a retried insert (same insert_deduplication_token) count once.
-- cluster: sharded by cityHash64(src_addr, dst_addr)
CREATE TABLE IF NOT EXISTS flows
(
    time_received      DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)) COMMENT 'When the exporter received the datagram.',
    time_flow_start    DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)) COMMENT 'First packet of the flow.',
    time_flow_end      DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)) COMMENT 'Last packet of the flow.',
    time_source        Enum8('record' = 0, 'received' = 1) CODEC(ZSTD(1)) COMMENT 'Whether the flow times are the device''s or ours.',
    device_addr        IPv6 CODEC(ZSTD(1)) COMMENT 'Address the device sent from (or reports as its own).',
    device             LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the device; its address as text when not configured.',
    observation_domain UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Observation domain, source id, engine or sub-agent.',
    source             Enum8('unknown' = 0, 'netflow5' = 1, 'netflow9' = 2, 'ipfix' = 3, 'sflow5' = 4, 'ebpf' = 5) CODEC(ZSTD(1)) COMMENT 'Protocol of the record.',
    sampling_rate      UInt32 CODEC(T64, ZSTD(1)) COMMENT '1 in N packets were seen; 1 when not sampled or unknown.',
    sampling_source    Enum8('unknown' = 0, 'record' = 1, 'options' = 2, 'configured' = 3) CODEC(ZSTD(1)) COMMENT 'Where the sampling rate was learned.',
    bytes              UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Estimate: reported bytes times sampling rate.',
    packets            UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Estimate: reported packets times sampling rate.',
    src_addr           IPv6 CODEC(ZSTD(1)) COMMENT 'Source address.',
    dst_addr           IPv6 CODEC(ZSTD(1)) COMMENT 'Destination address.',
    etype              UInt16 CODEC(ZSTD(1)) COMMENT 'EtherType of the payload (0x0800 IPv4, 0x86DD IPv6).',
    proto              UInt8 CODEC(ZSTD(1)) COMMENT 'IP protocol number.',
    src_port           UInt16 CODEC(ZSTD(1)) COMMENT 'Source port.',
    dst_port           UInt16 CODEC(ZSTD(1)) COMMENT 'Destination port.',
    tcp_flags          UInt16 CODEC(ZSTD(1)) COMMENT 'TCP flags seen, or-ed over the flow''s packets.',
    tos                UInt8 CODEC(ZSTD(1)) COMMENT 'IPv4 type of service or IPv6 traffic class.',
    icmp_type          UInt8 CODEC(ZSTD(1)) COMMENT 'ICMP type.',
    icmp_code          UInt8 CODEC(ZSTD(1)) COMMENT 'ICMP code.',
    ttl                UInt8 CODEC(ZSTD(1)) COMMENT 'IPv4 time to live or IPv6 hop limit; the lowest one where given.',
    in_if              UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Index of the input interface (ifIndex).',
    out_if             UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Index of the output interface (ifIndex).',
    in_if_name         LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the input interface.',
    out_if_name        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the output interface.',
    src_vlan           UInt16 CODEC(ZSTD(1)) COMMENT 'VLAN id on the input side.',
    dst_vlan           UInt16 CODEC(ZSTD(1)) COMMENT 'VLAN id on the output side.',
    src_mac            UInt64 CODEC(ZSTD(1)) COMMENT 'Source MAC address; MACNumToString() shows it.',
    dst_mac            UInt64 CODEC(ZSTD(1)) COMMENT 'Destination MAC address; MACNumToString() shows it.',
    src_as             UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Source AS number.',
    dst_as             UInt32 CODEC(T64, ZSTD(1)) COMMENT 'Destination AS number.',
    src_prefix_len     UInt8 CODEC(ZSTD(1)) COMMENT 'Length of the source''s routing prefix.',
    dst_prefix_len     UInt8 CODEC(ZSTD(1)) COMMENT 'Length of the destination''s routing prefix.',
    next_hop           IPv6 CODEC(ZSTD(1)) COMMENT 'Next hop address.',
    vrf                LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'VRF by name where the device tells it, else by number.',
    mpls_labels        Array(UInt32) CODEC(ZSTD(1)) COMMENT 'MPLS labels, top of the stack first.',
    nat_src_addr       IPv6 CODEC(ZSTD(1)) COMMENT 'Source address after translation.',
    nat_dst_addr       IPv6 CODEC(ZSTD(1)) COMMENT 'Destination address after translation.',
    nat_src_port       UInt16 CODEC(ZSTD(1)) COMMENT 'Source port after translation.',
    nat_dst_port       UInt16 CODEC(ZSTD(1)) COMMENT 'Destination port after translation.',
    direction          Enum8('unknown' = 0, 'ingress' = 1, 'egress' = 2) CODEC(ZSTD(1)) COMMENT 'Whether seen entering or leaving the interface.',
    forwarding_status  UInt8 CODEC(ZSTD(1)) COMMENT 'RFC 7270 forwardingStatus: 64-127 forwarded, 128-191 dropped.',
    flow_label         UInt32 CODEC(T64, ZSTD(1)) COMMENT 'IPv6 flow label.',
    src_host           LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the source.',
    dst_host           LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the destination.',
    src_network        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Named network of the source.',
    dst_network        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Named network of the destination.',
    src_internal       UInt8 CODEC(T64, ZSTD(1)) COMMENT '1 where the source is ours: by its network, else private.',
    dst_internal       UInt8 CODEC(T64, ZSTD(1)) COMMENT 'The same of the destination.',
    src_country        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Country of the source, ISO 3166 alpha-2.',
    dst_country        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Country of the destination, ISO 3166 alpha-2.',
    service            LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Name of the service that the flow belongs to.',
    src_service        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Service name of the source port, if it is one.',
    dst_service        LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Service name of the destination port, if it is one.',
    site               LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Site of the device.',
    role               LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Role of the device.',
    owner              LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Owner of the device.',
    app                LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Application as the device classified it (NBAR, PAN-OS, nDPI).',
    dns_name           String CODEC(ZSTD(1)) COMMENT 'Name asked for in DNS.',
    dns_rcode          LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'DNS response code by name (NOERROR, NXDOMAIN).',
    dns_latency        Float32 CODEC(ZSTD(1)) COMMENT 'Time from DNS query to response.',
    rtt                Float32 CODEC(ZSTD(1)) COMMENT 'TCP round-trip time.',
    drop_bytes         UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Bytes dropped by the device''s kernel.',
    drop_packets       UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Packets dropped by the device''s kernel.',
    http_host          String CODEC(ZSTD(1)) COMMENT 'HTTP Host header.',
    http_status        UInt16 CODEC(ZSTD(1)) COMMENT 'HTTP status code.',
    tls_sni            String CODEC(ZSTD(1)) COMMENT 'TLS server name indication.',

    -- Not of a flow but of where it lies: five minutes, or what the insert names as `slot`. An insert
    -- of many flows has one of its own, so that merging it with others moves blocks of rows instead
    -- of taking rows in turns.
    slot               DateTime64(3, 'UTC') EPHEMERAL toStartOfFiveMinutes(time_received) COMMENT 'For inserts: gives time_slot.',
    time_slot          DateTime64(3, 'UTC') MATERIALIZED slot CODEC(ZSTD(1)) COMMENT 'Slot of reception within which flows are in the order of their addresses.',

    -- Drawn flows stand for all where all are too many to look at. Who inserts draws those that are
    -- large among its own (exporter/store/draw.py); else a flow of a megabyte always is, a smaller one
    -- the less often the smaller it is, and one of thirty-two at least.
    draw_one_of        UInt8 EPHEMERAL greatest(1, least(32, intDiv(1000000, greatest(1, bytes)))) COMMENT 'For inserts: gives draw.',
    draw               UInt8 EPHEMERAL if(rand() % draw_one_of = 0, draw_one_of, 0) COMMENT 'For inserts: gives weight.',
    weight             UInt8 MATERIALIZED draw CODEC(ZSTD(1)) COMMENT 'How many flows a drawn one stands for; 0 where it is not drawn.',
    drawn              UInt8 MATERIALIZED draw > 0 CODEC(ZSTD(1)) COMMENT 'Whether the flow is drawn; drawn flows lie together.',

    -- The key serves the source; these serve the other end and rare texts.
    INDEX dst_addr dst_addr TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX dns_name dns_name TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX http_host http_host TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX tls_sni tls_sni TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toDate(time_received)
PRIMARY KEY (toStartOfFiveMinutes(time_received), time_slot, drawn, src_addr, dst_addr)
ORDER BY (toStartOfFiveMinutes(time_received), time_slot, drawn, src_addr, dst_addr, time_received)
TTL toDateTime(time_received) + INTERVAL 30 DAY DELETE
SETTINGS non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1, materialize_ttl_recalculate_only = 1
COMMENT 'Flows as reported; bytes and packets are estimates (reported times sampling rate).';
