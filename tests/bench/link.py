"""A link between two network namespaces whose receiving interface coalesces bursts (GRO).

On loopback every datagram goes to the receiver by itself. Network cards wait for some microseconds
before they interrupt, and the kernel joins what they bring; a veth pair with GRO does the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Way

#: How long the interface waits for more of a burst, in nanoseconds: as network cards do.
WAIT_NANOSECONDS = 50_000
#: Addresses of senders, one for each device.
_DEVICES = 16

_SIOCETHTOOL = 0x8946
_ETHTOOL_STSO = 0x1F
_ETHTOOL_SGRO = 0x2C


class LinkError(Exception):
    """Why there can be no such link here."""


def why_not() -> str:
    """Why there can be no such link here; nothing where there can."""
    try:
        with coalescing():
            return ""
    except LinkError as error:
        return str(error)


@contextmanager
def coalescing() -> Iterator[Way]:
    """The way over such a link; within the context this thread is where the packets arrive.

    Raises:
        LinkError: it cannot be made: it takes root, or CAP_NET_ADMIN and CAP_SYS_ADMIN.
    """
    near, far = (f"flow-bench-{os.getpid()}-{end}" for end in ("receiver", "sender"))
    try:
        _ip("netns", "add", near)
        _ip("netns", "add", far)
        _ip("-n", near, "link", "add", "veth0", "type", "veth",
            "peer", "name", "veth0", "netns", far)  # fmt: skip
        _ip("-n", near, "addr", "add", "10.99.0.1/16", "dev", "veth0")
        for number in range(_DEVICES):
            _ip("-n", far, "addr", "add", f"10.99.1.{number + 1}/16", "dev", "veth0")
        # What a veth with segmentation offload sends goes past the other end's GRO.
        with _within(far):
            _ethtool("veth0", _ETHTOOL_STSO, 0)
        for name in (near, far):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "veth0", "up")
        with _within(near):
            _ethtool("veth0", _ETHTOOL_SGRO, 1)
            # The kernel's work on what arrives gets a thread of its own, so that it does not count
            # for whoever runs at that moment. (sysfs tells of the namespace it was mounted in.)
            settings = {"gro_flush_timeout": WAIT_NANOSECONDS, "threaded": 1}
            for name, value in settings.items():
                _run("ip", "netns", "exec", near, "sh", "-c",
                     f"echo {value} > /sys/class/net/veth0/{name}")  # fmt: skip
            yield Way("10.99.0.1", "10.99.1", ("ip", "netns", "exec", far))
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*argv: str) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LinkError(f"{argv[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise LinkError(f"{' '.join(argv)}: {error.stderr.strip()}") from error


@contextmanager
def _within(namespace: str) -> Iterator[None]:
    """This thread, and what it starts, are in a network namespace."""
    with Path("/proc/thread-self/ns/net").open() as before:
        with Path("/run/netns", namespace).open() as there:
            _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(namespace: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, 0):
        raise LinkError(f"setns: {os.strerror(ctypes.get_errno())}")


def _ethtool(device: str, command: int, value: int) -> None:
    """Set one feature of a device of this namespace."""
    told = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(told))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise LinkError(f"{device} does not coalesce: {error.strerror}") from error
