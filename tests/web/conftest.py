"""One browser for all tests of the page, and records whose arrays are known."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerscope.records.record import Pair, Picture, Prediction, Record
from tests.web.chromium import shared_browser
from tests.web.making import entry_of
from tests.web.serving import serving


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    yield from shared_browser()


@pytest.fixture
def open_page(chromium):
    """open_page(url) -> a page of its own; anything on its console that is an error fails the test."""
    opened, troubles = [], []

    def go(url: str, width: int = 1280, height: int = 720, **options: Any) -> Any:
        if options:
            page = chromium.new_context(**options).new_page()
            opened.append(page.context)
        else:  # tests share the rest: a context of its own costs half a second
            page = chromium.contexts[0].new_page()
            opened.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(url)
        page.locator("#busy").wait_for(state="hidden")
        page.locator("#stage[data-drawn], #plain:not([hidden]) *").first.wait_for()
        return page

    yield go
    for one in opened:
        one.close()
    assert not troubles


def _picture(name: str, seed: int) -> Picture:
    return Picture(name, np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8))


def _maps(seed: int, shape: tuple[int, int, int], images: int = 2) -> list[np.ndarray]:
    return [np.random.default_rng([seed, n]).normal(size=shape).astype(np.float32) for n in range(images)]


@pytest.fixture(scope="session")
def features() -> SimpleNamespace:
    """Two images through a network that never was; `arrays` by path, one array an image."""
    arrays = {
        "stem.conv": _maps(1, (12, 16, 16)),
        "stem.relu": [np.maximum(one, 0) for one in _maps(1, (12, 16, 16))],
        "layer1.0.conv1": _maps(2, (40, 7, 9)),
        "head": _maps(3, (20, 1, 1)),
    }
    for one in arrays["stem.relu"]:
        one[5] = 0  # a dead channel
    arrays["stem.conv"][0][2, 3, 4], arrays["stem.conv"][0][2, 5, 6] = np.nan, np.inf
    record = Record("features", "torchvision:tiny=tiny.pth", notes=["made for a test"])
    types = {"stem.conv": "Conv2d", "stem.relu": "ReLU", "layer1.0.conv1": "Conv2d", "head": "Linear"}
    for path, images in arrays.items():
        record.add(entry_of(path, images, types[path], layout="NC" if path == "head" else "NCHW"))
    record.pictures = [_picture("tulip.png", 1), _picture("rose.png", 2)]
    record.predictions = [
        [Prediction(1, "tulip", 0.9), Prediction(2, "rose", 0.1)],
        [Prediction(2, "rose", 0.7), Prediction(1, "tulip", 0.3)],
    ]
    return SimpleNamespace(record=record, arrays=arrays)


@pytest.fixture(scope="session")
def compared() -> SimpleNamespace:
    """Two networks that share `conv1`; `odd` has other shapes, `lonely` is in A alone."""
    a, b = _maps(4, (10, 12, 12), 1), _maps(5, (10, 12, 12), 1)
    record = Record("compare", "first.pth", subject_b="second.pth")
    for side, maps in (("a", a), ("b", b)):
        record.add(entry_of("conv1", maps, side=side))
    record.add(entry_of("odd", _maps(6, (6, 5, 5), 1), side="a"))
    record.add(entry_of("odd", _maps(7, (3, 8, 8), 1), side="b"))
    record.add(entry_of("lonely", _maps(8, (4, 3, 3), 1), type="ReLU", side="a"))
    gap = np.abs(a[0] - b[0])
    shape = (1, 10, 12, 12)
    record.pairs = [Pair("conv1", shape, shape, "changed", float(gap.max()), float(gap.mean()), 0.1)]
    record.pictures = [_picture("tulip.png", 1)]
    record.predictions = [[Prediction(1, "tulip", 0.9)], [Prediction(2, "rose", 0.6)]]
    return SimpleNamespace(record=record, a=a[0], b=b[0])


@pytest.fixture
def served(features) -> Iterator[str]:
    with serving(features.record) as (url, _):
        yield url
