"""Debian's Chromium, headless, asking nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def browser_of(path: str = "/usr/bin/chromium") -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # as all else waits: a busy machine is slow, and no test is about time
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def shared_browser() -> Iterator[Any]:
    """What a fixture gives that several tests use: a browser with a context. Skips where there is none."""
    pytest.importorskip("playwright", reason="the browser tests need playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with browser_of(str(CHROMIUM)) as browser:
        browser.new_context()
        yield browser
