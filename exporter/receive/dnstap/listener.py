"""Listening sockets of the dnstap receiver."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from exporter.config.dns import DnstapListener
from exporter.listening import cannot_listen
from exporter.receive.udp import ReceiveError

_BACKLOG: Final = 64


class Listener:
    """One listening socket, not blocking; ``name`` tells where.

    A unix socket that nobody listens on any more is replaced.

    Raises:
        ReceiveError: it cannot be listened there.
    """

    def __init__(self, settings: DnstapListener) -> None:
        self._path = Path(settings.socket) if settings.socket else None
        if self._path is not None:
            self.name = str(self._path)
            self.port = 0
            self.socket = _open_unix(self._path, int(settings.mode, 8))
        else:
            self.socket = _open_tcp(settings)
            self.port = int(self.socket.getsockname()[1])
            host = f"[{settings.address}]" if ":" in settings.address else settings.address
            self.name = f"{host}:{self.port}"

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _open_unix(path: Path, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        mask = os.umask(0o777 & ~mode)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
        path.chmod(mode)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            why += f": the folder {path.parent} is not there"
        raise ReceiveError(f"cannot listen on {path}: {why}") from error
    return listening


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone.

    Raises:
        OSError: it is something else, or somebody listens there.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(None, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise FileExistsError(None, "another process listens there")


def _open_tcp(settings: DnstapListener) -> socket.socket:
    where = f"{settings.address} port {settings.port}/tcp"
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.address, settings.port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ReceiveError(cannot_listen(where, error)) from error
    return listening
