"""Keys as people and links read them."""

from __future__ import annotations

from exporter.explore.choices import Dimension
from exporter.explore.columns import NO_DIMENSION
from exporter.explore.expressions import protocol, text, url_filter


def display(key: str, dimension: Dimension) -> str:
    """A key's value as people read it.

    Of ``if`` on constants ClickHouse drops what is not chosen, unless it is directly the branch of
    another one: hence the casts between.
    """
    shown = text(key)
    if dimension.known:
        special = {
            "proto": protocol(key),
            "src_mac": _mac(key),
            "dst_mac": _mac(key),
            NO_DIMENSION: "''",
        }
        shown = special.get(dimension.known, shown)
    else:
        mac = f"toString(if({dimension.ends_with('_mac')}, {_mac(key)}, {shown}))"
        shown = f"if({dimension.text} = 'proto', {protocol(key)}, {mac})"
    return f"if(toString({key}) = '', '(empty)', {shown})"


def _mac(key: str) -> str:
    return f"MACNumToString(toUInt64OrZero(toString({key})))"


def second_display(key: str, dimension: Dimension) -> str:
    """The same of the second key, which there may not be."""
    if dimension.known == NO_DIMENSION:
        return "''"
    return f"if({dimension.is_one_of((NO_DIMENSION,))}, '', {display(key, dimension)})"


def second_filter(key: str, dimension: Dimension) -> str:
    """The second key as the value of an ad-hoc filter in a URL takes it."""
    if dimension.known == NO_DIMENSION:
        return "''"
    return f"if({dimension.is_one_of((NO_DIMENSION,))}, '', {url_filter(key)})"


def key_name(name: str, key: str, dimension: Dimension) -> str:
    """What is known about a key: ``name`` from the flows, else from the tables of names."""
    autonomous_system = f"joinGet('as_names', 'name', toUInt32OrZero(toString({key})))"
    tcp_port = f"joinGet('port_names', 'name', toUInt8(6), toUInt16OrZero(toString({key})))"
    port = f"if({name} != '', {name}, {tcp_port})"
    if dimension.known:
        parts = dimension.known.rpartition("_")
        return {"as": autonomous_system, "port": port}.get(parts[2], name)
    port = f"toString(if({dimension.ends_with('_port')}, {port}, {name}))"
    return f"if({dimension.ends_with('_as')}, {autonomous_system}, {port})"
