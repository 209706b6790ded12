"""What a resolver tells of a query by dnstap: the query and its response, each a frame's payload.

Sources: dnstap.proto of dnstap/dnstap.pb (``exporter/proto/dnstap.proto``); the DNS messages are
dnspython's (RFC 1035).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from exporter.address import pack_address
from exporter.proto import dnstap_pb2 as pb
from exporter.simulate.lookups import Lookup, Query
from exporter.simulate.site import HOSTS

_TTL: Final = 300
_DNS_PORT: Final = 53


def exchange_payloads(query: Query) -> tuple[bytes, bytes]:
    """``CLIENT_QUERY`` and ``CLIENT_RESPONSE`` of a query."""
    asked, answered = _messages(query.lookup)
    number = query.number.to_bytes(2, "big")
    told = pb.Message(
        socket_family=pb.INET,
        socket_protocol=pb.UDP,
        query_address=query.client[12:],
        response_address=pack_address(HOSTS[query.resolver])[12:],
        query_port=query.port,
        response_port=_DNS_PORT,
        query_time_sec=query.time // 1000,
        query_time_nsec=query.time % 1000 * 1_000_000,
        type=pb.Message.CLIENT_QUERY,
        query_message=number + asked[2:],
    )
    first = _payload(query.resolver, told)
    answer_time = query.time * 1_000_000 + int(query.latency * 1e9)
    told.ClearField("query_message")
    told.type = pb.Message.CLIENT_RESPONSE
    told.response_message = number + answered[2:]
    told.response_time_sec, told.response_time_nsec = divmod(answer_time, 1_000_000_000)
    return first, _payload(query.resolver, told)


def _payload(resolver: str, told: pb.Message) -> bytes:
    return pb.Dnstap(
        type=pb.Dnstap.MESSAGE, identity=resolver.encode(), message=told
    ).SerializeToString()


@lru_cache(4096)
def _messages(lookup: Lookup) -> tuple[bytes, bytes]:
    """A query for the name and its response, on the wire, with any id."""
    query = dns.message.make_query(lookup.name, "A", id=0)
    response = dns.message.make_response(query, recursion_available=True)
    if lookup.addresses:
        response.answer.append(
            dns.rrset.from_text(query.question[0].name, _TTL, "IN", "A", *lookup.addresses)
        )
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return query.to_wire(), response.to_wire()
