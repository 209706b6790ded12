"""Runs the store: engine, HTTP server, signals."""

from __future__ import annotations

import logging
import signal
import socket as sockets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvicorn

from exporter.listening import Connections, Listener, cannot_listen
from exporter.store.server.app import Options, Store
from exporter.store.server.confine import confine
from exporter.store.server.connection import Connection
from exporter.store.server.engine import Engine
from exporter.store.server.folder import Folder
from exporter.store.server.metrics import StoreMetrics
from exporter.store.server.users import READER, WRITER, Users

log = logging.getLogger(__name__)

#: All that may be open; half of them may be one host's, as dashboards of many people come from one.
_MAX_CONNECTIONS: Final = 512
_MAX_CONNECTIONS_OF_A_HOST: Final = 256


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens, and its certificate where it speaks TLS."""

    address: str = "127.0.0.1"
    port: int = 8123
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """All of ``flow-exporter store``."""

    data_dir: Path
    listen: Listen = field(default_factory=Listen)
    server_memory_bytes: int = 0
    options: Options = field(default_factory=Options)


def serve(options: StoreOptions) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs (for at most 20 seconds).

    Raises:
        StoreInUseError: another process has the data directory.
        OSError: it cannot be written, or the address is taken.
        EngineError: the engine does not start on this data.
    """
    listen = options.listen
    # Taking the address first tells a wrong one before the engine starts.
    connections = Connections("flow_store", total=_MAX_CONNECTIONS, each=_MAX_CONNECTIONS_OF_A_HOST)
    socket = Listener.of(_bind(listen), connections)
    with socket, Folder(options.data_dir) as folder:
        users = Users.of(folder.path)
        tls = _tls_context(listen)
        # Passwords and keys are read by now; the engine's threads come later.
        if not confine([folder.config, folder.data, folder.backups, folder.temporary]):
            log.warning(
                "this kernel cannot keep the store to its folder (Landlock, Linux 5.19 and newer): "
                "guards of statements alone keep its users from other files"
            )
        _serve(options, folder, users, socket, tls)


def _serve(
    options: StoreOptions,
    folder: Folder,
    users: Users,
    socket: Listener,
    tls: ssl.SSLContext | None,
) -> None:
    listen, connections = options.listen, socket.connections
    with Engine(folder, options.server_memory_bytes) as engine:
        metrics = StoreMetrics(
            lambda: engine.scalar("SELECT sum(bytes_on_disk) FROM system.parts WHERE active"),
            lambda: engine.version,
            lambda: engine.inserting.forgotten,
            connections,
        )
        store = Store(engine, users, options.options, metrics)
        config = uvicorn.Config(
            app=store,
            host=listen.address,
            port=listen.port,
            loop="asyncio",  # others do not ask the listener
            http=Connection,
            ws="none",
            ssl_context_factory=(lambda *_: tls) if tls else None,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
            timeout_keep_alive=75,
        )
        scheme = "https" if tls else "http"
        host, port = socket.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        server = uvicorn.Server(config)
        # Before the server minds signals itself, and when it raises them again at its end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        # From here on connections wait for the server instead of being refused.
        socket.listen(512)
        print(
            f"flow-exporter store: listening on {scheme}://{host}:{port}, "
            f"data in {folder.path}, engine {engine.version}, users {WRITER} and {READER}",
            flush=True,
        )
        try:
            server.run(sockets=[socket])
        finally:
            store.close()


def _tls_context(listen: Listen) -> ssl.SSLContext | None:
    if listen.certificate is None or listen.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(listen.certificate, listen.key)
    except OSError as error:  # ssl.SSLError is one
        raise OSError(f"{listen.certificate}, {listen.key}: {error}") from error
    return context


def _bind(listen: Listen) -> sockets.socket:
    family = sockets.AF_INET6 if ":" in listen.address else sockets.AF_INET
    # Naming TCP makes the event loop send small answers at once (TCP_NODELAY).
    socket = sockets.socket(family, sockets.SOCK_STREAM, sockets.IPPROTO_TCP)
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        socket.bind((listen.address, listen.port))
    except OSError as error:
        socket.close()
        raise OSError(cannot_listen(f"{listen.address}:{listen.port}", error)) from error
    return socket
