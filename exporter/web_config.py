"""TLS and access control in the format of Prometheus' web configuration file.

Source: prometheus/exporter-toolkit, ``docs/web-configuration.md``. Settings that Python's TLS
cannot honour (lists of curves and cipher suites, demanding a client certificate without checking
it) are refused rather than passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
import threading
from pathlib import Path
from typing import Literal, Self

import bcrypt
from pydantic import Field, field_validator, model_validator

from exporter.config import ConfigError, FileName, Section, load_yaml
from exporter.config.load import check_regular

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1\d)\$[./A-Za-z0-9]{53}")
_REMEMBERED_LOGINS = 100
#: What unknown users are compared with, so that they take as long as known ones.
_NOBODY = b"$2b$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

TlsVersion = Literal["TLS12", "TLS13"]


class TlsServerConfig(Section):
    """``tls_server_config``: the server's certificate, and what clients must show."""

    cert_file: FileName = Field(description="Certificate chain, PEM.")
    key_file: FileName = Field(description="Private key, PEM.")
    client_auth_type: Literal[
        "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = Field("NoClientCert", description="Whether clients need a certificate.")
    client_ca_file: FileName = Field("", description="CA of the clients' certificates, PEM.")
    min_version: TlsVersion = Field("TLS12", description="Oldest TLS that is spoken.")
    max_version: TlsVersion = Field("TLS13", description="Newest TLS that is spoken.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.client_auth_type == "NoClientCert") == bool(self.client_ca_file):
            raise ValueError("client_ca_file and a client_auth_type that verifies go together")
        if self.min_version > self.max_version:
            raise ValueError("min_version is newer than max_version")
        return self


class HttpServerConfig(Section):
    """``http_server_config``: headers of every answer."""

    http2: bool = Field(True, description="Accepted for compatibility: HTTP/1.1 is spoken.")
    headers: dict[str, str] = Field(default_factory=dict, description="Security headers.")

    @field_validator("headers")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name not in _HEADERS:
                raise ValueError(f"header {name!r} is none of {', '.join(_HEADERS)}")
            if not (text.isascii() and text.isprintable()):
                raise ValueError(f"header {name!r} has characters that a header cannot carry")
        return value


class WebConfig(Section):
    """A whole web configuration file."""

    tls_server_config: TlsServerConfig | None = Field(None, description="TLS; plain without it.")
    http_server_config: HttpServerConfig = Field(HttpServerConfig(), description="Answers.")
    basic_auth_users: dict[str, str] = Field(
        default_factory=dict, description="bcrypt hashes of the passwords by user."
    )

    @field_validator("basic_auth_users")
    @classmethod
    def _hashed(cls, value: dict[str, str]) -> dict[str, str]:
        for user, hashed in value.items():
            if not _BCRYPT.fullmatch(hashed):
                raise ValueError(f"the password of user {user!r} is no bcrypt hash")
        return value


def load_web_config(path: str) -> WebConfig:
    """The web configuration in ``path``, or one without TLS and users when that is empty.

    Raises:
        ConfigError: the file cannot be read or is wrong.
    """
    return load_yaml(Path(path), WebConfig) if path else WebConfig()


def tls_context(settings: TlsServerConfig) -> ssl.SSLContext:
    """What a server needs to speak TLS.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.maximum_version = _VERSIONS[settings.max_version]
    context.verify_mode = {
        "NoClientCert": ssl.CERT_NONE,
        "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
        "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
    }[settings.client_auth_type]
    try:
        for name in (settings.cert_file, settings.key_file):
            check_regular(Path(name))
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{settings.cert_file}, {settings.key_file}: {error}") from error
    if settings.client_ca_file:
        try:
            check_regular(Path(settings.client_ca_file))
            context.load_verify_locations(settings.client_ca_file)
        except OSError as error:
            raise ConfigError(f"{settings.client_ca_file}: {error}") from error
    return context


class Access:
    """Who may ask: decides by the ``Authorization`` header. Thread-safe.

    Of the users of ``before`` those whose passwords have not changed are known already.
    """

    def __init__(self, users: dict[str, str], before: Access | None = None) -> None:
        self._users = {user: hashed.encode() for user, hashed in users.items()}
        #: Logins that were right, with the hash of the password; of wrong ones there is no end.
        self._remembered: dict[bytes, None] = {}
        self._lock = threading.Lock()
        if before is not None:
            with before._lock:
                self._remembered.update(before._remembered)

    @property
    def is_open(self) -> bool:
        """Whether everybody may."""
        return not self._users

    def known(self, authorization: str) -> bool | None:
        """Whether the header's bearer may ask; ``None``: only checking the password can tell."""
        if self.is_open:
            return True
        login = _login(authorization)
        if login is None:
            return False
        return True if self._digest(*login) in self._remembered else None

    def allows(self, authorization: str) -> bool:
        """Whether the header carries a user's name and password.

        Checking a password takes tens of milliseconds: not for an event loop.
        """
        login = _login(authorization)
        if self.is_open or login is None:
            return self.is_open
        user, password = login
        # bcrypt takes 72 bytes; Prometheus cuts the rest off.
        right = (
            bcrypt.checkpw(password[:72], self._users.get(user, _NOBODY)) and user in self._users
        )
        if right:
            with self._lock:
                if len(self._remembered) >= _REMEMBERED_LOGINS:
                    self._remembered.pop(next(iter(self._remembered)))
                self._remembered[self._digest(user, password)] = None
        return right

    def _digest(self, user: str, password: bytes) -> bytes:
        hashed = self._users.get(user, _NOBODY)
        return hashlib.sha256(b"\0".join((user.encode(), hashed, password))).digest()


def _login(authorization: str) -> tuple[str, bytes] | None:
    """User and password of a header, where it has some that bcrypt can compare."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, _, password = decoded.partition(":")
    return None if "\0" in password else (user, password.encode())
