"""The command line: a module per command, each adding itself to :data:`app`."""

from __future__ import annotations

from exporter.cli.app import app


def main() -> None:
    """Entry point of ``flow-exporter``."""
    app()


__all__ = ["app", "main"]
