"""Options records for people: elements by name, octets as what they mean.

Names are IANA's (https://www.iana.org/assignments/ipfix) for NetFlow v9 as well, whose fields have
the same numbers below 128. What is not listed is shown by its number and in hexadecimal digits.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from exporter.batch import format_address, format_time
from exporter.decode.devices import Stream
from exporter.decode.elements import ELEMENTS, V9, V9_SCOPE, Reading
from exporter.decode.options import Record
from exporter.decode.values import LAST_TIME, application_id, clean_text, floating_point


def _number(raw: bytes) -> int | str:
    return int.from_bytes(raw, "big") if len(raw) <= _LONGEST_NUMBER else raw.hex()


def _floating_point(raw: bytes) -> float | str:
    number = floating_point(raw)
    return raw.hex() if number is None else number


def _address(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else raw.hex()


def _time(raw: bytes) -> str:
    milliseconds = int.from_bytes(raw, "big")
    return format_time(milliseconds) if milliseconds <= LAST_TIME else raw.hex()


_LONGEST_NUMBER: Final = 8
_SCOPES: Final = {1: "scopeSystem", 2: "scopeInterface", 3: "scopeLineCard", 4: "scopeCache",
                  5: "scopeTemplate"}  # fmt: skip
_NUMBERS: Final = {
    35: "samplingAlgorithm", 36: "flowActiveTimeout", 37: "flowIdleTimeout",
    40: "exportedOctetTotalCount", 41: "exportedMessageTotalCount",
    42: "exportedFlowRecordTotalCount", 49: "samplerMode", 101: "classificationEngineId",
    141: "lineCardId", 142: "portId", 143: "meteringProcessId", 144: "exportingProcessId",
    145: "templateId", 149: "observationDomainId", 163: "observedFlowTotalCount",
    164: "ignoredPacketTotalCount", 165: "ignoredOctetTotalCount", 166: "notSentFlowTotalCount",
    167: "notSentPacketTotalCount", 168: "notSentOctetTotalCount", 173: "flowKeyIndicator",
    213: "exportInterface", 214: "exportProtocolVersion", 215: "exportTransportProtocol",
    216: "collectorTransportPort", 217: "exporterTransportPort", 303: "informationElementId",
    304: "selectorAlgorithm", 307: "samplingTimeInterval", 308: "samplingTimeSpace",
    309: "samplingSize", 310: "samplingPopulation", 318: "selectorIdTotalPktsObserved",
    319: "selectorIdTotalPktsSelected", 339: "informationElementDataType",
    342: "informationElementRangeBegin", 343: "informationElementRangeEnd",
    344: "informationElementSemantics", 345: "informationElementUnits",
    346: "privateEnterpriseNumber",
}  # fmt: skip
_TEXTS: Final = {
    82: "interfaceName", 83: "interfaceDescription", 84: "samplerName",
    94: "applicationDescription", 284: "natPoolName", 300: "observationDomainName",
    335: "selectorName", 340: "informationElementDescription", 341: "informationElementName",
    372: "applicationCategoryName", 373: "applicationSubCategoryName",
    374: "applicationGroupName",
}  # fmt: skip
_ADDRESSES: Final = {
    130: "exporterIPv4Address", 131: "exporterIPv6Address", 211: "collectorIPv4Address",
    212: "collectorIPv6Address",
}  # fmt: skip
_TIMES: Final = {160: "systemInitTimeMilliseconds", 258: "collectionTimeMilliseconds"}
_FLOATS: Final = {311: "samplingProbability"}

_SHOWN: Final[dict[Reading, Callable[[bytes], Any]]] = {
    Reading.ADDRESS: _address,
    Reading.TEXT: clean_text,
    Reading.APPLICATION: application_id,
    Reading.MILLISECONDS: _time,
    Reading.UNSIGNED: _number,
    Reading.VRF: _number,
}


def _known() -> dict[tuple[int, int], tuple[str, Callable[[bytes], Any]]]:
    found: dict[tuple[int, int], tuple[str, Callable[[bytes], Any]]] = {
        (0 if element.enterprise == V9 else element.enterprise, element.id): (
            element.name, _SHOWN.get(element.reading, bytes.hex),
        )
        for element in reversed(ELEMENTS)
    }  # fmt: skip
    for names, show in (
        (_NUMBERS, _number), (_TEXTS, clean_text), (_ADDRESSES, _address), (_TIMES, _time),
        (_FLOATS, _floating_point),
    ):  # fmt: skip
        found |= {(0, number): (name, show) for number, name in names.items()}
    found |= {(V9_SCOPE, number): (name, _number) for number, name in _SCOPES.items()}
    return found


_KNOWN: Final = _known()


def describe(stream: Stream, template: int, received: int, record: Record) -> dict[str, Any]:
    """An options record, ready for JSON: ``options`` has its fields by name.

    ``received`` is in milliseconds since the epoch.
    """
    fields = {}
    for (enterprise, element), raw in record.items():
        number = f"scope{element}" if enterprise == V9_SCOPE else f"{enterprise}.{element}"
        name, show = _KNOWN.get((enterprise, element), (number, bytes.hex))
        fields[name] = show(raw)
    return {
        "time_received": format_time(received),
        "device_addr": format_address(stream.device.address),
        "observation_domain": stream.domain,
        "source": stream.source.name.lower(),
        "template": template,
        "options": fields,
    }
