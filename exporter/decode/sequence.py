"""Sequence numbers: what was lost on the way, told apart from reordering and restarts.

NetFlow v9 counts datagrams (RFC 3954, section 5.1), NetFlow v5 and IPFIX count records sent
before (RFC 7011, section 3.1). A gap counts as lost only once what is missing had time to come
late.
"""

from __future__ import annotations

from typing import Final

#: How long a gap may still be closed by late datagrams, in milliseconds.
PATIENCE: Final = 3_000
#: Farther back than this a sequence number is a restart, not a late datagram.
WINDOW: Final = 10_000
#: Gaps watched at a time for one stream.
MAX_GAPS: Final = 64
#: A jump ahead farther than this is taken as a restart: no loss is that large unnoticed.
MAX_JUMP: Final = 1 << 24


class Sequence:
    """Sequence numbers of one device, protocol and observation domain."""

    __slots__ = ("_gaps", "expected", "lost", "reordered", "restarts")

    def __init__(self) -> None:
        #: The next sequence number; below 0 while none is known.
        self.expected = -1
        self.lost = 0
        self.reordered = 0
        self.restarts = 0
        self._gaps: list[list[int]] = []  # [first missing, how many, when noticed]

    def resume(self, sequence: int, step: int) -> None:
        """Take up after a datagram whose step is known, whatever was expected."""
        self.expected = (sequence + step) & 0xFFFFFFFF

    def jump(self, sequence: int, expected: int, step: int, now: int) -> bool:
        """Judge a datagram that is not the expected one; ``now`` in milliseconds.

        Gives whether the stream goes on from this datagram (a late one changes nothing).
        """
        ahead = (sequence - expected + (1 << 31)) % (1 << 32) - (1 << 31)
        if 0 < ahead <= MAX_JUMP:
            self._gaps.append([expected, ahead, now])
            if len(self._gaps) > MAX_GAPS:
                self.lost += self._gaps.pop(0)[1]
            return True
        if -WINDOW <= ahead < 0:
            self.reordered += 1
            self._close(sequence, step)
            return False
        self.restarts += 1
        self.settle(now, everything=True)
        return True

    def settle(self, now: int, *, everything: bool = False) -> None:
        """Count gaps as lost that no late datagram closed in time."""
        while self._gaps and (everything or now - self._gaps[0][2] > PATIENCE):
            self.lost += self._gaps.pop(0)[1]

    @property
    def waiting(self) -> bool:
        """Whether gaps are open."""
        return bool(self._gaps)

    def _close(self, sequence: int, step: int) -> None:
        for gap in self._gaps:
            first, missing, since = gap
            behind = (sequence - first) & 0xFFFFFFFF
            if behind >= missing:
                continue
            taken = min(max(step, 1), missing - behind)
            self._gaps.remove(gap)
            rest = [
                [first, behind, since],
                [(sequence + taken) & 0xFFFFFFFF, missing - behind - taken, since],
            ]
            self._gaps.extend(part for part in rest if part[1])
            self._gaps.sort(key=lambda part: part[2])
            return
