"""Grafana of this machine, where it is installed, with our datasources and dashboards."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from exporter.resources import resource
from exporter.up.ports import LOOPBACK
from exporter.up.supervisor import Child

_PLUGIN = "grafana-clickhouse-datasource"
#: The plugin whose query model the dashboards have.
_VERSION = "4.20.0"

HOME = Path("/usr/share/grafana")
#: Where ``grafana cli plugins install`` puts plugins; a server that is started by hand looks
#: below its home instead.
PLUGINS = Path("/var/lib/grafana/plugins")


def grafana(
    folder: Path,
    *,
    port: int,
    store: int,
    prometheus: int,
    alertmanager: int,
    reader_password: str,
    home: Path = HOME,
    plugins: Path = PLUGINS,
) -> Child | None:
    """Grafana on loopback with its data in ``folder``, None where it is not installed.

    ``port``, ``store``, ``prometheus`` and ``alertmanager`` are TCP ports. The ClickHouse plugin is
    taken from ``plugins``; where it is not there, Grafana fetches it to ``folder``.
    """
    program = shutil.which("grafana")
    if program is None or not home.is_dir():
        return None
    folder.mkdir(exist_ok=True, mode=0o700)
    password_file = folder / "admin.password"
    password_file.touch(0o600)
    if not password_file.stat().st_size:  # new, or of a start that came to no end
        password_file.write_text(secrets.token_urlsafe(24))
    if _is_folder(plugins / _PLUGIN):
        plugin = {"GF_PATHS_PLUGINS": str(plugins)}
    else:
        plugin = {
            "GF_PATHS_PLUGINS": str(folder / "plugins"),
            "GF_PLUGINS_PREINSTALL": f"{_PLUGIN}@{_VERSION}",
        }
    return Child(
        name="grafana",
        argv=[program, "server", f"--homepath={home}"],
        ready_url=f"http://{LOOPBACK}:{port}/api/health",
        environment={
            "GF_SERVER_HTTP_ADDR": LOOPBACK,
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": str(folder),
            "GF_PATHS_LOGS": str(folder / "log"),
            **plugin,
            "GF_PATHS_PROVISIONING": str(resource("grafana/provisioning")),
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(
                resource("grafana/dashboards/flow-home.json")
            ),
            # Not …__FILE: only the container's start script knows that.
            "GF_SECURITY_ADMIN_PASSWORD": f"$__file{{{password_file.absolute()}}}",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "FLOW_DASHBOARDS_PATH": str(resource("grafana/dashboards")),
            "FLOW_CLICKHOUSE_HOST": LOOPBACK,
            "FLOW_CLICKHOUSE_PORT": str(store),
            "FLOW_READER_PASSWORD": reader_password,
            "FLOW_PROMETHEUS_URL": f"http://{LOOPBACK}:{prometheus}",
            "FLOW_ALERTMANAGER_URL": f"http://{LOOPBACK}:{alertmanager}",
        },
        start_seconds=180.0,
    )


def _is_folder(path: Path) -> bool:
    """Whether it is one that we may look at."""
    try:
        return path.is_dir()
    except OSError:
        return False
