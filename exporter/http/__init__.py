"""The collector's HTTP server: :mod:`.server` listens, :mod:`.guard` asks who it is, :mod:`.app`
answers."""

from exporter.http.app import Health, create_app
from exporter.http.guard import Guard
from exporter.http.server import HttpServer, HttpServerError

__all__ = ["Guard", "Health", "HttpServer", "HttpServerError", "create_app"]
