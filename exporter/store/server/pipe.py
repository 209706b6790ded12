"""A pipe through which the engine writes an answer and the event loop reads it.

The engine formats a whole answer only when it writes to a file; through a pipe that takes no
memory beyond the pipe's, and a client that reads slowly slows the query down.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import Final

_PIPE_BYTES: Final = 1 << 20


class PipeEnd:
    """The end to write to, owned by the thread that runs the query; a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        #: What the engine opens.
        self.path = f"/dev/fd/{descriptor}"

    def write(self, data: bytes) -> None:
        """Write all of ``data``; what nobody reads any more is dropped."""
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def __enter__(self) -> PipeEnd:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Pipe:
    """The end to read from, owned by the event loop; a context manager."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        # An unprivileged process may have used up what it is allowed: the default size does too.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def take_end(self) -> PipeEnd:
        """The other end; its taker closes it."""
        end, self._write = PipeEnd(self._write), -1
        return end

    async def read(self) -> bytes:
        """Some bytes, or none once the other end is closed."""
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.read(self._read, _PIPE_BYTES)
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()
            loop.add_reader(self._read, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(self._read)

    def close(self) -> None:
        """Stop reading; whoever still writes gets an error."""
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
