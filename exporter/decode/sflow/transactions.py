"""Records of sFlow samples about what applications did, as columns.

Sources: sflow.org, "sFlow Application Structures" (sflow_application.txt) and "sFlow HTTP
Structures" (sflow_http.txt).
"""

from __future__ import annotations

import numpy as np

from exporter.decode import packet
from exporter.decode.sflow.packets import Packets, Rows, chosen_rows, put_ends, strings
from exporter.decode.sflow.walk import Buffer, Index

#: Words behind the strings of a transaction: bytes of request and response, duration, status.
_REST = 6


def socket4(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """The IPv4 socket that an application used; its own end is the source."""
    del end
    _socket(packets, buffer, rows, body, address_words=1, etype=packet.IPV4)


def socket6(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """The same of IPv6."""
    del end
    _socket(packets, buffer, rows, body, address_words=4, etype=packet.IPV6)


def _socket(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, *, address_words: int, etype: int
) -> None:
    # protocol, local address, remote address, local port, remote port
    rows = _transactions(packets, rows)
    chosen = ~packets.counted[rows]
    rows, body = chosen_rows(rows, chosen), body[chosen]
    put_ends(packets, buffer, rows, body, address_words=address_words, etype=etype)


def _transactions(packets: Packets, rows: Rows) -> Rows:
    """``rows``, after those that nothing was known of are marked as no packets."""
    fresh = chosen_rows(rows, ~packets.seen[rows])
    packets.counted[fresh] = False
    packets.seen[fresh] = True
    return rows


def old_http(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """An HTTP transaction as servers sent it first: without the addresses behind a proxy."""
    # method, version, URI, host, referrer, user agent, user, type, bytes, duration, status
    _http(packets, buffer, rows, body, end, texts=6, rest=_REST - 2)


def http(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """An HTTP transaction: host and status."""
    # method, version, URI, host, referrer, user agent, X-Forwarded-For, user, type, bytes of
    # request and response, duration, status
    _http(packets, buffer, rows, body, end, texts=7, rest=_REST)


def _http(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index, *, texts: int, rest: int
) -> None:
    found = strings(packets, buffer, rows, body, end, before=2, count=texts, rest=rest)
    _transactions(packets, found.rows)
    packets.put_text("http_host", found.rows, buffer, found.texts[1])
    packets.put("http_status", found.rows, buffer.words[found.after + rest - 1].astype(np.uint16))


def operation(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """An operation of an application: its name."""
    # application, operation, attributes, status in words, bytes, duration, status
    found = strings(packets, buffer, rows, body, end, before=0, count=4, rest=_REST)
    _transactions(packets, found.rows)
    packets.put_text("app", found.rows, buffer, found.texts[0])


def url(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """The URL that a packet belongs to, and the host that it was asked of."""
    # direction, URL, host
    found = strings(packets, buffer, rows, body, end, before=1, count=2, rest=0)
    packets.put_text("http_host", found.rows, buffer, found.texts[1])
