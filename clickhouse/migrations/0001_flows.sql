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
    time_received      DateTime64(3, 'UTC') COMMENT 'When the exporter received the datagram.' CODEC(T64, ZSTD(1)),
    time_flow_start    DateTime64(3, 'UTC') COMMENT 'First packet of the flow.' CODEC(T64, ZSTD(1)),
    time_flow_end      DateTime64(3, 'UTC') COMMENT 'Last packet of the flow.' CODEC(T64, ZSTD(1)),
    time_source        Enum8('record' = 0, 'received' = 1) COMMENT 'Whether the flow times are the device''s or ours.' CODEC(ZSTD(1)),
    device_addr        IPv6 COMMENT 'Address the device sent from (or reports as its own).' CODEC(ZSTD(1)),
    device             LowCardinality(String) COMMENT 'Name of the device; its address as text when not configured.' CODEC(ZSTD(1)),
    observation_domain UInt32 COMMENT 'Observation domain, source id, engine or sub-agent.' CODEC(T64, ZSTD(1)),
    source             Enum8('unknown' = 0, 'netflow5' = 1, 'netflow9' = 2, 'ipfix' = 3, 'sflow5' = 4, 'ebpf' = 5) COMMENT 'Protocol of the record.' CODEC(ZSTD(1)),
    sampling_rate      UInt32 COMMENT '1 in N packets were seen; 1 when not sampled or unknown.' CODEC(T64, ZSTD(1)),
    sampling_source    Enum8('unknown' = 0, 'record' = 1, 'options' = 2, 'configured' = 3) COMMENT 'Where the sampling rate was learned.' CODEC(ZSTD(1)),
    bytes              UInt64 COMMENT 'Estimate: reported bytes times sampling rate.' CODEC(T64, ZSTD(1)),
    packets            UInt64 COMMENT 'Estimate: reported packets times sampling rate.' CODEC(T64, ZSTD(1)),
    src_addr           IPv6 COMMENT 'Source address.' CODEC(ZSTD(1)),
    dst_addr           IPv6 COMMENT 'Destination address.' CODEC(ZSTD(1)),
    etype              UInt16 COMMENT 'EtherType of the payload (0x0800 IPv4, 0x86DD IPv6).' CODEC(ZSTD(1)),
    proto              UInt8 COMMENT 'IP protocol number.' CODEC(ZSTD(1)),
    src_port           UInt16 COMMENT 'Source port.' CODEC(ZSTD(1)),
    dst_port           UInt16 COMMENT 'Destination port.' CODEC(ZSTD(1)),
    tcp_flags          UInt16 COMMENT 'TCP flags seen, or-ed over the flow''s packets.' CODEC(ZSTD(1)),
    tos                UInt8 COMMENT 'IPv4 type of service or IPv6 traffic class.' CODEC(ZSTD(1)),
    icmp_type          UInt8 COMMENT 'ICMP type.' CODEC(ZSTD(1)),
    icmp_code          UInt8 COMMENT 'ICMP code.' CODEC(ZSTD(1)),
    ttl                UInt8 COMMENT 'IPv4 time to live or IPv6 hop limit; the lowest one where given.' CODEC(ZSTD(1)),
    in_if              UInt32 COMMENT 'Index of the input interface (ifIndex).' CODEC(T64, ZSTD(1)),
    out_if             UInt32 COMMENT 'Index of the output interface (ifIndex).' CODEC(T64, ZSTD(1)),
    in_if_name         LowCardinality(String) COMMENT 'Name of the input interface.' CODEC(ZSTD(1)),
    out_if_name        LowCardinality(String) COMMENT 'Name of the output interface.' CODEC(ZSTD(1)),
    src_vlan           UInt16 COMMENT 'VLAN id on the input side.' CODEC(ZSTD(1)),
    dst_vlan           UInt16 COMMENT 'VLAN id on the output side.' CODEC(ZSTD(1)),
    src_mac            UInt64 COMMENT 'Source MAC address; MACNumToString() shows it.' CODEC(ZSTD(1)),
    dst_mac            UInt64 COMMENT 'Destination MAC address; MACNumToString() shows it.' CODEC(ZSTD(1)),
    src_as             UInt32 COMMENT 'Source AS number.' CODEC(T64, ZSTD(1)),
    dst_as             UInt32 COMMENT 'Destination AS number.' CODEC(T64, ZSTD(1)),
    src_prefix_len     UInt8 COMMENT 'Length of the source''s routing prefix.' CODEC(ZSTD(1)),
    dst_prefix_len     UInt8 COMMENT 'Length of the destination''s routing prefix.' CODEC(ZSTD(1)),
    next_hop           IPv6 COMMENT 'Next hop address.' CODEC(ZSTD(1)),
    vrf                LowCardinality(String) COMMENT 'VRF by name where the device tells it, else by number.' CODEC(ZSTD(1)),
    mpls_labels        Array(UInt32) COMMENT 'MPLS labels, top of the stack first.' CODEC(ZSTD(1)),
    nat_src_addr       IPv6 COMMENT 'Source address after translation.' CODEC(ZSTD(1)),
    nat_dst_addr       IPv6 COMMENT 'Destination address after translation.' CODEC(ZSTD(1)),
    nat_src_port       UInt16 COMMENT 'Source port after translation.' CODEC(ZSTD(1)),
    nat_dst_port       UInt16 COMMENT 'Destination port after translation.' CODEC(ZSTD(1)),
    direction          Enum8('unknown' = 0, 'ingress' = 1, 'egress' = 2) COMMENT 'Whether seen entering or leaving the interface.' CODEC(ZSTD(1)),
    forwarding_status  UInt8 COMMENT 'RFC 7270 forwardingStatus: 64-127 forwarded, 128-191 dropped.' CODEC(ZSTD(1)),
    flow_label         UInt32 COMMENT 'IPv6 flow label.' CODEC(T64, ZSTD(1)),
    src_host           LowCardinality(String) COMMENT 'Name of the source.' CODEC(ZSTD(1)),
    dst_host           LowCardinality(String) COMMENT 'Name of the destination.' CODEC(ZSTD(1)),
    src_network        LowCardinality(String) COMMENT 'Named network of the source.' CODEC(ZSTD(1)),
    dst_network        LowCardinality(String) COMMENT 'Named network of the destination.' CODEC(ZSTD(1)),
    src_internal       UInt8 COMMENT '1 where the source is ours: by its network, else private.' CODEC(T64, ZSTD(1)),
    dst_internal       UInt8 COMMENT 'The same of the destination.' CODEC(T64, ZSTD(1)),
    src_country        LowCardinality(String) COMMENT 'Country of the source, ISO 3166 alpha-2.' CODEC(ZSTD(1)),
    dst_country        LowCardinality(String) COMMENT 'Country of the destination, ISO 3166 alpha-2.' CODEC(ZSTD(1)),
    service            LowCardinality(String) COMMENT 'Name of the service that the flow belongs to.' CODEC(ZSTD(1)),
    src_service        LowCardinality(String) COMMENT 'Service name of the source port, if it is one.' CODEC(ZSTD(1)),
    dst_service        LowCardinality(String) COMMENT 'Service name of the destination port, if it is one.' CODEC(ZSTD(1)),
    site               LowCardinality(String) COMMENT 'Site of the device.' CODEC(ZSTD(1)),
    role               LowCardinality(String) COMMENT 'Role of the device.' CODEC(ZSTD(1)),
    owner              LowCardinality(String) COMMENT 'Owner of the device.' CODEC(ZSTD(1)),
    app                LowCardinality(String) COMMENT 'Application as the device classified it (NBAR, PAN-OS, nDPI).' CODEC(ZSTD(1)),
    dns_name           String COMMENT 'Name asked for in DNS.' CODEC(ZSTD(1)),
    dns_rcode          LowCardinality(String) COMMENT 'DNS response code by name (NOERROR, NXDOMAIN).' CODEC(ZSTD(1)),
    dns_latency        Float32 COMMENT 'Time from DNS query to response.' CODEC(ZSTD(1)),
    rtt                Float32 COMMENT 'TCP round-trip time.' CODEC(ZSTD(1)),
    drop_bytes         UInt64 COMMENT 'Bytes dropped by the device''s kernel.' CODEC(T64, ZSTD(1)),
    drop_packets       UInt64 COMMENT 'Packets dropped by the device''s kernel.' CODEC(T64, ZSTD(1)),
    http_host          String COMMENT 'HTTP Host header.' CODEC(ZSTD(1)),
    http_status        UInt16 COMMENT 'HTTP status code.' CODEC(ZSTD(1)),
    tls_sni            String COMMENT 'TLS server name indication.' CODEC(ZSTD(1)),

    -- Not of a flow but of where it lies: five minutes, or what the insert names as `slot`. An insert
    -- of many flows has one of its own, so that merging it with others moves blocks of rows instead
    -- of taking rows in turns.
    slot               DateTime64(3, 'UTC') EPHEMERAL toStartOfFiveMinutes(time_received) COMMENT 'For inserts: gives time_slot.',
    time_slot          DateTime64(3, 'UTC') MATERIALIZED slot COMMENT 'Slot of reception within which flows are in the order of their addresses.' CODEC(ZSTD(1)),

    -- Drawn flows stand for all where all are too many to look at. Who inserts draws those that are
    -- large among its own (exporter/store/draw.py); else a flow of a megabyte always is, a smaller one
    -- the less often the smaller it is, and one of thirty-two at least.
    draw_one_of        UInt8 EPHEMERAL greatest(1, least(32, intDiv(1000000, greatest(1, bytes)))) COMMENT 'For inserts: gives draw.',
    draw               UInt8 EPHEMERAL if(rand() % draw_one_of = 0, draw_one_of, 0) COMMENT 'For inserts: gives weight.',
    weight             UInt8 MATERIALIZED draw COMMENT 'How many flows a drawn one stands for; 0 where it is not drawn.' CODEC(ZSTD(1)),
    drawn              UInt8 MATERIALIZED draw > 0 COMMENT 'Whether the flow is drawn; drawn flows lie together.' CODEC(ZSTD(1)),

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
