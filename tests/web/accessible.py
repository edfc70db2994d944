"""What axe finds on a page that hinders people who use a keyboard, a screen reader or other colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MODULES = Path(__file__).parent / "node_modules"  # npm install in this folder

#: for tests that run in both themes, with `open_page(url, color_scheme=theme, bypass_csp=True)`
needs_axe = pytest.mark.skipif(not (MODULES / "axe-core").exists(), reason="npm install was not run in tests/web")


def violations(page: Any) -> list[tuple[str, str]]:
    """The rule and the first element of each violation."""
    page.wait_for_timeout(300)  # colours fade in
    page.evaluate((MODULES / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("() => axe.run()")["violations"]
    return [(one["id"], one["nodes"][0]["html"][:120]) for one in found]
