"""What the collector answers over HTTP: metrics, health, reload, and whatever other parts bring."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client.exposition import gzip_accepted
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.config import ConfigError
from exporter.http.guard import Guard, Guarded
from exporter.metrics.exposition import render

#: Says why something is not as it should be, or nothing when all is well.
Check = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Health:
    """``alive``: the process is worth keeping; ``ready``: flows are taken in and stored."""

    alive: Sequence[Check] = ()
    ready: Sequence[Check] = ()


def create_app(
    registry: Collector,
    health: Health,
    routes: Iterable[BaseRoute],
    reload: Callable[[], None],
    guard: Guard,
) -> Starlette:
    """The application. ``reload`` raises :class:`ConfigError` when the old settings stay."""

    def metrics(request: Request) -> Response:
        body, content_type = render(
            registry,
            request.headers.get("accept", ""),
            # Only Prometheus and its kin send this header, not people with curl.
            scrape="x-prometheus-scrape-timeout-seconds" in request.headers,
        )
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        return Response(body, headers=headers)

    def healthy(_: Request) -> Response:
        return _state(health.alive, "healthy")

    def ready(_: Request) -> Response:
        return _state([*health.alive, *health.ready], "ready")

    def reload_now(_: Request) -> Response:
        try:
            reload()
        except ConfigError as error:
            return PlainTextResponse(f"not reloaded: {error}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return PlainTextResponse("reloaded\n")

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", reload_now, methods=["POST"]),
            *routes,
        ],
        middleware=[Middleware(Guarded, guard=guard)],
    )


def _state(checks: Iterable[Check], word: str) -> Response:
    reasons = [reason for check in checks if (reason := check()) is not None]
    if not reasons:
        return PlainTextResponse(f"{word}\n")
    return PlainTextResponse(
        f"not {word}: " + "; ".join(reasons) + "\n", HTTPStatus.SERVICE_UNAVAILABLE
    )
