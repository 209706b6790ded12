-- Views that make the common questions short. They hold no rows.

CREATE VIEW IF NOT EXISTS flow.traffic ON CLUSTER 'flow' AS
SELECT
    *,
    joinGet('flow.protocol_names', 'name', proto) AS proto_name,
    joinGet('flow.port_names', 'name', proto, src_port) AS src_port_name,
    joinGet('flow.port_names', 'name', proto, dst_port) AS dst_port_name,
    joinGet('flow.as_names', 'name', src_as) AS src_as_name,
    joinGet('flow.as_names', 'name', dst_as) AS dst_as_name
FROM flow.flows AS f
COMMENT 'Flows with the names of their protocol, ports and AS.';

CREATE VIEW IF NOT EXISTS flow.traffic_1m ON CLUSTER 'flow' AS
SELECT
    *,
    joinGet('flow.protocol_names', 'name', proto) AS proto_name,
    joinGet('flow.port_names', 'name', proto, port) AS port_name
FROM flow.flows_1m AS f
COMMENT 'Traffic per minute with the names of protocol and port.';

-- The filter "addr = X" reaches both halves, so that each uses what is quick for it: the order of
-- the table for the source, the bloom filter for the destination.
CREATE VIEW IF NOT EXISTS flow.host_traffic ON CLUSTER 'flow' AS
SELECT
    time_received,
    'sent' AS way,
    src_addr AS addr,
    dst_addr AS peer,
    src_port AS port,
    dst_port AS peer_port,
    src_host AS host,
    dst_host AS peer_host,
    src_network AS network,
    dst_network AS peer_network,
    src_country AS country,
    dst_country AS peer_country,
    src_as AS as_number,
    dst_as AS peer_as_number,
    proto,
    service,
    device,
    in_if,
    out_if,
    bytes,
    packets
FROM flow.flows
UNION ALL
SELECT
    time_received,
    'received' AS way,
    dst_addr AS addr,
    src_addr AS peer,
    dst_port AS port,
    src_port AS peer_port,
    dst_host AS host,
    src_host AS peer_host,
    dst_network AS network,
    src_network AS peer_network,
    dst_country AS country,
    src_country AS peer_country,
    dst_as AS as_number,
    src_as AS peer_as_number,
    proto,
    service,
    device,
    in_if,
    out_if,
    bytes,
    packets
FROM flow.flows AS f
COMMENT 'Each flow twice, seen from either end: ask for one addr, group by way and peer.';

-- What agents on hosts see is seen once: docs/explanation/deduplication.md has the rule.
CREATE VIEW IF NOT EXISTS flow.flows_once ON CLUSTER 'flow' AS
WITH agents AS (SELECT device_addr FROM flow.devices FINAL WHERE role = 'host')
SELECT *
FROM flow.flows
WHERE if(
    role = 'host',
    direction = 'ingress' OR device_addr = dst_addr OR dst_addr NOT IN (SELECT device_addr FROM agents),
    src_addr NOT IN (SELECT device_addr FROM agents) AND dst_addr NOT IN (SELECT device_addr FROM agents)
)
COMMENT 'Flows without what a second agent or a device on the way reports again.';

-- One observer for each conversation: the least sampled, then ingress before egress, then the one
-- that saw most packets.
CREATE VIEW IF NOT EXISTS flow.conversations ON CLUSTER 'flow' AS
SELECT
    src_addr,
    dst_addr,
    src_port,
    dst_port,
    proto,
    (argMin(seen, preference) AS observed).1 AS bytes,
    observed.2 AS packets,
    observed.3 AS flows,
    observed.4 AS device,
    observed.5 AS direction,
    count() AS observers,
    min(first_seen) AS time_flow_start,
    max(last_seen) AS time_flow_end
FROM
(
    SELECT
        src_addr,
        dst_addr,
        src_port,
        dst_port,
        proto,
        min(f.time_flow_start) AS first_seen,
        max(f.time_flow_end) AS last_seen,
        (sum(f.bytes), sum(f.packets), count(), any(f.device), f.direction) AS seen,
        (max(f.sampling_rate), indexOf(['ingress', 'unknown', 'egress'], toString(f.direction)), -toFloat64(seen.2), device_addr) AS preference
    FROM flow.flows AS f
    WHERE time_received >= {since:DateTime64(3, 'UTC')} AND time_received < {until:DateTime64(3, 'UTC')}
    GROUP BY src_addr, dst_addr, src_port, dst_port, proto, device_addr, f.direction
)
GROUP BY src_addr, dst_addr, src_port, dst_port, proto
COMMENT 'One row per conversation from since to until, by one observer of it: conversations(since = ..., until = ...).';

-- States of those hosts only are merged that received most flows: merging those of all hosts of a day
-- takes four times as long. Nobody has more sources than flows, so whoever is left out has fewer of
-- them than the least of these received flows.
CREATE VIEW IF NOT EXISTS flow.fan_in ON CLUSTER 'flow' AS
SELECT
    h.addr AS addr,
    anyLast(h.host) AS host,
    anyLast(h.network) AS network,
    uniqCombinedMerge(12)(h.unique_src_addr) AS sources,
    sum(h.flows_received) AS flows,
    sum(h.bytes_received) AS bytes
FROM flow.hosts_1h AS h
WHERE h.time >= {since:DateTime('UTC')} AND h.time < {until:DateTime('UTC')} AND h.addr IN
(
    SELECT addr
    FROM flow.hosts_1h
    WHERE time >= {since:DateTime('UTC')} AND time < {until:DateTime('UTC')}
    GROUP BY addr
    HAVING sum(flows_received) > 0
    ORDER BY sum(flows_received) DESC, addr
    LIMIT 500
)
GROUP BY addr
COMMENT 'Different sources of the 500 hosts that received most flows in whole hours: fan_in(since = ..., until = ...).';
