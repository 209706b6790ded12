"""What happens in the demo, and when: remembered, so that a later start goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from exporter.simulate.scenarios import SCENARIOS

_MINUTE: Final = 60
_DAY: Final = 86400

#: When an incident of the first start begins, seconds from the start. Preparing takes some
#: minutes, so the second comes as sending begins (the past tells fewer of its sources in each
#: minute), and the last while one looks: who is new is told of for some minutes only.
_FIRST: Final = {
    "load-spike": -10 * _MINUTE,
    "query-fanin": 90,
    "rogue-host": 4 * _MINUTE,
}
#: When one that was over happens again, seconds from a later start.
_AGAIN: Final = {"load-spike": 1 * _MINUTE, "query-fanin": 3 * _MINUTE}
#: One that ends so soon is over for who has just come.
_LEFT: Final = 15 * _MINUTE
#: Over before one comes; told at its own hour.
_EARLIER: Final = "registry-429"


def begin_story(file: Path, now: int) -> dict[str, int]:
    """When each scenario of the demo began or begins, seconds since the epoch.

    What ``file`` tells of an earlier start and still goes on is kept; the rest begins anew, and the
    file is written.
    """
    told: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    begins = {_EARLIER: _earlier(now)}
    for name, after in _FIRST.items():
        if name not in told:
            begins[name] = now + after
        elif _end(name, told[name]) < now + _LEFT:
            begins[name] = now + _AGAIN[name]
        else:
            begins[name] = told[name]
    file.write_text(json.dumps(begins), encoding="utf-8")
    return begins


def _earlier(now: int) -> int:
    """The last time that it was its hour, and all of it is over."""
    begin = now // _DAY * _DAY + int(SCENARIOS[_EARLIER].hour * 3600)
    return begin if _end(_EARLIER, begin) < now else begin - _DAY


def _end(name: str, begin: int) -> float:
    windows = (window for stream in SCENARIOS[name].added for window in stream.windows)
    return begin + max(window.end for window in windows)
