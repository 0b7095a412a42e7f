"""The examples of the documentation run as they stand."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typing_extensions import override

from tests.e2e.started import StartedGateway

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "generate_themes.py"
PAGE = b"""<!doctype html><title>Lighthouse</title>
<style>body { color: #102030; font-family: Georgia, serif } h1 { color: #102030 } a { color: #abc }</style>
<h1>The old lighthouse</h1><p style="background: rgb(1, 2, 3)">Open on Sundays.</p>
<script>var secret = "never read";</script>"""


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE if self.path == "/" else b"")

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is not a server's log."""


@pytest.fixture
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(gateway: StartedGateway, url: str) -> subprocess.CompletedProcess[str]:
    ready = gateway.ready
    return subprocess.run(
        [sys.executable, str(SCRIPT), url, "--model", "sim_echo"],
        env={"GATEWAY_BASE_URL": f"{ready.base_url}/v1", "GATEWAY_API_KEY": ready.api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_themes_are_made_from_a_website(gateway: StartedGateway, site: str) -> None:
    done = run(gateway, f"{site}/")
    assert done.returncode == 0, done.stderr
    themes = json.loads(done.stdout)["themes"]
    assert len(themes) == 3
    assert all(set(theme) >= {"name", "primary", "background", "font"} for theme in themes)


def test_a_site_that_cannot_be_read_is_said(gateway: StartedGateway, site: str) -> None:
    done = run(gateway, f"{site}/nothing")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
