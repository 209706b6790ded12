"""Pinned keys: what a policy always shows, however small it is."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from exporter.schema import Column, Kind

Pin = Mapping[str, str]

_BITS: Final = {Kind.UINT8: 8, Kind.UINT16: 16, Kind.UINT32: 32, Kind.UINT64: 64}
_MAC: Final = re.compile(r"([0-9A-F]{2}:){5}[0-9A-F]{2}")


def value_text(column: Column, value: str | int) -> str:
    """A dimension's value as metrics show it.

    Raises:
        ValueError: the column cannot have it.
    """
    text = str(value)
    if column.enum is not None:
        names = [member.name.lower() for member in column.enum]
        if text not in names:
            raise ValueError(f"{column.name} is one of {', '.join(names)}, not {text!r}")
    elif column.kind is Kind.ADDRESS:
        address = ipaddress.ip_address(text)
        mapped = address.ipv4_mapped if address.version == 6 else None
        return str(mapped or address)
    elif column.kind is Kind.MAC:
        text = text.upper()
        if not _MAC.fullmatch(text):
            raise ValueError(f"{text!r} is not a MAC address such as 00:00:5E:00:53:01")
    elif column.kind in _BITS:
        if not text.isdecimal() or int(text) >> _BITS[column.kind]:
            raise ValueError(f"{column.name} cannot be {text!r}")
        return str(int(text))
    return text


def matches(pin: Pin, labels: Mapping[str, str]) -> bool:
    """Whether a pin means the key with these labels."""
    return all(labels.get(name, "") == text for name, text in pin.items())
