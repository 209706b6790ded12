"""A ClickHouse engine of any version behind as much of the HTTP protocol as our client needs.

``python -m tests.support.engine_server FOLDER`` serves the chDB that ``PYTHONPATH`` names, on a
free port of loopback that it prints. The embedded store cannot: it wants what newer engines have.
Whoever asks is let in, and statements run one after the other. Tables are dropped without SYNC:
older engines in process never come to an end of it.
"""

from __future__ import annotations

import importlib
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.store.server import sql
from exporter.store.server.sql import quote, quote_name

#: What is no setting in a URL.
_PROTOCOL = {
    "query", "database", "default_format", "query_id", "wait_end_of_query", "role",
    "client_protocol_version",
}  # fmt: skip
_DROPPED_AT_ONCE = re.compile(r"\A(DROP .+?) SYNC\s*\Z", re.DOTALL)


class EngineServer:
    """Answers requests by the one connection that there is."""

    def __init__(self, engine: Any, folder: Path) -> None:
        self._engine = engine
        self._folder = folder

    async def __call__(self, request: Request) -> Response:
        # Blocks the loop: the next request waits.
        url = dict(request.query_params)
        parts = (url.get("query", "").encode(), await request.body())
        try:
            return Response(self._answer(b"\n".join(filter(None, parts)), url))
        except RuntimeError as error:
            code = re.search(r"Code: (\d+)", str(error))
            headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1001"}
            return Response(str(error), 500, headers)

    def _answer(self, text: bytes, url: dict[str, str]) -> bytes:
        settings = {name: value for name, value in url.items() if name not in _PROTOCOL}
        self._engine.query(f"USE {quote_name(url.get('database') or 'default')}")
        try:
            for name, value in settings.items():
                self._engine.query(f"SET {name} = {quote(value)}")
            insert = sql.split_insert(text)
            if insert is not None:
                return self._insert(insert)
            asked = sql.split_query(text, url.get("default_format", "TabSeparated"))
            statement = _DROPPED_AT_ONCE.sub(r"\1", f"{asked.text}\n{asked.tail}")
            answer = self._engine.query(statement, asked.format)
            return bytes(answer.bytes())
        finally:
            for name in settings:
                if not name.startswith("param_"):
                    self._engine.query(f"SET {name} = DEFAULT")

    def _insert(self, insert: sql.Insert) -> bytes:
        with tempfile.NamedTemporaryFile(dir=self._folder) as data:
            data.write(insert.data)
            data.flush()
            self._engine.query(insert.from_file(data.name), "TabSeparated")
        return b""


def _serve(folder: Path) -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()
    chdb: Any = importlib.import_module("chdb._chdb")
    server = EngineServer(chdb.connect(str(folder / "data")), folder)
    routes = [Route("/", server.__call__, methods=["GET", "POST"])]
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", lifespan="off")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
