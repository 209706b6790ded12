"""A Docker engine as far as names need one: its HTTP API over a Unix socket.

Source: Docker Engine API 1.44: ``/version``, ``/containers/json``, ``/containers/{id}/json`` and
``/events``, with the fields and the chunked stream of the real one.
"""

from __future__ import annotations

import json
import queue
import re
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_VERSION = re.compile(r"/v1\.\d+")
_END = object()


class FakeEngine:
    """Containers that tests start and stop; a context manager."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.containers: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self._followers: list[queue.Queue[Any]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> FakeEngine:
        self.socket.unlink(missing_ok=True)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self.hang_up()
        self._thread.join()
        self._server.server_close()
        self.socket.unlink()

    @property
    def followers(self) -> int:
        """Streams of events that are open."""
        return len(self._followers)

    def hang_up(self) -> None:
        """End all streams of events, as a restart of the engine does."""
        for follower in list(self._followers):
            follower.put(_END)

    def run(
        self, name: str, *addresses: str, labels: dict[str, str] | None = None,
        image: str = "app:1", tell: bool = True,
    ) -> str:  # fmt: skip
        """Start a container with an address in each of as many networks; its id."""
        identity = f"{abs(hash(name)):064x}"[:64]
        networks = {
            f"net{number}": {
                "IPAddress": "" if ":" in address else address,
                "GlobalIPv6Address": address if ":" in address else "",
            }
            for number, address in enumerate(addresses)
        }
        self.containers[identity] = {
            "Id": identity, "Name": f"/{name}", "Image": image, "Labels": labels or {},
            "Networks": networks, "Running": True,
        }  # fmt: skip
        if tell:
            self.emit("container", "start", identity)
        return identity

    def kill(self, identity: str) -> None:
        """End a container; it stays listed among those that do not run."""
        self.containers[identity] |= {"Running": False, "Networks": {}}
        self.emit("container", "die", identity)

    def rename(self, identity: str, name: str) -> None:
        """Give a container another name."""
        self.containers[identity]["Name"] = f"/{name}"
        self.emit("container", "rename", identity)

    def connect(self, identity: str, address: str) -> None:
        """Add a container to one more network."""
        self.containers[identity]["Networks"]["late"] = {
            "IPAddress": address, "GlobalIPv6Address": "",
        }  # fmt: skip
        self.emit("network", "connect", identity)

    def remove(self, identity: str) -> None:
        """Remove a container."""
        del self.containers[identity]
        self.emit("container", "destroy", identity)

    def emit(self, kind: str, action: str, identity: str) -> None:
        """Tell all followers."""
        actor = (
            {"ID": "f" * 64, "Attributes": {"container": identity, "name": "late"}}
            if kind == "network"
            else {"ID": identity, "Attributes": {"name": "x"}}
        )
        event = {"Type": kind, "Action": action, "Actor": actor, "scope": "local", "time": 1}
        for follower in list(self._followers):
            follower.put(event)

    def follow(self) -> queue.Queue[Any]:
        follower: queue.Queue[Any] = queue.Queue()
        with self._lock:
            self._followers.append(follower)
        return follower

    def leave(self, follower: queue.Queue[Any]) -> None:
        with self._lock:
            self._followers.remove(follower)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        super().__init__(str(engine.socket), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        engine = self.server.engine
        url = urlsplit(_VERSION.sub("", self.path, count=1))
        engine.requests.append(url.path)
        if url.path == "/version":
            self._answer({"Version": "25.0.5", "ApiVersion": "1.44", "MinAPIVersion": "1.24"})
        elif url.path == "/containers/json":
            self._answer([_listed(c) for c in engine.containers.values() if c["Running"]])
        elif url.path == "/events":
            self._stream(json.loads(parse_qs(url.query)["filters"][0]))
        elif found := re.fullmatch(r"/containers/(\w+)/json", url.path):
            container = engine.containers.get(found[1])
            if container is None:
                self._answer({"message": f"No such container: {found[1]}"}, 404)
            else:
                self._answer(_inspected(container))
        else:
            self._answer({"message": "page not found"}, 404)

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, filters: dict[str, list[str]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        follower = self.server.engine.follow()
        self.close_connection = True
        try:
            while (event := follower.get()) is not _END:
                if event["Type"] in filters["type"] and event["Action"] in filters["event"]:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        finally:
            self.server.engine.leave(follower)


def _listed(container: dict[str, Any]) -> dict[str, Any]:
    return {
        "Id": container["Id"], "Names": [container["Name"]], "Image": container["Image"],
        "Labels": container["Labels"], "State": "running",
        "NetworkSettings": {"Networks": container["Networks"]},
    }  # fmt: skip


def _inspected(container: dict[str, Any]) -> dict[str, Any]:
    return {
        "Id": container["Id"], "Name": container["Name"], "Image": "sha256:0",
        "State": {"Running": container["Running"]},
        "Config": {"Image": container["Image"], "Labels": container["Labels"]},
        "NetworkSettings": {"Networks": container["Networks"]},
    }  # fmt: skip
