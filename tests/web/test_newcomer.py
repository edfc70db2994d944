"""A panel that a newcomer adds to the page; see tests/test_newcomer.py."""

from __future__ import annotations

import pytest

from tests.test_newcomer import PANEL, checkpoint, grown, ran

__all__ = ["checkpoint"]

pytestmark = pytest.mark.browser


def test_a_panel(tmp_path, checkpoint, open_page):
    grown(tmp_path, PANEL)
    ran(tmp_path, code=f"import layerscope; layerscope.weights({str(checkpoint)!r}).to_html('a.html')")
    page = open_page((tmp_path / "a.html").as_uri())
    page.wait_for_function("document.getElementById('planted')?.textContent === '1 planted'")
