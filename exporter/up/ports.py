"""Ports that others may have taken already."""

from __future__ import annotations

import socket


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a TCP server can listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def pick(preferred: int, taken: set[int]) -> int:
    """``preferred`` if it is free, else the next free one; what is picked goes into ``taken``.

    Raises:
        OSError: none of the next hundred is free.
    """
    for port in range(preferred, preferred + 100):
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    raise OSError(f"no free TCP port from {preferred} to {preferred + 99} on 127.0.0.1")
