"""Shared fixtures: the built book, a server for it, a browser where there is one; and the order.

Two processes share the tests: a file's tests, or a notebook's cells, are done by one of them, and
what takes long comes first, so that both end at about the same time.
"""

from __future__ import annotations

import fcntl
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools.pdf import ARGS, BROWSERS

ROOT = Path(__file__).resolve().parents[1]


ORDER = (  # minutes; the rest: seconds
    "tests/test_site.py",
    "tests/spikes/test_networks.py",
    "tests/test_runs.py",
    "book/",  # the notebooks
    "tests/spikes/",
)


def pytest_collection_modifyitems(items):
    def place(item):
        return next((i for i, x in enumerate(ORDER) if item.nodeid.startswith(x)), len(ORDER))

    items.sort(key=place)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The HTML book: the folder SITE if set, else built here once, with warnings as errors."""
    if "SITE" in os.environ:
        return Path(os.environ["SITE"]).resolve()
    out = tmp_path_factory.getbasetemp()
    out = (out.parent if "PYTEST_XDIST_WORKER" in os.environ else out) / "site"
    out.mkdir(exist_ok=True)
    html = out / "_build" / "html"
    with open(out / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other process waits for the one that builds
        if not (out / "built").exists():
            tool = Path(sys.executable).with_name("jupyter-book")
            options = ["-W", "-n", "--keep-going", "--path-output", str(out)]
            done = subprocess.run([tool, "build", ROOT, *options], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            assert (html / "book" / "index.html").is_file(), "the build wrote nothing"
            (out / "built").touch()
    return html


@pytest.fixture(scope="session")
def base(site):
    """The address of a server for the built book, on this machine only."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; where there is none the tests skip, in CI they fail."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = f"no browser: install one of {', '.join(BROWSERS)} to look at the built pages"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        running = p.chromium.launch(executable_path=found, args=ARGS)
        yield running
        running.close()
