"""Our receiver and decoders alone, as processes to be measured.

``python -m tests.bench.ours receive ADDRESS PORT SOCKET_BUFFER_BYTES`` receives and decodes until
SIGTERM, then prints what it decoded. ``python -m tests.bench.ours decode FILE`` decodes the
datagrams of a file from memory, in batches like the receiver's, and prints the CPU seconds that it
took.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from exporter.config import Config, Receive, UdpListener
from exporter.decode import Decoder
from exporter.memory import keep_freed_memory
from exporter.receive.datagrams import DatagramBatch
from exporter.receive.udp import BATCH_DATAGRAMS, open_receivers


def receive(address: str, port: int, buffer_bytes: int) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    listener = UdpListener(address=address, port=port)
    settings = Receive(udp=[listener], socket_buffer_bytes=buffer_bytes)
    decoder = Decoder(Config().decode, [])
    flows = octets = 0
    with open_receivers(settings) as receivers:
        print("ready", flush=True)
        for datagrams in receivers.batches(stop):
            for batch in decoder.decode(datagrams):
                flows += len(batch)
                octets += int(batch.array("bytes").sum())
    print(json.dumps({"flows": flows, "bytes": octets}), flush=True)


def decode(path: Path) -> None:
    with np.load(path) as saved:
        flat = memoryview(saved["payload"].tobytes())
        ends = np.cumsum(saved["lengths"])
        senders = saved["senders"]
        now = int(saved["now"])
    starts = np.concatenate([[0], ends[:-1]])
    payloads = [flat[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    addresses = np.zeros((len(payloads), 16), np.uint8)
    addresses[:, 10:12] = 255
    addresses[:, 12:15] = (127, 0, 1)
    addresses[:, 15] = senders + 1
    batches = [
        DatagramBatch.of(
            payloads[at : at + BATCH_DATAGRAMS],
            addresses[at : at + BATCH_DATAGRAMS],
            np.full(len(payloads[at : at + BATCH_DATAGRAMS]), 40000, np.uint16),
            np.full(len(payloads[at : at + BATCH_DATAGRAMS]), now, np.int64),
        )
        for at in range(0, len(payloads), BATCH_DATAGRAMS)
    ]
    # First uses (imports, caches) are over when measuring begins, as in a running collector.
    Decoder(Config().decode, []).decode(batches[0])
    decoder = Decoder(Config().decode, [])
    flows = octets = 0
    begin = time.process_time()
    for datagrams in batches:
        for batch in decoder.decode(datagrams):
            flows += len(batch)
            octets += int(batch.array("bytes").sum())
    seconds = time.process_time() - begin
    print(json.dumps({"flows": flows, "bytes": octets, "seconds": seconds}))


if __name__ == "__main__":
    keep_freed_memory()  # as `flow-exporter run` does
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        decode(Path(sys.argv[2]))
