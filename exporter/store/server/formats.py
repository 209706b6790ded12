"""Media types of ClickHouse's output formats."""

from __future__ import annotations

import re
from typing import Final

_MEDIA_TYPES: Final = (
    (re.compile(r"json.*eachrow|ndjson|jsonlines"), "application/x-ndjson; charset=UTF-8"),
    (re.compile(r"json"), "application/json; charset=UTF-8"),
    (re.compile(r"csv"), "text/csv; charset=UTF-8"),
    (re.compile(r"tab|tsv"), "text/tab-separated-values; charset=UTF-8"),
    (re.compile(r"xml"), "application/xml; charset=UTF-8"),
    (re.compile(r"native|binary|parquet|orc|avro|msgpack|arrow"), "application/octet-stream"),
)


def media_type(name: str) -> str:
    """The ``Content-Type`` that ClickHouse sends with the format ``name``."""
    low = name.lower()
    for pattern, found in _MEDIA_TYPES:
        if pattern.search(low):
            return found
    return "text/plain; charset=UTF-8"
