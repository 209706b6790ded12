"""Whether ClickHouse can be used: waits for it at start, migrates it if asked to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exporter.config import ClickHouse, ConfigError
from exporter.logs import RareLog
from exporter.store.client import StoreError
from exporter.store.migrate import Migrator
from exporter.store.statements import MigrationError

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class StoreReadiness:
    """Asks ClickHouse, in a thread, until it answers and has all migrations; then never again.

    With ``migrate`` it applies what is missing itself. ``on_ready`` is called then, in that thread.

    Raises:
        MigrationError: the folder of migrations is not as it should be.
    """

    def __init__(
        self,
        settings: ClickHouse,
        migrations: Path,
        *,
        migrate: bool,
        on_ready: Callable[[], None],
    ) -> None:
        self._migrator = Migrator(settings, migrations)
        self._database = settings.database
        self._migrate = migrate
        self._on_ready = on_ready
        self._reason: str | None = "ClickHouse has not answered yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-readiness", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join(1.0)

    def reason(self) -> str | None:
        """Why flows cannot be stored yet; ``None`` once they can."""
        return self._reason

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        rarely = RareLog(log)
        while not self._stop.is_set():
            reason = self._ask()
            if self._stop.is_set():
                return
            self._reason = reason
            if reason is None:
                log.info("ClickHouse is ready")
                self._on_ready()
                return
            rarely.warning("not ready", f"not ready: {reason}")
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _ask(self) -> str | None:
        try:
            if self._migrate:
                for migration in self._migrator.apply():
                    log.info("applied migration %s", migration.path.name)
                for change in self._migrator.set_retention():
                    log.info("changed table %s: %s", change.table, change.text)
                return None
            missing = self._migrator.pending()
        except (ConfigError, MigrationError, StoreError) as error:
            return str(error)
        except Exception as error:  # clients fail in many ways, and none may end the thread
            return f"ClickHouse: {type(error).__name__}: {error}"
        if not missing:
            return None
        return (
            f"database {self._database!r} lacks {len(missing)} migrations, "
            f"the first is {missing[0].path.name}: run `flow-exporter migrate`"
        )
