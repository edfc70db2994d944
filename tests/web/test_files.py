"""The page as one file, opened from disk: what is inside is seen, and what is broken is said."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerscope.records.record import Picture, Record
from layerscope.views.html import document, write
from tests.web.making import entry_of
from tests.web.test_page import PIXEL, TIP, drawn, parsed, pointed

expect = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright").expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
#: a point of the sheet where a channel lies
SPOT = {"x": 150, "y": 120}


def waves(seed: int, *shape: int) -> np.ndarray:
    """Smooth maps, as those of a network: they are packed as differences between neighbours."""
    c, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return (np.sin((x + 3 * y + seed) / (5 + c)) + np.cos(y * (c + seed) / 40)).astype(np.float32)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    found = {
        "stem": waves(1, 12, 40, 40),
        "mid": waves(2, 9, 17, 23),
        "drop": waves(2, 9, 17, 23),
        "deep": waves(3, 30, 7, 7),
    }
    found["mid"][4, 5, 6] = np.nan
    found["drop"][4, 5, 6] = np.nan
    return found


@pytest.fixture
def record(arrays) -> Record:
    record = Record("features", "torchvision:tiny=tiny.pth")
    for path, maps in arrays.items():
        record.add(entry_of(path, [maps, maps[::-1]]))
    random = np.random.default_rng(1)
    record.pictures = [
        Picture(name, random.integers(0, 255, (30, 20, 3), np.uint8)) for name in ("tulip.png", "rose.png")
    ]
    return record


@pytest.fixture
def path(record, tmp_path) -> Path:
    return write(record, tmp_path / "tulip.html")


def digits(number: float) -> float:
    """Half a unit of the last of the four digits that are printed."""
    return float(0.51 * 10 ** (np.floor(np.log10(abs(number))) - 3))


def unit_of(page: Any) -> float:
    return parsed(page.locator(".readouts strong").inner_text())


def test_a_unit_has_the_value_of_the_record(open_page, path, record):
    for key, image, channel, y, x in [
        ("stem", 0, 7, 21, 33),
        ("mid", 0, 8, 16, 22),
        ("drop", 1, 3, 0, 9),
        ("deep", 1, 29, 6, 0),
    ]:
        page = open_page(f"{path.as_uri()}#layer={key}&channel={channel}&y={y}&x={x}&image={image}")
        drawn(page, f"{key}|{image}")
        value = float(record[key].maps[image].values()[channel, y, x])
        assert unit_of(page) == pytest.approx(value, abs=digits(value)), (key, image)
        page.close()
    page = open_page(f"{path.as_uri()}#layer=drop&channel=4&y=5&x=6")
    expect(page.locator(".readouts")).to_contain_text("not finite")


def test_every_code_is_drawn_where_it_lies(open_page, path, record):
    """All pixels of a small layer, in gray: a fault of one neighbour would run on to the end of the plane."""
    text = re.search(r'id="block-1-0">([^<]*)<', path.read_text("utf-8"))
    assert gzip.decompress(base64.b64decode(text[1]))[12] == 1, "packed as differences"
    page = open_page(f"{path.as_uri()}#layer=mid&map=gray")
    drawn(page, "mid|0")
    codes = record["mid"].maps[0].codes.astype(float)
    box = page.locator("#sheet-a .marks").bounding_box()
    seen = set()
    for across, down in np.ndindex(14, 9):
        x, y = round(box["x"] + box["width"] * (across + 0.5) / 14), round(box["y"] + box["height"] * (down + 0.5) / 9)
        page.mouse.move(x, y)
        found = TIP.search(page.locator("#tip").text_content())
        if page.locator("#tip").is_visible() and found:
            place = tuple(int(one) for one in found.groups()[:3])
            pixel = page.evaluate(PIXEL, ["#sheet-a", x + 0.5, y + 0.5])
            assert codes[place] == 255 or abs(pixel[0] - codes[place] * 255 / 254) <= 2, place
            seen.add(place)
    assert len(seen) > 60
    assert {c for c, _, _ in seen} == set(range(9))


def test_the_pictures_are_those_of_the_record(open_page, path, record):
    page = open_page(path.as_uri())
    image = page.locator("#input-image")
    for number, picture in enumerate(record.pictures):
        page.locator("#image").select_option(str(number))
        expect(page.locator("#input-name")).to_have_text(picture.name)
        kind, _, data = image.get_attribute("src").partition(",")
        assert kind == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture.pixels)
        assert page.evaluate("() => document.getElementById('input-image').decode()") is None
        assert page.evaluate("() => document.getElementById('input-image').naturalHeight") == 30


def test_the_theme_is_remembered(open_page, path):
    page = open_page(path.as_uri(), color_scheme="dark")
    theme = "() => document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.keyboard.press("t")
    assert page.evaluate(theme) == "light"
    page.reload()
    drawn(page, "stem|0")
    assert page.evaluate(theme) == "light"


def test_a_link_leads_back_to_the_same_unit(open_page, path, record):
    page = open_page(path.as_uri())
    page.keyboard.press("j")
    drawn(page, "mid|0")
    page.locator('#choose-map [data-value="gray"]').click()
    page.locator('#choose-range [data-value="layer"]').click()
    pointed(page, 0.4, 0.35)
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile("channel=.*y=.*x="))
    link = dict(part.split("=") for part in page.url.partition("#")[2].split("&"))
    assert (link["layer"], link["map"], link["range"]) == ("mid", "gray", "layer")
    shown = page.locator(".readouts strong").inner_text()
    page.reload()
    drawn(page, "mid|0")
    assert page.locator(".readouts strong").inner_text() == shown
    value = float(record["mid"].maps[0].values()[int(link["channel"]), int(link["y"]), int(link["x"])])
    assert unit_of(page) == pytest.approx(value, abs=digits(value))
    for name in ("map", "range"):
        chosen = page.locator(f'#choose-{name} [data-value="{link[name]}"]')
        expect(chosen).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_canvas_has_the_pixels_of_the_screen(open_page, path, ratio):
    page = open_page(path.as_uri(), device_scale_factor=ratio)
    for width, height in [(1280, 720), (1501, 833)]:
        page.set_viewport_size({"width": width, "height": height})
        size = """() => { const c = document.querySelector("#sheet-a canvas.pixels"), b = c.getBoundingClientRect();
          const s = document.getElementById("stage").getBoundingClientRect();
          return [c.width, c.height, b.width, b.height, s.width]; }"""
        page.wait_for_timeout(100)
        canvas_w, canvas_h, box_w, box_h, stage_w = page.evaluate(size)
        assert canvas_w == pytest.approx(box_w * ratio, abs=1)
        assert canvas_h == pytest.approx(box_h * ratio, abs=1)
        assert box_w > 0.9 * stage_w > 400
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def damaged(path: Path, number: int, change: Any) -> None:
    """The block of a layer on the first image, as base64 or as bytes, put through `change`."""
    text = path.read_text("utf-8")
    found = re.search(rf'(id="block-{number}-0">)([^<]*)<', text)
    assert found
    path.write_text(text[: found.start(2)] + change(found[2]) + text[found.end(2) :], "utf-8")


def lying(field: int, value: int) -> Any:
    """One of the sizes in the head of a block says something else than is there."""

    def change(text: str) -> str:
        block = bytearray(gzip.decompress(base64.b64decode(text)))
        struct.pack_into("<I", block, 4 * field, value)
        return base64.b64encode(gzip.compress(bytes(block))).decode()

    return change


DAMAGE = {
    "cut in the middle": lambda text: text[: len(text) // 2],
    "cut within four signs": lambda text: text[: len(text) // 8 * 4 - 3],
    "no base64": lambda text: text[:100] + "%" + text[101:],
    "no gzip": lambda text: base64.b64encode(b"something else").decode(),
    "a bit fell over": lambda text: text[:400] + ("B" if text[400] == "A" else "A") + text[401:],
    "more channels": lying(0, 4_000_000_000),
    "fewer channels": lying(0, 3),
    "more rows": lying(1, 4_000_000_000),
    "rows and columns": lambda text: lying(2, 17)(lying(1, 23)(text)),
    "of a newer layerscope": lying(3, 2),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_block_is_said_and_the_rest_works(open_page, path, damage):
    damaged(path, 1, DAMAGE[damage])
    page = open_page(path.as_uri())
    drawn(page, "stem|0")
    page.keyboard.press("j")
    trouble = page.locator(".trouble")
    expect(trouble).to_be_visible()
    expect(trouble).to_have_text(re.compile("damaged or cut off|does not have the size|by a newer layerscope"))
    assert page.locator("#stage").get_attribute("data-drawn") is None, "nothing of another layer is shown"
    page.locator('.layer[data-key="deep"]').click()
    drawn(page, "deep|0")
    expect(trouble).to_be_hidden()
    page.locator('.layer[data-key="drop"]').click()  # it has the same block
    expect(trouble).to_be_visible()
    page.keyboard.press("k")
    page.keyboard.press("k")
    drawn(page, "stem|0")


def test_a_block_that_is_not_there_is_said(open_page, path):
    text = path.read_text("utf-8")
    path.write_text(re.sub(r'<script type="text/plain" id="block-3-0">[^<]*</script>', "", text), "utf-8")
    page = open_page(path.as_uri())
    page.locator('.layer[data-key="deep"]').click()
    expect(page.locator(".trouble")).to_contain_text("left out")


def test_maps_that_were_reduced_say_so(open_page, record, arrays, tmp_path):
    whole, _ = document(record)
    path = tmp_path / "small.html"
    said: list[str] = []
    write(record, path, len(whole.encode()) - 10_000, said.append)
    assert "stem (1/2)" in said[0]
    page = open_page(path.as_uri())
    assert "stem (1/2)" in page.locator("#notes-list").text_content()
    box = page.locator("#sheet-a .marks").bounding_box()
    page.mouse.move(box["x"] + 0.42 * box["width"], box["y"] + 0.2 * box["height"])
    said_here = page.locator("#tip").inner_text()
    found = re.search(r"channel (\d+).*?\((\d+)…(\d+), (\d+)…(\d+)\) = ([^\n]+)", said_here, re.S)
    assert found, said_here
    c, y0, y1, x0, x1 = (int(one) for one in found.groups()[:5])
    assert (y1 - y0, x1 - x0) == (1, 1)
    truth = float(arrays["stem"][c, y0 : y1 + 1, x0 : x1 + 1].mean())
    assert parsed(found[6]) == pytest.approx(truth, abs=float(np.ptp(arrays["stem"][c])) / 254 + digits(truth))


NOTEBOOK = """
import numpy as np
import layerscope
from layerscope.records.record import Record
from tests.web.making import entry_of
maps = np.random.default_rng(4).normal(size=(5, 9, 9)).astype(np.float32)
record = Record("features", "a <network>")
record.add(entry_of("first", [maps]))
record.add(entry_of("second", [maps * 2]))
record
"""


@pytest.mark.slow
def test_a_notebook_that_was_run_and_saved_as_html(chromium, tmp_path):
    pytest.importorskip("ipykernel", reason="running a notebook needs ipykernel")
    pytest.importorskip("nbconvert")
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "source": NOTEBOOK, "outputs": []}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", notebook.name]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    page = chromium.new_context().new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.route("http*://**", lambda route: route.abort())  # the notebook's own page asks for scripts of the web
    page.goto((tmp_path / "a.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.locator('#stage[data-drawn="first|0"]').wait_for()
    assert page.locator("iframe").bounding_box()["height"] > 600
    frame.locator('.layer[data-key="second"]').click()
    frame.locator('#stage[data-drawn="second|0"]').wait_for()
    frame.locator("#sheet-a .marks").click(position=SPOT)
    expect(frame.locator("#channel-pane h2")).to_have_text(re.compile(r"channel \d"))
    truth = 2 * np.random.default_rng(4).normal(size=(5, 9, 9)).astype(np.float32)
    channel = int(frame.locator("#channel-pane h2").inner_text().split()[-1])
    said = frame.locator(".readouts").inner_text()
    y, x = (int(one) for one in re.search(r"\((\d+), (\d+)\)", said).groups())
    value = parsed(frame.locator(".readouts strong").inner_text())
    assert value == pytest.approx(float(truth[channel, y, x]), abs=float(np.ptp(truth[channel])) / 254)
    assert not troubles
    page.context.close()
