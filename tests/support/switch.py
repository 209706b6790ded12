"""A real Open vSwitch without kernel parts: a database and a switch as children of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers import program, started
from tests.support.stack import until

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@dataclass(frozen=True, slots=True)
class Switch:
    """Bridge ``br0`` with ports ``p1`` (ifIndex 101) and ``p2`` (ifIndex 102)."""

    folder: Path

    def configure(self, *arguments: str) -> None:
        """Run ``ovs-vsctl``."""
        self._run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=120", *arguments)

    def receive(self, port: str, packets: Sequence[bytes]) -> None:
        """Let packets come in at a port."""
        self._run(
            "ovs-appctl", "-t", f"{self.folder}/switch.ctl", "netdev-dummy/receive", port,
            *(packet.hex() for packet in packets),
        )  # fmt: skip

    @staticmethod
    def _run(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [program(name), *arguments], capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def running_switch(folder: Path) -> Iterator[Switch]:
    """Open vSwitch with its files and sockets in ``folder``, ended afterwards."""
    database = folder / "conf.db"
    subprocess.run([program("ovsdb-tool"), "create", str(database), _SCHEMA], check=True)
    server = [
        program("ovsdb-server"), str(database), f"--remote=punix:{folder}/db.sock",
        f"--unixctl={folder}/db.ctl",
    ]  # fmt: skip
    # OVS_RUNDIR is where the bridges' own sockets go.
    daemon = [
        "/usr/bin/env", f"OVS_RUNDIR={folder}", program("ovs-vswitchd"), f"unix:{folder}/db.sock",
        "--disable-system", "--enable-dummy=override", f"--unixctl={folder}/switch.ctl",
    ]  # fmt: skip
    switch = Switch(folder)
    with started(server, folder / "db.log"):
        until("ovsdb-server", 60, (folder / "db.sock").exists)
        switch.configure("--no-wait", "init")
        with started(daemon, folder / "switch.log"):
            switch.configure(
                "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy",
                "--", "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy",
                "options:ifindex=101", "--", "add-port", "br0", "p2",
                "--", "set", "interface", "p2", "type=dummy", "options:ifindex=102",
            )  # fmt: skip
            yield switch
