"""The dashboards in a real Grafana, in a browser: no panel may show an error.

Skipped, and saying so, unless a Grafana that has our provisioning is named, such as that of
``docker compose up``:

    pip install -e '.[browser]' && playwright install chromium    # or a chromium on the PATH
    GRAFANA_URL=http://127.0.0.1:3000 pytest tests/e2e/test_grafana_browser.py -rs

GRAFANA_TOKEN is a service account's token, where nobody may look without; GRAFANA_PICTURES the
folder that pictures are written to, else pytest's own temporary one.
"""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
URL = os.environ.get("GRAFANA_URL", "").rstrip("/")
DASHBOARDS = sorted(path.stem for path in (ROOT / "grafana/dashboards").glob("*.json"))
SIZES = {"desk": (1440, 900), "phone": (390, 844)}

#: Marks of Grafana 11 and 12 (its package e2e-selectors): a panel's error, an error of the page,
#: a query under way, a panel.
PANEL_ERROR = '[data-testid="data-testid Panel status error"]'
PAGE_ERROR = '[data-testid="data-testid Alert error"]'
LOADING = '[data-testid="data-testid Panel loading bar"], [aria-label="Panel loading bar"]'
PANEL = "section[data-testid^='data-testid Panel header']"


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no browser test: pip install -e '.[browser]'"
    )
    with playwright.sync_playwright() as running:
        own = shutil.which("chromium") or shutil.which("chromium-browser")
        try:
            browser = running.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser test: no chromium ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


def faults(browser: Any, url: str, size: tuple[int, int], picture: Path) -> list[str]:
    """Opens a dashboard, takes a picture of all of it, and tells the errors that it shows."""
    token = os.environ.get("GRAFANA_TOKEN", "")
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        extra_http_headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    try:
        page.goto(url, wait_until="networkidle", timeout=60_000)
        page.wait_for_selector(PANEL, timeout=30_000)
        # Panels ask when they come into sight.
        for _ in range(30):
            page.mouse.wheel(0, size[1] // 2)
            page.wait_for_timeout(100)
        page.wait_for_function(
            "marks => !document.querySelector(marks)", arg=LOADING, timeout=60_000
        )
        page.screenshot(path=picture, full_page=True)
        found = []
        for mark in (PANEL_ERROR, PAGE_ERROR):
            for shown in page.query_selector_all(mark):
                panel = shown.evaluate(
                    "node => (node.closest('section') || document.body).innerText.split('\\n')[0]"
                )
                found.append(f"{panel}: {shown.get_attribute('aria-label') or 'error'}")
        return found
    finally:
        page.close()


@pytest.mark.skipif(not URL, reason="no browser test: GRAFANA_URL names no Grafana")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("uid", DASHBOARDS)
def test_no_panel_shows_an_error(uid: str, size: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("GRAFANA_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with browsing() as browser:
        target = f"{URL}/d/{uid}?from=now-3h&to=now&kiosk"
        assert faults(browser, target, SIZES[size], folder / f"{uid}-{size}.png") == []


PAGE = """<!doctype html><title>Stand-in</title>
<section data-testid="data-testid Panel header Traffic">Traffic</section>
<section data-testid="data-testid Panel header Lost">Lost{error}</section>"""
ERROR = '<button data-testid="data-testid Panel status error" aria-label="bad SQL">!</button>'


@pytest.mark.parametrize(("error", "told"), [("", []), (ERROR, ["Lost!: bad SQL"])])
def test_an_error_of_a_panel_is_found(error: str, told: list[str], tmp_path: Path) -> None:
    """On a page with Grafana's marks: what looks for them can fail."""
    (tmp_path / "index.html").write_text(PAGE.format(error=error), encoding="utf-8")
    serve = partial(_Quiet, directory=str(tmp_path))
    with browsing() as browser, http.server.HTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        picture = tmp_path / "stand-in.png"
        found = faults(browser, f"http://127.0.0.1:{server.server_port}/", (800, 600), picture)
        server.shutdown()
        assert picture.stat().st_size > 1000
        assert [line.replace("\n", "") for line in found] == told


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass
