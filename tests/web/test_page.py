"""The page in a real browser: what it shows is compared with the arrays that the record was made of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

import layerscope
from layerscope.records.maps import colormap
from layerscope.records.record import Pair
from layerscope.stats import table
from layerscope.text import json_text
from layerscope.views import bundle
from layerscope.views import format as viewer_format
from tests.test_views import RMS, rms_of
from tests.web.accessible import MODULES, needs_axe, violations
from tests.web.serving import Handler, serving

expect = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright").expect

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent

#: the pixel of a canvas under a point of the page
PIXEL = """([sheet, x, y]) => {
  const canvas = document.querySelector(sheet + " canvas.pixels");
  const box = canvas.getBoundingClientRect();
  const ratio = canvas.width / box.width;
  return [...canvas.getContext("2d").getImageData((x - box.left) * ratio, (y - box.top) * ratio, 1, 1).data];
}"""
#: a digest of all pixels
PIXELS = """(sheet) => {
  const canvas = document.querySelector(sheet + " canvas.pixels");
  const data = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return data.reduce((sum, pixel) => (Math.imul(sum, 31) + pixel) | 0, 7);
}"""
TIP = re.compile(r"channel (\d+).*?\((\d+), (\d+)\) = ([^\n]+)", re.S)


def parsed(text: str) -> float:
    return float("nan") if text == "not finite" else float(text.replace("−", "-"))


def pointed(page: Any, across: float, down: float, sheet: str = "#sheet-a") -> tuple[tuple[int, ...], str, list[int]]:
    """Point at a share of the sheet -> (channel, y, x), what the tip says, and the colour there."""
    box = page.locator(f"{sheet} .marks").bounding_box()
    x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
    tip = page.locator("#tip")
    for _ in range(8):  # the point may lie between two tiles
        page.mouse.move(x, y)
        if tip.is_visible():
            break
        x, y = x + 3, y + 4
    found = TIP.search(tip.inner_text())
    assert found, tip.inner_text()
    pixel = page.evaluate(PIXEL, [sheet, int(x) + 0.5, int(y) + 0.5])
    return tuple(int(one) for one in found.groups()[:3]), found[4].strip(), pixel


def near(values: np.ndarray) -> float:
    """Half a step of 8 bits, and four digits in print."""
    return float(np.ptp(values)) / 254 / 2 + 1e-3


def drawn(page: Any, key: str) -> None:
    page.locator(f'#stage[data-drawn="{key}"]').wait_for()


def titled(page: Any, title: str) -> None:
    """The right side is about this channel, or soon will be."""
    expect(page.locator("#channel-pane h2")).to_have_text(title)


def test_opens_with_the_first_layer_drawn(open_page, served):
    page = open_page(served)
    assert page.locator("#stage").get_attribute("data-drawn") == "stem.conv|0"
    assert "12 × 16 × 16" in page.locator("#layer-facts").inner_text()
    assert page.locator(".layer").count() == 4
    assert page.locator("#predictions").inner_text().split()[0] == "tulip"
    expect(page).to_have_title(re.compile("^stem.conv"))


def test_values_and_colours_under_the_pointer_are_those_of_the_array(open_page, served, features):
    truth = features.arrays["layer1.0.conv1"][0]
    page = open_page(f"{served}#layer=layer1.0.conv1")
    spans = {"channel": None, "layer": (truth.min(), truth.max()), "network": wire_span(features.record)}
    for name in ("viridis", "gray"):
        for scope, span in spans.items():
            page.locator(f'#choose-map [data-value="{name}"]').click()
            page.locator(f'#choose-range [data-value="{scope}"]').click()
            for across, down in [(0.03, 0.05), (0.31, 0.4), (0.52, 0.3), (0.7, 0.6), (0.91, 0.22)]:
                (c, y, x), said, pixel = pointed(page, across, down)
                assert parsed(said) == pytest.approx(truth[c, y, x], abs=near(truth[c]))
                low, high = span or (truth[c].min(), truth[c].max())
                step = (truth[c, y, x] - low) / (high - low) * 255
                close = [colormap(name, 256)[int(np.clip(round(step + shift), 0, 255))] for shift in (-1, 0, 1)]
                assert any(np.abs(pixel[:3] - one.astype(int)).max() <= 2 for one in close), (name, scope, step, pixel)


def wire_span(record: layerscope.Record) -> tuple[float, float]:
    totals = [one["total"] for one in viewer_format.index(record)["layers"]]
    return min(one["min"] for one in totals), max(one["max"] for one in totals)


def test_a_link_to_a_place_beyond_the_map_leads_to_its_edge(open_page, served, features):
    page = open_page(f"{served}#layer=layer1.0.conv1&channel=3&y=99&x=4")
    drawn(page, "layer1.0.conv1|0")
    expect(page.locator("#crumbs")).to_contain_text("(6, 4)")
    truth = features.arrays["layer1.0.conv1"][0][3]
    assert parsed(page.locator(".readouts strong").inner_text()) == pytest.approx(truth[6, 4], abs=near(truth))
    page.wait_for_function("location.hash.endsWith('&y=6&x=4')")


def test_what_is_not_finite_is_striped_and_said(open_page, served):
    page = open_page(f"{served}#layer=stem.conv&channel=2&y=3&x=4&map=gray")
    expect(page.locator(".readouts")).to_contain_text("not finite")
    for label in ("NaN", "inf"):
        expect(figure(page, label)).to_have_text("1 · 0.2%")  # of 512 values of two images
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    # In gray every colour has equal parts; the stripes lean to blue.
    blueish = """() => { const c = document.querySelector("#sheet-a canvas.pixels");
      const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
      for (let i = 0; i < d.length; i += 4) n += d[i + 3] && d[i] !== d[i + 2]; return n; }"""
    assert page.evaluate(blueish) > 10
    page.goto(f"{served}#layer=stem.relu&map=gray")
    drawn(page, "stem.relu|0")
    assert page.evaluate(blueish) == 0


def test_filter_choose_and_dead_channels(open_page, served):
    page = open_page(served)
    page.locator("#filter").fill("relu")
    expect(page.locator(".layer").first).to_contain_text("stem.relu")
    assert page.locator("#layer-count").inner_text() == "1 of 4"
    page.locator(".layer").click()
    drawn(page, "stem.relu|0")
    assert page.locator("#layer-facts .dead").inner_text() == "1 dead"
    page.locator("#layer-facts .dead").click()
    page.keyboard.press("Enter")
    titled(page, "channel 5")
    assert page.locator("#channel-pane .chip.dead").is_visible()
    page.locator("#filter").fill("no such layer")
    expect(page.locator("#layer-list")).to_contain_text("nothing matches")


def test_sorting_lays_the_greatest_first(open_page, served, features):
    page = open_page(f"{served}#layer=layer1.0.conv1&sort=max")
    page.keyboard.press("Enter")
    best = int(features.arrays["layer1.0.conv1"][0].max((1, 2)).argmax())
    titled(page, f"channel {best}")


def test_recolouring_asks_the_server_for_nothing(open_page, features):
    with serving(features.record) as (url, log):
        page = open_page(url)
        page.wait_for_timeout(500)  # the neighbour is fetched ahead
        before, seen = len(log), {page.evaluate(PIXELS, "#sheet-a")}
        for value in ("gray", "diverging", "layer", "network"):
            page.locator(f'#controls [data-value="{value}"]').click()
            seen.add(page.evaluate(PIXELS, "#sheet-a"))
        assert len(seen) == 5, "every choice has its own picture"
        assert len(log) == before


def test_keyboard_alone_from_layer_to_value_and_back(open_page, served):
    page = open_page(served)
    page.keyboard.press("j")
    drawn(page, "stem.relu|0")
    page.keyboard.press("k")
    drawn(page, "stem.conv|0")
    page.keyboard.press("Enter")
    titled(page, "channel 0")
    page.keyboard.press("ArrowRight")
    titled(page, "channel 1")
    page.keyboard.press("Enter")
    here = page.locator("#crumbs [aria-current]")
    expect(here).to_have_text(re.compile(r"\(\d+, \d+\)"))
    place = here.inner_text()
    page.keyboard.press("ArrowDown" if "(15" not in place else "ArrowUp")
    expect(here).not_to_have_text(place)
    page.keyboard.press("Escape")
    expect(here).to_have_text("channel 1")
    page.keyboard.press("Escape")
    expect(here).to_have_text("stem.conv")
    page.keyboard.press("/")
    page.keyboard.type("head")
    page.keyboard.press("Enter")
    drawn(page, "head|0")
    page.keyboard.press("]")
    drawn(page, "head|1")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.keyboard.type("conv1 7")
    page.keyboard.press("Enter")
    drawn(page, "layer1.0.conv1|1")
    titled(page, "channel 7")


def test_everything_with_a_function_can_be_reached_with_tab(open_page, served):
    page = open_page(served)
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name = "(e) => e.id || e.dataset.value || e.dataset.key || e.className"
        seen.add(page.evaluate(f"() => ({name})(document.activeElement)"))
    assert {"filter", "search-open", "theme", "help-open", "viridis", "network", "stem.conv"} <= seen
    assert {"histogram-canvas", "marks", "zoom-in"} <= seen


def test_a_deep_link_survives_a_reload(open_page, served):
    page = open_page(f"{served}#layer=layer1.0.conv1&channel=7&y=2&x=3&range=layer&map=gray&sort=std&image=1")
    page.locator(".readouts strong").wait_for()
    state = (page.url, page.evaluate(PIXELS, "#sheet-a"), page.locator(".readouts").inner_text())
    page.reload()
    drawn(page, "layer1.0.conv1|1")
    page.locator(".readouts strong").wait_for()
    assert (page.url, page.evaluate(PIXELS, "#sheet-a"), page.locator(".readouts").inner_text()) == state
    page.keyboard.press("m")
    expect(page).to_have_url(re.compile("map=diverging"))


def test_a_link_to_what_is_not_there_opens_the_first_layer(open_page, served):
    page = open_page(f"{served}#layer=nowhere&channel=9999&y=5&image=77&range=none")
    assert page.locator("#stage").get_attribute("data-drawn") == "stem.conv|1"


def test_zoom_keeps_what_is_under_the_pointer(open_page, served):
    page = open_page(f"{served}#layer=layer1.0.conv1")
    before, *_ = pointed(page, 0.4, 0.4)
    for _ in range(4):
        page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    box = page.locator("#sheet-a .marks").bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"] + 1, box["y"] + 0.4 * box["height"])
    after, *_ = pointed(page, 0.4, 0.4)
    assert after == before
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert pointed(page, 0.4, 0.4)[0] == before


def test_the_brush_chooses_channels_with_values_there(open_page, served, features):
    page = open_page(f"{served}#layer=layer1.0.conv1")
    truth = features.arrays["layer1.0.conv1"][0]
    canvas = page.locator("#histogram-canvas")
    page.locator("#brush-said:not(:empty)").wait_for()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    page.mouse.up()
    page.wait_for_timeout(100)
    low = truth.min() + (box["width"] * 0.9 - 14) / (box["width"] - 28) * (truth.max() - truth.min())
    expected = int((truth.max((1, 2)) >= low).sum())
    assert abs(int(page.locator("#brush-said").inner_text().split()[0]) - expected) <= 1
    page.keyboard.press("Escape")
    expect(page.locator("#brush-said")).to_contain_text("drag")


def test_another_image_shows_its_own_values(open_page, served, features):
    page = open_page(f"{served}#layer=layer1.0.conv1")
    page.locator("#image").select_option("1")
    drawn(page, "layer1.0.conv1|1")
    (c, y, x), said, _ = pointed(page, 0.31, 0.4)
    truth = features.arrays["layer1.0.conv1"][1]
    assert parsed(said) == pytest.approx(truth[c, y, x], abs=near(truth[c]))
    assert page.locator("#predictions").inner_text().split()[0] == "rose"


def test_a_vector_is_a_strip_over_the_range_of_all_of_it(open_page, served, features):
    page = open_page(f"{served}#layer=head&channel=3")
    truth = features.arrays["head"][0].ravel()
    assert parsed(page.locator(".readouts strong").inner_text()) == pytest.approx(truth[3], rel=1e-3)
    assert page.locator('#controls [data-value="layer"]').get_attribute("aria-pressed") == "true"


def test_two_networks_subtracted_swiped_and_side_by_side(open_page, compared):
    with serving(compared.record) as (url, _):
        page = open_page(f"{url}#layer=conv1")
        assert page.locator("#sheet-b").is_visible()
        (c, y, x), *_ = pointed(page, 0.1, 0.3, "#sheet-b")
        tip = page.locator("#tip").inner_text()
        a, b, gap = [parsed(one) for one in re.findall(r"= (\S+)", tip)]
        assert a == pytest.approx(compared.a[c, y, x], abs=0.02)
        assert b == pytest.approx(compared.b[c, y, x], abs=0.02)
        assert gap == pytest.approx(compared.a[c, y, x] - compared.b[c, y, x], abs=0.04)
        page.keyboard.press("2")
        assert page.locator("#swipe").is_visible()
        middle = page.evaluate(PIXELS, "#sheet-a")
        page.locator("#swipe").fill("0")
        page.wait_for_timeout(100)
        assert page.evaluate(PIXELS, "#sheet-a") != middle
        page.keyboard.press("4")
        page.locator('#choose-sort [data-value="change"]').click()
        page.keyboard.press("Enter")
        order = np.abs(compared.a - compared.b).mean((1, 2))
        titled(page, f"channel {int(order.argmax())}")


def test_what_has_no_counterpart_is_said(open_page, compared):
    with serving(compared.record) as (url, _):
        page = open_page(f"{url}#layer=odd")
        assert "shapes differ" in page.locator("#layer-facts").inner_text()
        assert page.locator('#choose-mode [data-value="diff"]').is_disabled()
        page.goto(f"{url}#layer=odd&mode=diff")
        expect(page.locator('#choose-mode [aria-pressed="true"]')).to_have_text("side by side")
        assert page.locator("#sheet-b").is_visible()
        page.goto(f"{url}#layer=a:lonely&mode=diff")
        drawn(page, "a:lonely|0")
        assert "only in A" in page.locator("#layer-facts").inner_text()


def test_blinking_shows_one_and_then_the_other(open_page, compared):
    with serving(compared.record) as (url, _):
        page = open_page(f"{url}#layer=conv1&mode=blink", reduced_motion="reduce")
        first = page.evaluate(PIXELS, "#sheet-a")
        page.wait_for_timeout(900)
        assert page.evaluate(PIXELS, "#sheet-a") == first, "less motion was asked for"
        page.keyboard.press("Space")
        assert page.evaluate(PIXELS, "#sheet-a") != first
        assert page.locator("#side-a").inner_text().startswith("B")


def test_checkpoint_kernels_in_colour_findings_and_histograms(open_page, tmp_path):
    random = np.random.default_rng(0)
    kernels = random.normal(size=(8, 3, 5, 5)).astype(np.float32)
    kernels[3] = kernels[1]
    tensors = {"conv1.weight": kernels, "conv1.bias": random.normal(size=8).astype(np.float32)}
    save_file(tensors, tmp_path / "net.safetensors")
    record = layerscope.weights(tmp_path / "net.safetensors")
    with serving(record) as (url, _):
        page = open_page(f"{url}#layer=conv1.weight&channel=2&y=1&x=4")
        values = [parsed(one) for one in page.locator(".readouts strong").inner_text().split(", ")]
        assert values == pytest.approx(kernels[2, :, 1, 4], abs=near(kernels[2]))
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(page.locator("#channel-pane")).to_contain_text("duplicate kernel")
        assert page.locator(".badge.finding").count() == 1
        page.keyboard.press("k")
        page.locator("#plain canvas").wait_for()


def test_two_checkpoints_as_a_table(open_page, compared):
    record = layerscope.Record("compare", "a.pth", subject_b="b.pth")
    counter = Pair("counter", (), (), "changed", 900.0, 900.0, 1.0)
    record.pairs = [counter, *compared.record.pairs]
    with serving(record) as (url, _):
        page = open_page(url)
        # A number that counts batches says nothing beside tensors: behind them, and without a bar.
        names = page.locator(".pairs tbody th").all_inner_texts()
        assert names == [*(pair.name for pair in compared.record.pairs), "counter"]
        bars = page.locator(".pairs tbody .bar span").evaluate_all("all => all.map((one) => one.style.width)")
        assert bars == ["100%", "0%"]
        assert "changed" in page.locator(".pairs").inner_text()


def test_the_arithmetic_of_a_unit(open_page, features):
    from layerscope import units

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()).eval()
    image = torch.randn(1, 3, 10, 10)
    record = layerscope.features(model, image)

    class Live(Handler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] != ["api", "unit"]:
                return super().do_GET()
            y, x = (int(one) for one in re.findall(r"[yx]=(\d+)", self.path))
            look = units.unit(model, image, parts[2], int(parts[3]), (y, x))
            return self.give(json_text(look.to_json()).encode(), "application/json")

    with serving(record, {"image": True, "units": True}, Live) as (url, _):
        page = open_page(f"{url}#layer=0&channel=2&y=4&x=5")
        page.locator(".unit .result").wait_for()
        with torch.no_grad():
            value = model[0](image)[0, 2, 4, 5].item()
        assert parsed(page.locator(".unit .result strong").inner_text()) == pytest.approx(value, rel=1e-3)
        assert page.locator(".sum-row .sum-value").count() == 3
        parts = [parsed(one) for one in page.locator(".sum-row .sum-value").all_inner_texts()]
        bias = model[0].bias[2].item()
        assert sum(parts) + bias == pytest.approx(value, abs=2e-3)
        said = page.locator(".sum-total div", has_text="bias").locator("dd").inner_text()
        assert parsed(said) == pytest.approx(bias, rel=1e-3)
        assert "3 × 3 pixels" in page.locator(".unit").inner_text()


def test_an_html_file_from_disk(open_page, features, tmp_path):
    from layerscope.views.html import write

    path = write(features.record, tmp_path / "tulip.html")
    page = open_page(f"{path.as_uri()}#layer=layer1.0.conv1&channel=7&y=2&x=3")
    drawn(page, "layer1.0.conv1|0")
    truth = features.arrays["layer1.0.conv1"][0]
    said = page.locator(".readouts strong").inner_text()
    assert parsed(said) == pytest.approx(truth[7, 2, 3], abs=near(truth[7]))
    (c, y, x), said, _ = pointed(page, 0.31, 0.4)
    assert parsed(said) == pytest.approx(truth[c, y, x], abs=near(truth[c]))
    page.keyboard.press("j")
    drawn(page, "head|0")
    assert page.evaluate("document.getElementById('input-image').naturalWidth") == 32
    page.reload()
    drawn(page, "head|0")


def test_a_network_without_an_image_asks_for_one(open_page):
    with serving(layerscope.Record("features", "tiny"), {"image": True, "units": True}) as (url, _):
        page = open_page(url)
        expect(page.locator("#plain")).to_contain_text("drop one here")
        assert page.locator("#file-open").is_visible()


def test_a_layer_that_was_left_out_of_a_file_says_so(open_page, features, tmp_path):
    from layerscope.views.html import write

    path = write(features.record, tmp_path / "small.html", budget_bytes=1)
    page = open_page(path.as_uri())
    expect(page.locator("#plain")).to_contain_text("left out")
    expect(page.locator("#channel-pane")).to_contain_text("std")


def test_light_and_dark_follow_the_system_and_the_choice_stays(open_page, served):
    page = open_page(served, color_scheme="light")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.keyboard.press("t")
    dark = page.evaluate(paper)
    assert light != dark
    page.reload()
    page.locator("#busy").wait_for(state="hidden")
    assert page.evaluate(paper) == dark


def test_nothing_jumps_and_nothing_sticks_out(open_page, served):
    page = open_page(served)
    boxes = """() => ["stage", "scale", "histogram", "channel-pane", "left"]
      .map((id) => JSON.stringify(document.getElementById(id).getBoundingClientRect()))"""
    for width, height in [(1280, 720), (1920, 1080)]:
        page.set_viewport_size({"width": width, "height": height})
        before = page.evaluate(boxes)
        for key in [
            "j",
            "Enter",
            "ArrowRight",
            "Enter",
            "r",
            "m",
            "s",
            "Escape",
            "Escape",
            "j",
            "j",
            "]",
            "[",
            "k",
            "k",
        ]:
            page.keyboard.press(key)
            page.wait_for_timeout(20)
            assert page.evaluate(boxes) == before, key
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_the_page_is_small_and_asks_only_its_own_server(open_page, features):
    with serving(features.record) as (url, log):
        page = open_page(url)
        requests = page.evaluate("() => performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(one.startswith((url, "data:")) for one in requests)
        assert "/web/main.js" in log
    code = "".join(bundle.web_files().values())
    assert len(re.sub(r"^ */\*\*.*?\*/ *\n", "", code, flags=re.S | re.M)) < 150_000, "bytes without JSDoc"


def figure(page: Any, label: str) -> Any:
    """The value beside this label on the right side."""
    name = page.locator("dt", has_text=re.compile(f"^{label}$"))
    return page.locator("#channel-pane .figures div", has=name).locator("dd")


def test_a_planted_statistic_is_shown_and_sorted_by(open_page, served, features, monkeypatch):
    monkeypatch.setattr(table, "STATISTICS", [*table.STATISTICS, RMS])
    page, entry = open_page(f"{served}#layer=layer1.0.conv1"), features.record["layer1.0.conv1"]
    assert [one.inner_text() for one in page.locator("#choose-sort button").all()] == [
        "index", "mean", "std", "min", "max", "RMS", "dead",
    ]  # fmt: skip
    assert parsed(figure(page, "RMS").inner_text()) == pytest.approx(float(rms_of(entry.total)[0]), rel=1e-3)
    page.locator("#choose-sort [data-value=quadratic_mean]").click()
    page.keyboard.press("Enter")
    first = int(np.argmax(rms_of(entry.columns)))
    titled(page, f"channel {first}")
    assert parsed(figure(page, "RMS").inner_text()) == pytest.approx(float(rms_of(entry.columns)[first]), rel=1e-3)
    page.wait_for_function("location.hash.includes('sort=quadratic_mean')")
    page.reload()  # the link is read before the index says that there is such a statistic
    titled(page, f"channel {first}")
    expect(page.locator("#choose-sort [aria-pressed=true]")).to_have_text("RMS")


def test_a_link_to_an_order_that_is_not_there_means_the_first_one(open_page, served):
    page = open_page(f"{served}#layer=layer1.0.conv1&sort=quadratic_mean")
    expect(page.locator("#choose-sort [aria-pressed=true]")).to_have_text("index")
    page.wait_for_function("!location.hash.includes('sort')")


def test_the_chosen_layer_is_seen_in_the_list(open_page, served):
    page = open_page(f"{served}#layer=head", height=400)
    expect(page.locator(".layer[aria-current]")).to_be_in_viewport(ratio=0.9)


def test_a_network_behind_the_real_server(open_page, tmp_path):
    from layerscope.networks.open import network_of
    from tests.browsing import served as viewing

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()).eval()
    photos = []
    for name, seed in (("first.png", 1), ("second.png", 2)):
        photos.append(tmp_path / name)
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)).save(photos[-1])
    with viewing(network_of(model, "tiny"), [photos[0]]) as viewer:
        page = open_page(f"http://127.0.0.1:{viewer.port}/?token={viewer.token}")
        assert "token" not in page.url
        expect(page.locator("#input-name")).to_have_text("first.png")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.locator(".unit .result").wait_for()
        page.locator("#file").set_input_files(photos[1])
        expect(page.locator("#input-name")).to_have_text("second.png")
        drawn(page, "0|0")
        page.locator("#file").set_input_files(__file__)
        expect(page.locator(".trouble")).to_be_visible()
        page.close()  # before its server, or it would complain


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_units_of_the_page():
    files = sorted(map(str, HERE.glob("*.test.mjs")))
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(not (MODULES / "typescript").exists(), reason="npm install was not run in tests/web")
def test_types_of_the_page():
    done = subprocess.run(["npx", "tsc", "-p", "tsconfig.json"], cwd=HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@needs_axe
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_accessibility(open_page, served, compared, theme):
    with serving(compared.record) as (other, _):
        for url in (f"{served}#layer=stem.relu&channel=5&y=3&x=4", f"{other}#layer=conv1&mode=swipe&channel=1"):
            assert not violations(open_page(url, color_scheme=theme, bypass_csp=True))
