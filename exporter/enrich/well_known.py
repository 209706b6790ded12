"""Ports that mean the same nearly everywhere, with the names that IANA registered for them.

Source: IANA, Service Name and Transport Protocol Port Number Registry, and for the few marked
with ``*`` the default of the software of that name. The configuration's ``services`` come first.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
7 echo tcp udp          9 discard tcp udp       13 daytime tcp udp      19 chargen tcp udp
20 ftp-data tcp         21 ftp tcp              22 ssh tcp              23 telnet tcp
25 smtp tcp             37 time tcp udp         43 whois tcp            49 tacacs tcp udp
53 domain tcp udp       67 bootps udp           68 bootpc udp           69 tftp udp
80 http tcp udp         88 kerberos tcp udp     110 pop3 tcp            111 sunrpc tcp udp
113 auth tcp            119 nntp tcp            123 ntp udp             135 epmap tcp udp
137 netbios-ns udp      138 netbios-dgm udp     139 netbios-ssn tcp     143 imap tcp
161 snmp tcp udp        162 snmptrap tcp udp    177 xdmcp udp           179 bgp tcp
194 irc tcp             319 ptp-event udp       320 ptp-general udp     389 ldap tcp udp
427 svrloc tcp udp      443 https tcp udp       445 microsoft-ds tcp    464 kpasswd tcp udp
465 submissions tcp     500 isakmp udp          502 mbap tcp            512 exec tcp
513 login tcp           514 syslog udp          515 printer tcp         520 router udp
521 ripng udp           546 dhcpv6-client udp   547 dhcpv6-server udp   548 afpovertcp tcp
554 rtsp tcp            563 nntps tcp           587 submission tcp      623 asf-rmcp udp
631 ipp tcp udp         636 ldaps tcp           639 msdp tcp            646 ldp tcp udp
647 dhcp-failover tcp   749 kerberos-adm tcp    830 netconf-ssh tcp     853 domain-s tcp udp
860 iscsi tcp           873 rsync tcp           902 vmware-auth* tcp    989 ftps-data tcp
990 ftps tcp            992 telnets tcp         993 imaps tcp           995 pop3s tcp
1080 socks tcp          1194 openvpn tcp udp    1433 ms-sql-s tcp       1434 ms-sql-m udp
1521 oracle* tcp        1701 l2tp udp           1719 h323gatestat udp   1720 h323hostcall tcp
1723 pptp tcp           1812 radius tcp udp     1813 radius-acct tcp udp 1883 mqtt tcp
1900 ssdp udp           1985 hsrp udp           2049 nfs tcp udp        2055 netflow* udp
2123 gtp-control udp    2152 gtp-user udp       2181 zookeeper* tcp     2375 docker tcp
2376 docker-s tcp       2379 etcd-client tcp    2380 etcd-server tcp    3128 squid* tcp
3205 isns tcp udp       3260 iscsi-target tcp   3268 msft-gc tcp        3269 msft-gc-ssl tcp
3306 mysql tcp          3389 ms-wbt-server tcp udp 3478 stun tcp udp
3690 svn tcp            3784 bfd-control udp    3785 bfd-echo udp
4317 opentelemetry-grpc* tcp 4318 opentelemetry-http* tcp 4369 epmd tcp
4500 ipsec-nat-t udp    4505 salt-publish* tcp  4506 salt-request* tcp  4739 ipfix tcp udp
4789 vxlan udp          5004 rtp udp            5060 sip tcp udp        5061 sips tcp
5222 xmpp-client tcp    5269 xmpp-server tcp    5349 stuns tcp udp      5351 nat-pmp udp
5353 mdns udp           5355 llmnr udp          5432 postgresql tcp     5671 amqps tcp
5672 amqp tcp           5683 coap udp           5900 rfb tcp            5985 wsman tcp
5986 wsmans tcp         6081 geneve udp         6343 sflow udp          6379 redis* tcp
6443 kubernetes-api* tcp 6514 syslog-tls tcp     6653 openflow tcp       6667 irc tcp
6697 ircs-u tcp         7000 cassandra* tcp     8080 http-alt tcp       8086 influxdb* tcp
8123 clickhouse-http* tcp 8125 statsd* udp        8200 vault* tcp
8300 consul-rpc* tcp    8301 consul-serf* tcp udp 8443 https-alt* tcp
8500 consul-http* tcp   8883 secure-mqtt tcp    9042 cassandra-cql* tcp 9090 prometheus* tcp
9092 kafka* tcp         9093 alertmanager* tcp  9100 node-exporter* tcp 9200 elasticsearch* tcp
9300 elasticsearch-transport* tcp 9418 git tcp            10050 zabbix-agent tcp
10051 zabbix-trapper tcp 10250 kubelet* tcp      11211 memcache tcp udp
15672 rabbitmq-management* tcp 25565 minecraft tcp     27017 mongodb* tcp
51820 wireguard* udp
"""


def _parse() -> tuple[tuple[int, tuple[str, ...], str], ...]:
    found: list[tuple[int, tuple[str, ...], str]] = []
    for word in _TABLE.split():
        if word.isdecimal():
            found.append((int(word), (), ""))
        elif word in ("tcp", "udp"):
            port, protocols, name = found[-1]
            found[-1] = (port, (*protocols, word), name)
        else:
            found[-1] = (found[-1][0], (), word.removesuffix("*"))
    return tuple(found)


#: ``(port, protocols, name)``.
WELL_KNOWN: Final = _parse()
