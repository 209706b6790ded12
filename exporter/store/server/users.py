"""The store's two users, their passwords, and who a request claims to be."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.store.server.errors import QueryError

WRITER: Final = "flow_writer"
READER: Final = "flow_reader"

_ENVIRONMENT: Final = {
    WRITER: "FLOW_STORE_WRITER_PASSWORD",
    READER: "FLOW_STORE_READER_PASSWORD",
}
_FILES: Final = {WRITER: "writer.password", READER: "reader.password"}


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. ``read_only`` users cannot change anything, settings included."""

    name: str
    password: str

    @property
    def read_only(self) -> bool:
        return self.name == READER

    def __repr__(self) -> str:
        return f"User({self.name!r})"


class Users:
    """The users by name; compares passwords in constant time."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._users = {name: User(name, password) for name, password in passwords.items()}
        self._nobody = User("", secrets.token_urlsafe(24))

    @classmethod
    def of(cls, data_dir: Path) -> Users:
        """Passwords from the environment, else from files in ``data_dir``, else made there.

        ``FLOW_STORE_WRITER_PASSWORD`` and ``FLOW_STORE_READER_PASSWORD``; the files are
        ``writer.password`` and ``reader.password``, readable by their owner only.

        Raises:
            OSError: a file can be neither read nor made.
        """
        return cls({name: _password(data_dir, name) for name in _FILES})

    def authenticate(self, headers: Mapping[str, str], parameters: Mapping[str, str]) -> User:
        """The user whom ``X-ClickHouse-User``, Basic auth or URL parameters name.

        Raises:
            QueryError: 516, without telling whether name or password is wrong.
        """
        name, password = _credentials(headers, parameters)
        user = self._users.get(name, self._nobody)
        same = hmac.compare_digest(user.password.encode(), password.encode())
        if not same or user is self._nobody:
            raise QueryError(
                516,
                "AUTHENTICATION_FAILED",
                f"{name}: Authentication failed: password is incorrect, "
                "or there is no user with such name.",
            )
        return user


def _password(data_dir: Path, user: str) -> str:
    given = os.environ.get(_ENVIRONMENT[user])
    if given:
        return given
    path = data_dir / _FILES[user]
    try:
        found = path.read_text(encoding="utf-8").strip()
        if found:
            return found
        path.unlink()
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(made + "\n")
    return made


def _credentials(headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str, str]:
    name = headers.get("x-clickhouse-user")
    if name is not None:
        return name, headers.get("x-clickhouse-key", "")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password
    return parameters.get("user", "default"), parameters.get("password", "")
