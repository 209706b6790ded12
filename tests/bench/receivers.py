"""Who is measured: our receiver and decoders, the whole collector, nfcapd, nfacctd, sfacctd.

Each listens on a free port, of loopback unless told otherwise, with the same socket buffer.
``finish`` ends it and says how many flows came out at its other end; what is missing there was lost
somewhere inside.
"""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.peers import end, free_udp_port, program, udp_bound
from tests.support.stack import until
from tests.support.store import RunningStore

ROOT = Path(__file__).parents[2]


@dataclass
class Receiver:
    """A running receiver: its port, its processes (the children count with them), its end."""

    port: int
    processes: tuple[int, ...]
    finish: Callable[[], int]


Starter = Callable[[Path], AbstractContextManager[Receiver]]


LOOPBACK = "127.0.0.1"
#: Socket buffer that everyone asks for. The kernel gives it to a process with CAP_NET_ADMIN that
#: insists, as ours does; the others get at most net.core.rmem_max.
BUFFER_BYTES = 64 << 20


@contextmanager
def _started(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        try:
            yield process
        finally:
            end(process)


@contextmanager
def ours(folder: Path, address: str = LOOPBACK) -> Iterator[Receiver]:
    """Receive and decode, the flows dropped: what nfcapd does short of its file."""
    port = free_udp_port()
    log = folder / "ours.log"
    argv = [sys.executable, "-m", "tests.bench.ours", "receive"]
    argv += [address, str(port), str(BUFFER_BYTES)]
    with _started(argv, log) as process:
        until("our receiver", 30, lambda: b"ready" in log.read_bytes())

        def finish() -> int:
            end(process, signal.SIGTERM, 20)
            return int(json.loads(log.read_text().splitlines()[-1])["flows"])

        yield Receiver(port, (process.pid,), finish)


@contextmanager
def collector(
    folder: Path, sections: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[Receiver]:
    """``flow-exporter run`` writing to ``flow-exporter store``: both processes are counted.

    ``sections`` are settings beside those that it needs.
    """
    port = free_udp_port()
    log = folder / "run.log"
    with ExitStack() as stack:
        store = stack.enter_context(RunningStore(folder / "store"))
        settings: dict[str, dict[str, object]] = {
            "receive": {"udp": [{"port": port}], "socket_buffer_bytes": BUFFER_BYTES},
            "clickhouse": {"url": store.url, "user": "flow_writer",
                           "password_file": str(folder / "store" / "writer.password")},
            "http": {"port": 0},
        }  # fmt: skip
        for name, section in (sections or {}).items():
            settings[name] = {**settings.get(name, {}), **section}
        file = folder / "flow-exporter.yaml"
        file.write_text(yaml.safe_dump(settings))
        argv = [sys.executable, "-m", "exporter", "run", "--migrate", "--config", str(file)]
        process = stack.enter_context(_started(argv, log))
        until("the collector", 60, lambda: process.poll() is not None or udp_bound(port))
        assert process.poll() is None, log.read_text()

        def finish() -> int:
            end(process, signal.SIGTERM, 60)
            with store.client() as client:
                return int(str(client.command("SELECT count() FROM flow.flows")))

        yield Receiver(port, (process.pid, store.pid), finish)


def nfcapd(*options: str, address: str = LOOPBACK) -> Starter:
    """nfcapd, which stores its files on disk; ``-y`` compresses them with LZ4."""

    @contextmanager
    def run(folder: Path) -> Iterator[Receiver]:
        port = free_udp_port()
        log = folder / "nfcapd.log"
        files = folder / "nfcapd"
        files.mkdir()
        argv = [program("nfcapd"), "-b", address, "-p", str(port), "-w", str(files)]
        argv += ["-t", "3600", "-B", str(BUFFER_BYTES), *options]
        with _started(argv, log) as process:
            until("nfcapd", 60, lambda: b"Startup" in log.read_bytes() and udp_bound(port))

            def finish() -> int:
                end(process, signal.SIGTERM, 20)
                counts = re.findall(rb"Flows: (\d+),", log.read_bytes())
                return sum(map(int, counts))

            yield Receiver(port, (process.pid,), finish)

    return run


#: What pmacct is told to write of a flow: all that we make columns of, as far as it has primitives.
_PRIMITIVES = (
    "src_host, dst_host, src_port, dst_port, proto, tos, tcpflags, etype, vlan, src_as, dst_as, "
    "src_mask, dst_mask, in_iface, out_iface, peer_src_ip, peer_dst_ip, sampling_rate, "
    "timestamp_start, timestamp_end, timestamp_arrival, export_proto_version, export_proto_sysid"
)
_SFLOW_PRIMITIVES = "src_mac, dst_mac"
#: The last three are elements of the workloads that have no primitive, by number.
_NETFLOW_PRIMITIVES = "sampling_direction, forwarding_status, icmp, dst_vlan"
_NETFLOW_ELEMENTS = """\
name=forwarding_status field_type=89 len=1 semantics=u_int
name=icmp field_type=32 len=2 semantics=u_int
name=dst_vlan field_type=59 len=2 semantics=u_int
"""


def pmacct(daemon: str) -> Starter:
    """nfacctd (or sfacctd for sFlow) writing each flow as a line of CSV, all fields of it."""

    @contextmanager
    def run(folder: Path) -> Iterator[Receiver]:
        port = free_udp_port()
        log = folder / "pmacct.log"
        output = folder / "flows.csv"
        settings = folder / "pmacct.conf"
        netflow = daemon == "nfacctd"
        primitives = f"{_PRIMITIVES}, {_NETFLOW_PRIMITIVES if netflow else _SFLOW_PRIMITIVES}"
        elements = folder / "elements.lst"
        elements.write_text(_NETFLOW_ELEMENTS if netflow else "")
        settings.write_text(
            f"""\
daemonize: false
{daemon}_ip: 127.0.0.1
{daemon}_port: {port}
{daemon}_pipe_size: {BUFFER_BYTES}
plugins: print[all]
plugin_pipe_size: 268435456
plugin_buffer_size: 1048576
aggregate_primitives: {elements}
aggregate[all]: {primitives}
use_ip_next_hop: true
print_output[all]: csv
print_output_file[all]: {output}
print_output_file_append[all]: true
print_refresh_time[all]: 2
"""
        )
        argv = [program(daemon), "-f", str(settings)]
        with _started(argv, log) as process:
            until(daemon, 60, lambda: b"cache entries" in log.read_bytes() and udp_bound(port))
            time.sleep(1.0)

            def finish() -> int:
                deadline = time.monotonic() + 20
                while process.poll() is None and time.monotonic() < deadline:
                    process.send_signal(signal.SIGINT)
                    time.sleep(0.5)
                if not output.exists():
                    return 0
                with output.open(newline="") as lines:
                    header = next(csv.reader(lines))
                    return sum(1 for row in csv.reader(lines) if row and row != header)

            yield Receiver(port, (process.pid,), finish)

    return run
