"""Real resolvers on loopback, answering from a small zone and telling of it by dnstap."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import dns.rcode

from tests.support.programs import end, program
from tests.support.stack import free_port, until

ZONE = """\
$TTL 60
@ IN SOA ns.example. admin.example. 1 3600 600 86400 60
@ IN NS ns.example.
ns IN A 127.0.0.1
registry IN CNAME edge.cdn
edge.cdn IN A 192.0.2.10
edge.cdn IN A 192.0.2.11
edge.cdn IN AAAA 2001:db8::10
eu1.pool IN A 198.51.100.7
us1.pool IN A 198.51.100.8
"""

_REVERSE = """\
$TTL 60
@ IN SOA ns.example. admin.example. 1 3600 600 86400 60
@ IN NS ns.example.
5.2.1.10.in-addr.arpa. IN PTR Printer.Office.Example.
"""


@dataclass(frozen=True, slots=True)
class Resolver:
    """One that runs, on ``127.0.0.1:port``."""

    port: int
    log: Path

    def ask(self, name: str, kind: str = "A", client: str = "127.0.0.1") -> dns.message.Message:
        """Ask as ``client``, an address of this machine."""
        query = dns.message.make_query(name, kind)
        return dns.query.udp(query, "127.0.0.1", port=self.port, source=client, timeout=60)


@contextlib.contextmanager
def unbound(
    folder: Path,
    *,
    path: Path | None = None,
    port: int | None = None,
    bidirectional: bool = True,
    identity: str = "unbound-1",
) -> Iterator[Resolver]:
    """unbound that sends dnstap to the unix socket ``path`` or the TCP ``port``, or to nobody."""
    listen = _port()
    folder.mkdir(exist_ok=True)
    zone, reverse = _zones(folder)
    where = f'dnstap-socket-path: "{path}"' if path else f'dnstap-ip: "127.0.0.1@{port}"'
    tap = f"""
dnstap:
  dnstap-enable: yes
  dnstap-bidirectional: {"yes" if bidirectional else "no"}
  {where}
  dnstap-tls: no
  dnstap-send-identity: yes
  dnstap-identity: "{identity}"
  dnstap-log-client-query-messages: yes
  dnstap-log-client-response-messages: yes
"""
    config = folder / "unbound.conf"
    config.write_text(
        f"""\
server:
  interface: 127.0.0.1@{listen}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  logfile: ""
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "10.in-addr.arpa." nodefault
  local-zone: "silent.example." deny
auth-zone:
  name: "example."
  zonefile: "{zone}"
  for-downstream: yes
  for-upstream: yes
auth-zone:
  name: "10.in-addr.arpa."
  zonefile: "{reverse}"
  for-downstream: yes
  for-upstream: yes
remote-control:
  control-enable: no
{tap if path or port else ""}
"""
    )
    with _running([program("unbound"), "-d", "-c", str(config)], folder, listen) as resolver:
        yield resolver


@contextlib.contextmanager
def named(folder: Path, *, path: Path, identity: str = "bind-1") -> Iterator[Resolver]:
    """BIND that sends dnstap to the unix socket ``path``, the only kind that it knows."""
    listen = _port()
    folder.mkdir(exist_ok=True)
    zone, _ = _zones(folder)
    config = folder / "named.conf"
    config.write_text(
        f"""\
options {{
  directory "{folder}";
  listen-on port {listen} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file none;
  session-keyfile none;
  recursion yes;
  allow-query {{ 127.0.0.0/8; }};
  dnssec-validation no;
  dnstap {{ client; }};
  dnstap-output unix "{path}";
  dnstap-identity "{identity}";
}};
controls {{ }};
zone "example" {{ type primary; file "{zone}"; }};
"""
    )
    with _running([program("named"), "-g", "-c", str(config)], folder, listen) as resolver:
        yield resolver


def _port() -> int:
    """Free for UDP and for TCP, which resolvers want both."""
    while True:
        port = free_port(socket.SOCK_DGRAM)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _zones(folder: Path) -> tuple[Path, Path]:
    files = folder / "example.zone", folder / "reverse.zone"
    for file, text in zip(files, (ZONE, _REVERSE), strict=True):
        file.write_text(text)
    return files


@contextlib.contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[Resolver]:
    log = folder / "resolver.log"
    resolver = Resolver(port, log)
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return _ready(resolver)
        except (dns.exception.Timeout, OSError):
            return False

    try:
        until("answer of the resolver", 30, answers)
        yield resolver
    finally:
        end(process)


def _ready(resolver: Resolver) -> bool:
    query = dns.message.make_query("ns.example", "A")
    answer = dns.query.udp(query, "127.0.0.1", port=resolver.port, timeout=1)
    return bool(answer.rcode() == dns.rcode.NOERROR)
