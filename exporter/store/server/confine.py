"""Keeps this process, and with it the engine, to the folders that it needs: Linux' Landlock.

Rights and guards close what is known to reach files, servers and commands. This closes the rest,
such as a function of a later engine: no statement can open a file elsewhere, start a program, or
make a TCP connection. Of what the process may read beside its folders (Python, facts of the
machine and of its threads) nothing is secret: the folder's own passwords are not among it, and the
environment is overwritten where the kernel shows it.

Source: Linux, ``Documentation/userspace-api/landlock.rst`` and ``include/uapi/linux/landlock.h``.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import exporter

#: The same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
#: Where the environment begins, of the fields of ``/proc/self/stat`` behind the name; then its end.
_ENV_START: Final = 47

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
#: Rights by the first version that has them; from the second on files may move between folders,
#: which the engine does.
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_OLDEST: Final = 2
#: Binding and connecting over TCP; the store's socket is bound before.
_NET_RIGHTS: Final = {4: 0b11}
#: Of the rights those that a file can have.
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15

#: What the engine and Python look up while they run. Each of the engine's threads reads its own
#: times as it is given work; refused, it throws and unwinds twice: a quarter of a small insert.
_FACTS: Final = (
    "/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/etc/localtime", "/lib", "/lib64",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/self/auxv", "/proc/self/maps", "/proc/self/stat",
    "/proc/self/statm", "/proc/self/status", "/proc/self/task", "/proc/stat",
    "/proc/sys/vm/overcommit_memory", "/sys", "/usr/lib", "/usr/share/zoneinfo",
)  # fmt: skip


def confine(folders: Iterable[Path]) -> bool:
    """From here on this thread, and those that it starts, write in ``folders`` only.

    They must exist. Returns whether the kernel does that (Linux 5.19 and newer, where Landlock is
    switched on); nothing has changed otherwise.

    Raises:
        OSError: it began to, and failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    if version < _OLDEST:
        return False
    rights = _of(_FILE_RIGHTS, version)
    attributes = struct.pack("=QQ", rights, _of(_NET_RIGHTS, version))
    size = len(attributes) if version >= min(_NET_RIGHTS) else 8
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    try:
        for folder in folders:
            _allow(libc, ruleset, folder, rights & ~_EXECUTE)
        for path in [*_code(), *map(Path, _FACTS)]:
            if path.exists():
                _allow(libc, ruleset, path, _READ_FILE | _READ_DIR)
        _hide_environment()
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _hide_environment() -> None:
    """Overwrite the environment that ``/proc/self/task/*/environ`` shows; variables stay set."""
    for name, value in os.environb.items():
        os.putenv(name, value)  # libc copies it elsewhere
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    begin, end = map(int, fields[_ENV_START : _ENV_START + 2])
    ctypes.memset(begin, 0, end - begin)


def _code() -> Iterable[Path]:
    """Where Python's modules are; of a checkout the package alone, as data may lie in it."""
    yield Path(exporter.__file__).parent
    names = ("site-packages", "dist-packages", "lib-dynload")
    yield from (e for e in map(Path, sys.path) if e.name in names or (e / "os.py").exists())


def _of(rights: dict[int, int], version: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= version)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """A rule is of an inode. What is not open in ``/proc`` gets another one, of which no rule is,
    once the kernel needs its memory: descriptors of that stay open for as long as the process runs.
    """
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, opened)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        if not path.is_relative_to("/proc"):
            os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
