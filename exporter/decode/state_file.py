"""Templates, sampling rates and open connections over restarts of the exporter, as a JSON file.

What was told before is used until devices tell it anew, so that the first flows after a restart
need not wait. A file that cannot be used is reported and left alone until the next save.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.batch import format_address
from exporter.config.load import read_bytes
from exporter.decode.devices import Stream
from exporter.decode.layout import Field
from exporter.decode.sampling import Scope
from exporter.decode.state import LimitError, State
from exporter.decode.templates import FIRST_TEMPLATE, Definition
from exporter.decode.values import LAST_TIME
from exporter.schema import Source

_log = logging.getLogger(__name__)

_FORMAT: Final = 1


def save(path: Path, state: State) -> None:
    """Write the file: whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    updated = state.connections.by_stream()
    none = np.zeros(0, np.uint32)
    content = {
        "format": _FORMAT,
        "streams": [_dump(s, updated.get(s.serial, none)) for s in state.streams()],
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path, state: State) -> None:
    """Take up what the file holds, as far as the bounds in force allow it."""
    try:
        content = json.loads(read_bytes(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']} is not known")
        # Those first that are silent for longest: where there are too many, they make room.
        for entry in sorted(content["streams"], key=lambda entry: int(entry["seen"])):
            _restore(state, entry)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("%s: not used: %s", path, error)


def _dump(stream: Stream, updated: NDArray[np.uint32]) -> dict[str, Any]:
    sampling = stream.sampling
    return {
        "device": format_address(stream.device.address),
        "seen": stream.device.seen,
        "source": stream.source.name.lower(),
        "domain": stream.domain,
        "boot": stream.boot,
        "system_init": stream.device.system_init,
        "sequence": stream.sequence.expected,
        "sampling": {
            "general": sampling.general,
            "samplers": list(sampling.samplers.items()),
            "interfaces": list(sampling.interfaces.items()),
            "templates": list(sampling.templates.items()),
        },
        "templates": [
            {"id": t.id, "options": t.options, "told": t.told, "fields": list(t.layout.fields)}
            for t in stream.templates.values()
        ],
        # Millions at the most: as octets.
        "connections": base64.b64encode(updated.astype("<u4").tobytes()).decode(),
    }


def _restore(state: State, entry: dict[str, Any]) -> None:
    try:
        stream = state.stream(
            pack_address(entry["device"]), Source[entry["source"].upper()],
            int(entry["domain"]), int(entry["seen"]),
        )  # fmt: skip
        stream.boot = int(entry["boot"])
        stream.device.system_init = min(int(entry["system_init"]), LAST_TIME)
        stream.sequence.expected = min(int(entry["sequence"]), 0xFFFFFFFF)
        sampling = entry["sampling"]
        stream.learn_rate(int(sampling["general"]), Scope())
        for sampler, rate in sampling["samplers"]:
            stream.learn_rate(int(rate), Scope(sampler=int(sampler)))
        for interface, rate in sampling["interfaces"]:
            stream.learn_rate(int(rate), Scope(interface=int(interface)))
        for template, rate in sampling.get("templates", ()):
            stream.learn_rate(int(rate), Scope(template=int(template)))
        updated = base64.b64decode(entry.get("connections", ""), validate=True)
        if updated:
            state.connections.remember(stream.serial, np.frombuffer(updated, "<u4"))
        for saved in entry["templates"]:
            fields = tuple(Field(int(e), int(n), int(length)) for e, n, length in saved["fields"])
            if int(saved["id"]) < FIRST_TEMPLATE or any(f.length < 0 for f in fields):
                raise ValueError(f"template {saved['id']} cannot be")
            state.define(
                stream, Definition(int(saved["id"]), fields, bool(saved["options"])),
                int(saved["told"]),
            )  # fmt: skip
    except LimitError as limit:
        _log.warning("saved templates of %s not used: %s", entry["device"], limit)
