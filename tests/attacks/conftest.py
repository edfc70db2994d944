"""A browser for the tests that need a real one; it is gone after each file.

Playwright keeps an event loop running in the thread of the tests, and nothing that runs one of its own can follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.chromium import browser_of
from tests.web.conftest import CHROMIUM, open_page

__all__ = ["chromium", "open_page"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="the browser tests need playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with browser_of(str(CHROMIUM)) as browser:
        browser.new_context()
        yield browser
