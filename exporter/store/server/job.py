"""A request at work."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from exporter.store.server.engine import Statistics
from exporter.store.server.formats import media_type
from exporter.store.server.request import Request, printable
from exporter.store.server.users import User


@dataclass(slots=True)
class Job:
    """What is known of a request by now, as metrics, headers and the slow-query log show it."""

    request: Request
    user: User | None = None
    kind: str = "query"
    text: str = ""
    format: str = "Null"
    parameters: dict[str, str] = field(default_factory=dict)
    answers: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    began: float = field(default_factory=time.monotonic)

    def headers(self) -> dict[str, str]:
        """The headers that ClickHouse sends with an answer."""
        counted = self.statistics
        summary = {
            "read_rows": counted.read_rows,
            "read_bytes": counted.read_bytes,
            "written_rows": counted.written_rows,
            "written_bytes": counted.written_bytes,
            "result_rows": counted.result_rows,
            "result_bytes": counted.result_bytes,
            "elapsed_ns": int((time.monotonic() - self.began) * 1e9),
        }
        return {
            "Content-Type": media_type(self.format),
            "X-ClickHouse-Server-Display-Name": "flow-exporter store",
            "X-ClickHouse-Query-Id": printable(self.request.query_id),
            "X-ClickHouse-Format": self.format,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Summary": json.dumps({k: str(v) for k, v in summary.items()}),
        }
