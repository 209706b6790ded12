"""The endpoints that bring alerts home: Alertmanager's webhook, and the post that Prometheus makes
to every Alertmanager it knows."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.incidents.alert import BodyError, Observation, from_prometheus, from_webhook
from exporter.incidents.recorder import AlertRecorder

#: Largest body, bytes; a group of a thousand alerts takes about one MiB.
MAX_BODY: Final = 4 << 20
#: Bodies that may wait to be parsed. Their requests count against those of the whole server until
#: they end, also those of senders that have gone.
MAX_WAITING: Final = 32

_Parse = Callable[[bytes, datetime], list[Observation]]


class _TooLargeError(Exception):
    pass


class _Turns:
    """Megabytes of labels take a second, in which others are answered, and many times their size
    while they are parsed: one at a time, and some wait."""

    def __init__(self) -> None:
        self.waiting = asyncio.Semaphore(MAX_WAITING)
        self.parsing = asyncio.Lock()


def routes(recorder: AlertRecorder, token: str = "") -> list[Route]:
    """``POST /api/v1/webhook`` and ``POST /api/v2/alerts``.

    ``token``: the bearer token that a post must carry; empty: none is asked for. Answers: 200
    taken (status ``malformed``: but for alerts that are faulty), 400 not the body it should be, 401
    no or another token, 413 too large, 503 come back later. Senders repeat after 503 only.
    """
    turns = _Turns()
    return [
        Route(
            "/api/v1/webhook",
            _endpoint(recorder, token, "webhook", from_webhook, turns),
            methods=["POST"],
        ),
        Route(
            "/api/v2/alerts",
            _endpoint(recorder, token, "alerts", from_prometheus, turns),
            methods=["POST"],
        ),
    ]


def _endpoint(
    recorder: AlertRecorder, token: str, name: str, parse: _Parse, turns: _Turns
) -> Callable[[Request], object]:
    def answer(status: int, outcome: str, message: str = "") -> Response:
        recorder.count_delivery(name, outcome)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if status == 503:
            headers["Retry-After"] = "10"
        return JSONResponse(
            {"status": outcome, **({"error": message} if message else {})}, status, headers
        )

    async def take(request: Request) -> Response:
        if token and not _carries(request, token):
            return answer(401, "unauthorized", "a bearer token is needed")
        try:
            body = await _body(request)
        except _TooLargeError:
            return answer(413, "too_large", f"more than {MAX_BODY} bytes")
        if turns.waiting.locked():
            return answer(503, "overloaded", "too many alerts wait to be read")
        try:
            async with turns.waiting, turns.parsing:
                observations = await run_in_threadpool(parse, body, recorder.now())
        except BodyError as error:
            if not error.sound:
                return answer(400, "malformed", str(error))
            outcome, fault, observations = "malformed", str(error), list(error.sound)
        else:
            outcome, fault = "accepted", ""
        if not recorder.offer(observations):
            return answer(503, "overloaded", "too many alerts wait to be written")
        return answer(200, outcome, fault)

    return take


def _carries(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(), token.encode()
    )


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise _TooLargeError
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise _TooLargeError
    return bytes(body)
