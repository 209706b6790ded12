"""Interfaces of one device by SNMP, version 2c or 3. Needs the extra ``snmp``.

Sources: IF-MIB (RFC 2863) for the objects, RFC 3416 for GETBULK, RFC 3414, 3826 and 7860 for the
security of version 3. AES with 192 and 256 bits is no standard; devices speak Reeder's variant.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from pysnmp.hlapi.v3arch import asyncio as snmp
from pysnmp.proto.rfc1905 import EndOfMibView

from exporter.config import Snmp, SnmpAccess, read_secret
from exporter.enrich.learned_interfaces import LearnedInterface

_IF_NAME: Final = (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1)
_IF_ALIAS: Final = (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18)
_IF_HIGH_SPEED: Final = (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15)
#: For devices without the extended table.
_IF_DESCR: Final = (1, 3, 6, 1, 2, 1, 2, 2, 1, 2)

#: Rows in one answer: 25 fit into a datagram that no network cuts.
_ROWS: Final = 25
_MAX_INTERFACES: Final = 20_000
_MAX_TEXT: Final = 255

_AUTH: Final = {
    "md5": snmp.USM_AUTH_HMAC96_MD5,
    "sha": snmp.USM_AUTH_HMAC96_SHA,
    "sha224": snmp.USM_AUTH_HMAC128_SHA224,
    "sha256": snmp.USM_AUTH_HMAC192_SHA256,
    "sha384": snmp.USM_AUTH_HMAC256_SHA384,
    "sha512": snmp.USM_AUTH_HMAC384_SHA512,
}
_PRIV: Final = {
    "des": snmp.USM_PRIV_CBC56_DES,
    "aes": snmp.USM_PRIV_CFB128_AES,
    "aes192": snmp.USM_PRIV_CFB192_AES,
    "aes256": snmp.USM_PRIV_CFB256_AES,
}


class SnmpError(Exception):
    """A device did not answer, or not as it should."""


class Walker:
    """Asks devices with one access. For one event loop, in which :meth:`close` ends it."""

    def __init__(self, access: SnmpAccess, settings: Snmp) -> None:
        """Reads the secrets.

        Raises:
            ConfigError: a file cannot be read.
        """
        self._access = access
        self._settings = settings
        self.secrets = secrets(access)
        self._engine = snmp.SnmpEngine()
        self._auth = _auth_data(access, self.secrets)

    def close(self) -> None:
        """Close the sockets."""
        self._engine.close_dispatcher()

    async def interfaces(self, address: str) -> Mapping[int, LearnedInterface]:
        """All interfaces of the device, by ifIndex.

        Raises:
            SnmpError: it does not answer or refuses; nothing is known then.
        """
        kind = (
            snmp.Udp6TransportTarget
            if ipaddress.ip_address(address).version == 6
            else snmp.UdpTransportTarget
        )
        target = await kind.create(
            (address, self._access.port),
            timeout=self._settings.timeout_seconds,
            retries=self._settings.retries,
        )
        names = {index: _text(value) async for index, value in self._column(target, _IF_NAME)}
        if not names:
            names = {index: _text(value) async for index, value in self._column(target, _IF_DESCR)}
        aliases = {index: _text(value) async for index, value in self._column(target, _IF_ALIAS)}
        speeds = {i: _number(value) async for i, value in self._column(target, _IF_HIGH_SPEED)}
        return {
            index: LearnedInterface(name, aliases.get(index, ""), speeds.get(index, 0) * 1_000_000)
            for index, name in names.items()
        }

    async def _column(self, target: Any, column: tuple[int, ...]) -> AsyncIterator[tuple[int, Any]]:
        """Index and value of each row, one request after the other."""
        at = column
        for _ in range(_MAX_INTERFACES // _ROWS):
            row = snmp.ObjectType(snmp.ObjectIdentity(at))
            error, status, _, answers = await snmp.bulk_cmd(
                self._engine, self._auth, target, snmp.ContextData(), 0, _ROWS, row, lookupMib=False
            )
            if error or status:
                raise SnmpError(str(error or status))
            for name, value in answers:
                place = tuple(name)
                inside = place[:-1] == column and not isinstance(value, EndOfMibView)
                if not inside or place <= at:  # a device that goes round in circles is left
                    return
                at = place
                yield place[-1], value
            if not answers:
                return
            await asyncio.sleep(0)


def secrets(access: SnmpAccess) -> tuple[str, str, str]:
    """Community, passwords to sign and to encrypt with; empty where there are none.

    Raises:
        ConfigError: a file cannot be read.
    """
    community, auth, priv = (read_secret(file, "") if file else "" for file in access.secret_files)
    return community, auth, priv


def _auth_data(access: SnmpAccess, known: tuple[str, str, str]) -> Any:
    community, auth, priv = known
    if access.version == "2c":
        return snmp.CommunityData(community, mpModel=1)  # noqa: S508  # asked for
    return snmp.UsmUserData(
        access.user,
        authKey=auth or None,
        privKey=priv or None,
        authProtocol=_AUTH[access.auth_protocol] if auth else snmp.USM_AUTH_NONE,
        privProtocol=_PRIV[access.priv_protocol] if priv else snmp.USM_PRIV_NONE,
    )


def _text(value: Any) -> str:
    if not isinstance(value, snmp.OctetString):  # a number would become as many octets
        raise SnmpError(f"a name of type {type(value).__name__}")
    return bytes(value).decode("utf-8", "replace").strip()[:_MAX_TEXT]


def _number(value: Any) -> int:
    if not isinstance(value, snmp.Gauge32):
        raise SnmpError(f"a speed of type {type(value).__name__}")
    return int(value)
