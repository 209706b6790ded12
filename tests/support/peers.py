"""Other people's collectors on free ports, run as children and ended by their process id."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.stack import free_port, until


def program(name: str) -> str:
    """The path of a Debian program.

    Raises:
        AssertionError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    packages = "nfdump openvswitch-switch pmacct softflowd tshark"
    assert found, f"{name} is not installed: apt-get install {packages}"
    return found


def free_udp_port() -> int:
    """A UDP port that nobody has on loopback."""
    return free_port(socket.SOCK_DGRAM)


def send(datagrams: Iterable[bytes], port: int, *, source: str = "127.0.0.1") -> None:
    """All datagrams to a port on loopback, slowly enough for anyone's buffer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for number, datagram in enumerate(datagrams):
            sender.sendto(datagram, ("127.0.0.1", port))
            if number % 50 == 49:
                time.sleep(0.005)


def udp_bound(port: int) -> bool:
    """Whether someone listens on this UDP port (IPv4)."""
    needle = f":{port:04X} "
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(needle in row.split(" rem_address")[0][:40] for row in rows)


def end(process: subprocess.Popen[Any], number: int = signal.SIGINT, seconds: float = 60.0) -> None:
    """End a child and its process group, at last by force."""
    if process.poll() is None:
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def started(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, its output in ``log``, surely ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            end(process)


def nfcapd_files(datagrams: Iterable[bytes], folder: Path) -> Path:
    """The folder of what nfcapd stores of these datagrams."""
    files = folder / "nfcapd"
    files.mkdir(parents=True)
    port = free_udp_port()
    argv = [program("nfcapd"), "-b", "127.0.0.1", "-p", str(port), "-w", str(files), "-t", "3600"]
    log = folder / "nfcapd.log"
    with started(argv, log) as process:
        until("nfcapd", 60, lambda: b"Startup" in log.read_bytes() and udp_bound(port))
        send(datagrams, port)
        until("nfcapd reads all", 60, lambda: queue_empty(port))
        time.sleep(0.1)
        end(process)
    return files


def nfcapd_records(datagrams: Iterable[bytes], folder: Path) -> list[dict[str, Any]]:
    """What nfcapd stores of these datagrams, as nfdump prints it in JSON."""
    files = nfcapd_files(datagrams, folder)
    printed = subprocess.run(
        [program("nfdump"), "-R", str(files), "-o", "json"],
        capture_output=True, check=True, text=True, env={"TZ": "UTC"},
    ).stdout  # fmt: skip
    records: list[dict[str, Any]] = json.loads(printed) if printed.strip() else []
    return records


def pmacct_totals(daemon: str, capture: Path, folder: Path) -> tuple[int, int, int]:
    """Bytes, packets and flows of a capture as nfacctd or sfacctd scales them by sampling."""
    folder.mkdir()
    output = folder / "flows.csv"
    settings = folder / "pmacct.conf"
    settings.write_text(
        f"""\
daemonize: false
{daemon}_renormalize: true
pcap_savefile: {capture}
plugins: print[all]
aggregate[all]: src_host, dst_host, src_port, dst_port, proto, timestamp_start
print_output[all]: csv
print_output_file[all]: {output}
print_refresh_time[all]: 60
"""
    )
    log = folder / "pmacct.log"
    with started([program(daemon), "-f", str(settings)], log) as process:
        process.wait(300)
    with output.open() as lines:
        rows = list(csv.DictReader(lines))
    return sum(int(r["BYTES"]) for r in rows), sum(int(r["PACKETS"]) for r in rows), len(rows)


def queue_empty(port: int) -> bool:
    """Whether the kernel holds nothing for this port any more."""
    for row in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = row.split()
        if int(fields[1].split(":")[1], 16) == port and int(fields[4].split(":")[1], 16):
            return False
    return True


def tshark_fields(
    capture: Path, fields: list[str], *, port: int, protocol: str, where: str = ""
) -> list[dict[str, list[str]]]:
    """For each frame the values of these fields as Wireshark's dissectors read them."""
    argv = [program("tshark"), "-r", str(capture), "-n", "-d", f"udp.port=={port},{protocol}"]
    argv += ["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]
    argv += ["-Y", where] if where else []
    for name in fields:
        argv += ["-e", name]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env={"TZ": "UTC"})
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    return [
        dict(
            zip(fields, [cell.split("|") if cell else [] for cell in line.split("\t")], strict=True)
        )
        for line in printed.splitlines()
    ]
