"""A browser for the tests that need a real one; it is gone after each file.

Playwright keeps an event loop running in the thread of the tests, and nothing that runs one of its own can follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.chromium import shared_browser
from tests.web.conftest import open_page

__all__ = ["chromium", "open_page"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from shared_browser()
