"""An hour of deterministic traffic, names and alerts in which every panel finds something.

- Forty hosts ``10.0.0.0`` to ``10.0.0.39`` each send one flow a minute to one of five servers.
- ``10.0.0.7`` sends most packets, small ones, and asks for DNS names.
- From half-time on, ``10.9.9.9`` (``spike``, AS 4200000000) sends most, to ``10.1.0.1:14999``.
- An alert about that begins 100 seconds later; evidence of it is kept.
- Port 20012 falls silent for the last ten minutes.
- In the second minute of the same hour a day before there is one flow, to port 443.
- ``10.0.0.8`` asks for a name that does not exist every minute, another one each time.
- ``10.0.0.7`` is a machine of interns; behind interface 1 of ``r1`` is a transit.
- ``registry.example`` is ``10.1.0.4``; ``other.example`` was ``10.1.0.1``, a day before.
- ``10.0.0.4`` only ever asks to connect, to port 443.
- One IPv6 host has a quote in its name, one device a quote and a backslash.
"""

from __future__ import annotations

import time
from typing import Final

from clickhouse_connect.driver.client import Client

MINUTES: Final = 60
#: A whole number of minutes, and recent: old flows are deleted.
END: Final = int(time.time()) // 3600 * 3600
START: Final = END - MINUTES * 60

_COLUMNS = """time_received, time_flow_start, time_flow_end, device, device_addr, source,
 sampling_rate, bytes, packets, src_addr, dst_addr, etype, proto, src_port, dst_port, in_if, out_if,
 in_if_name, src_as, dst_as, src_host, dst_host, src_network, dst_service, src_country,
 dst_country, role, dns_name, dns_rcode, src_internal, tcp_flags"""

_FLOWS = f"""
INSERT INTO flows ({_COLUMNS})
WITH intDiv(number, 40) AS minute, number % 40 AS host,
  [443, 53, 14999, 20012][1 + host % 4] AS port
SELECT t, t - 30, t, if(host % 2 = 0, 'r1', 'r\\'2\\\\'), toIPv6('192.0.2.250'),
  ['netflow5', 'netflow9', 'ipfix', 'sflow5'][1 + host % 4], 1,
  1000 * (host + 1), if(host = 7, 5000, 10),
  toIPv6('10.0.0.' || toString(host)), toIPv6('10.1.0.' || toString(host % 5)),
  2048, if(port = 53, 17, 6), 1024 + number, port, 1 + host % 3, 4, 'eth' || toString(1 + host % 3),
  64500 + host % 3, 64510, 'k' || toString(host), if(host % 5 = 1, 'ag04', ''), 'production',
  if(port = 14999, 'aggregation', ''), 'DE', 'NL', 'router',
  if(host = 7, if(minute % 2 = 0, 'pool.example.net', 'www.example.org'), ''),
  if(host = 7, 'NOERROR', ''), 1, if(host = 4, 2, 24)
FROM (SELECT number, toDateTime64({START} + intDiv(number, 40) * 60 + 10, 3, 'UTC') AS t
      FROM numbers({MINUTES * 40}))
WHERE NOT (port = 20012 AND minute >= {MINUTES - 10})
"""

_SPIKE = f"""
INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, source, sampling_rate,
  bytes, packets, src_addr, dst_addr, etype, proto, src_port, dst_port, in_if, out_if, src_as,
  dst_as, src_host, dst_host, src_network, dst_service, src_internal)
SELECT t, t, t, 'r1', 'ipfix', 1, 1000000, 800, toIPv6('10.9.9.9'), toIPv6('10.1.0.1'), 2048, 6,
  40000, 14999, 2, 4, 4200000000, 64510, 'spike', 'ag04', 'lab', 'aggregation', 1
FROM (SELECT toDateTime64({START + 1800} + number * 60, 3, 'UTC') AS t FROM numbers(30))
"""

_IPV6 = f"""
INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, source, sampling_rate,
  bytes, packets, src_addr, dst_addr, etype, proto, src_host)
SELECT t, t, t, 'r1', 'ipfix', 1, 500, 5, toIPv6('2001:db8::1'), toIPv6('2001:db8::2'), 34525, 58,
  'o\\'brien'
FROM (SELECT toDateTime64({START + 600}, 3, 'UTC') AS t)
"""

_DAY_BEFORE = f"""
INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, source, sampling_rate,
  bytes, packets, src_addr, dst_addr, etype, proto, src_port, dst_port, src_host)
SELECT t, t, t, 'r1', 'ipfix', 1, 60000, 60, toIPv6('10.0.0.1'), toIPv6('10.1.0.1'), 2048, 6,
  40000, 443, 'k1'
FROM (SELECT toDateTime64({START - 86400 + 90}, 3, 'UTC') AS t)
"""

_ALERTS = f"""
INSERT INTO alerts (fingerprint, starts_at, ends_at, updated_at, status, alertname, severity,
  policy, team, incident, labels, annotations, value, source)
VALUES
  ('00000000000000aa', {START + 1900}.0, NULL, {START + 1900}.0, 'firing', 'FlowHigh', 'critical',
   'host_bits', 'network', 'load',
   {{'policy': 'host_bits', 'dst_addr': '10.1.0.1', 'dst_host': 'ag04'}},
   {{'summary': 'Traffic is high.', 'dashboard_url':
   'http://grafana.example/d/flow-incident?from=1&to=2&var-since=3&var-policy=host_bits'}},
   133333, 'prometheus'),
  ('00000000000000bb', {START + 600}.0, {START + 900}.0, {START + 900}.0, 'resolved', 'FlowLow',
   'warning',
   'service_dip', 'network', 'load', {{'policy': 'service_dip'}},
   {{'dashboard_url': 'javascript:alert(1)'}}, 1, 'webhook')
"""

_DNS = f"""
INSERT INTO dns_queries (time_received, device, source, src_addr, dst_addr, src_host, dns_name,
  dns_type, dns_rcode, dns_latency)
SELECT toDateTime64({START + 5} + number * 60, 3, 'UTC'), 'r1', 'dnstap', toIPv6('10.0.0.8'),
  toIPv6('10.1.0.3'), 'k8', 'guess' || toString(number) || '.example', 'A', 'NXDOMAIN',
  0.01 * (1 + number % 2)
FROM numbers({MINUTES})
"""

_HOSTS = f"""
INSERT INTO hosts VALUES (toIPv6('10.0.0.7'), 'k7', 'dev-vm', 'interns', {END})
"""

_PROVIDERS = """
INSERT INTO interfaces (device, interface, name, provider, first_seen, last_seen)
VALUES ('r1', 1, 'eth1', 'Example Transit', 4294967295, 0)
"""

_NAMES = f"""
INSERT INTO dns_queries (time_received, device, source, src_addr, dst_addr, src_host, dns_name,
  dns_type, dns_rcode, dns_latency, answers)
VALUES
  ({START + 65}.0, 'r1', 'dnstap', toIPv6('10.0.0.9'), toIPv6('10.1.0.3'), 'k9', 'registry.example',
   'A', 'NOERROR', 0.01, [toIPv6('10.1.0.4')]),
  ({START - 86400 + 65}.0, 'r1', 'dnstap', toIPv6('10.0.0.9'), toIPv6('10.1.0.3'), 'k9',
   'other.example', 'A', 'NOERROR', 0.01, [toIPv6('10.1.0.1')])
"""

_EVIDENCE = f"""
INSERT INTO incident_evidence
VALUES
  ('00000000000000aa', {START + 1900}.0, {START + 1960}.0, 'FlowHigh', 'host_bits', 'src_as',
   'before', 1, '64501', 5000, 50, 5),
  ('00000000000000aa', {START + 1900}.0, {START + 1960}.0, 'FlowHigh', 'host_bits', 'src_as',
   'during', 1, '4200000000', 3000000, 2400, 3),
  ('00000000000000aa', {START + 1900}.0, {START + 1960}.0, 'FlowHigh', 'host_bits', 'src_as',
   'during', 2, '64501', 1000, 10, 1)
"""


def fill(writer: Client) -> None:
    """Inserts all of it."""
    for statement in (
        _FLOWS,
        _SPIKE,
        _IPV6,
        _DAY_BEFORE,
        _ALERTS,
        _DNS,
        _HOSTS,
        _PROVIDERS,
        _NAMES,
        _EVIDENCE,
    ):
        writer.command(statement)
