"""The page over a live network, or two checkpoints: kernels, class tokens, attention, two networks at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torchvision import models

import layerscope
from tests.browsing import Tab
from tests.browsing import served as viewing
from tests.conftest import picture
from tests.web.serving import serving
from tests.web.test_page import drawn, near, parsed, titled

expect = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright").expect

pytestmark = pytest.mark.browser

Open = Callable[..., Any]


@contextmanager
def at_work(open_page: Open, network: Any, photo: Path, link: str = "", **options: Any) -> Iterator[Any]:
    """The page over a live network that is ready; closed before its server, or it would complain."""
    with viewing(network, [photo], **options) as viewer:
        assert Tab(viewer).until("ready", "failed")["state"] == "ready"
        page = open_page(f"http://127.0.0.1:{viewer.port}/?token={viewer.token}{link}")
        yield page
        page.close()


def tiny(seed: int = 0) -> Any:
    from layerscope.networks.open import network_of

    torch.manual_seed(seed)
    layers = torch.nn.Conv2d(3, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(6, 4, 3)
    network = network_of(torch.nn.Sequential(*layers).eval(), f"tiny{seed}")
    network.preprocessing = network.preprocessing.changed(24, None, None, None, None)
    return network


def values(page: Any) -> list[float]:
    return [parsed(one) for one in re.split(r", |\n", page.locator(".readouts strong").inner_text().strip())]


def test_the_kernels_of_a_layer_and_the_way_back(open_page, photo):
    network = tiny()
    network.model[2].weight.data[1] = network.model[2].weight.data[3]
    first, second = (network.model[at].weight.detach().numpy() for at in (0, 2))
    with at_work(open_page, network, photo) as page:
        page.locator("#channel-pane .wide", has_text="kernels").click()
        drawn(page, "0.weight|0")
        expect(page.locator("#layer-facts")).to_contain_text("6 × 3 × 5 × 5")
        assert parsed(page.locator(".figures dd").first.inner_text()) == pytest.approx(first.mean(), abs=1e-4)
        page.keyboard.press("Enter")
        titled(page, "kernel 0")
        expect(page.locator("#crumbs")).to_have_text("0›weight›kernel 0")
        page.goto(f"{page.url.partition('#')[0]}#layer=0.weight&channel=2&y=1&x=4")
        page.reload()
        drawn(page, "0.weight|0")
        page.locator(".readouts strong").wait_for()
        assert values(page) == pytest.approx(first[2, :, 1, 4], abs=near(first[2]))
        assert page.locator(".layer[aria-current]").get_attribute("data-key") == "0"
        for here in ("kernel 2", "weight", "0"):
            page.keyboard.press("Escape")
            expect(page.locator("#crumbs [aria-current]")).to_have_text(here)
        drawn(page, "0|0")
        page.keyboard.press("Control+k")
        page.keyboard.type("2.weight")
        page.keyboard.press("Enter")
        drawn(page, "2.weight|0")
        expect(page.locator("#channel-pane")).to_contain_text("duplicate kernel")
        page.keyboard.press("Enter")
        titled(page, "kernel 0 on input 0")
        page.keyboard.press("w")
        drawn(page, "2|0")
        page.keyboard.press("w")
        drawn(page, "2.weight|0")
        page.locator("#choose-range [data-value=network]").click()
        most = max(np.abs(first).max(), np.abs(second).max())
        assert parsed(page.locator("#scale-high").inner_text()) == pytest.approx(most, rel=1e-2), "of all tensors"


def test_a_record_of_features_says_where_its_kernels_are(open_page, served):
    page = open_page(served)
    expect(page.locator("#channel-pane")).to_contain_text("layerscope weights CHECKPOINT")
    page.keyboard.press("w")
    expect(page.locator("#crumbs")).to_have_text("stem.conv")


@pytest.fixture
def changed(tmp_path) -> tuple[layerscope.Record, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two checkpoints: kernels that changed, one in colour; a tensor of another shape, and one in A alone."""
    random = np.random.default_rng(0)
    a = {"colour.weight": random.normal(size=(8, 3, 5, 5)), "conv.weight": random.normal(size=(6, 2, 3, 3)),
         "odd.weight": random.normal(size=(4, 1, 3, 3)), "bias": random.normal(size=9)}  # fmt: skip
    a = {name: one.astype(np.float32) for name, one in a.items()}
    b = {name: one + random.normal(size=one.shape).astype(np.float32) / 10 for name, one in a.items() if name != "bias"}
    b["colour.weight"][6] += 1
    b["conv.weight"][4, 1] -= 1
    b["odd.weight"] = b["odd.weight"][:2].copy()
    for name, tensors in (("a", a), ("b", b)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return layerscope.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors"), a, b


def test_the_kernels_of_two_checkpoints_side_by_side_and_subtracted(open_page, changed):
    record, a, b = changed
    with serving(record) as (url, _):
        page = open_page(url)
        expect(page.locator(".pairs")).to_contain_text("in A alone: bias")
        page.locator(".pairs tbody tr", has_text="conv.weight").click()
        drawn(page, "conv.weight|0")
        assert page.locator("#sheet-b").is_visible()
        page.keyboard.press("4")
        page.locator('#choose-sort [data-value="change"]').click()
        page.keyboard.press("Enter")
        titled(page, "kernel 4 on input 0")  # a kernel stays together, and the most changed one comes first
        page.goto(f"{url}#layer=conv.weight&mode=diff&channel=9&y=1&x=2")
        titled(page, "kernel 4 on input 1")
        page.locator(".readouts strong").wait_for()
        said = [parsed(one) for one in re.findall(r"[AB] (\S+)", page.locator(".readouts strong").inner_text())]
        assert said == pytest.approx([a["conv.weight"][4, 1, 1, 2], b["conv.weight"][4, 1, 1, 2]], abs=0.02)


def test_kernels_in_colour_are_sorted_by_their_change(open_page, changed):
    record, a, b = changed
    with serving(record) as (url, _):
        page = open_page(f"{url}#layer=colour.weight&mode=diff&sort=change")
        page.keyboard.press("Enter")
        titled(page, "kernel 6")
        page.keyboard.press("Enter")
        page.locator("#crumbs [aria-current]", has_text="(").wait_for()
        for mode in ("2", "3", "1"):
            page.keyboard.press(mode)
            expect(page.locator("#channel-pane h2")).to_have_text("kernel 6")
        y, x = (int(one) for one in re.findall(r"\d+", page.locator("#crumbs [aria-current]").inner_text()))
        lines = re.findall(r"[AB] (.+)", page.locator(".readouts strong").inner_text())
        lines = [[parsed(one) for one in line.split(", ")] for line in lines]
        for said, tensors in zip(lines, (a, b), strict=True):
            assert said == pytest.approx(tensors["colour.weight"][6, :, y, x], abs=near(tensors["colour.weight"][6]))


def test_kernels_without_a_counterpart_are_said(open_page, changed):
    with serving(changed[0]) as (url, _):
        page = open_page(f"{url}#layer=odd.weight&mode=diff")
        expect(page.locator("#layer-facts")).to_contain_text("nothing to subtract")
        assert "nothing to subtract" in page.locator('#choose-mode [data-value="diff"]').get_attribute("title")
        assert page.locator("#sheet-b").is_visible()
        page.goto(f"{url}#layer=a:bias")
        expect(page.locator("#layer-facts")).to_contain_text("only in A")
        page.locator("#plain canvas").wait_for()


def transformer() -> Any:
    from layerscope.networks.open import network_of

    torch.manual_seed(0)
    network = network_of(models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=3).eval(), "tiny")
    network.preprocessing = network.preprocessing.changed(32, None, None, None, None)
    return network


def test_the_class_token_apart_from_the_patches(open_page, photo):
    from layerscope.networks.feeding import batch_of

    network, path = transformer(), "encoder.layers.encoder_layer_0.ln_1"
    with torch.no_grad(), layerscope.capture(network.model, path) as seen:
        network.model(batch_of(network, photo)[0])
    token = seen[path][0, 0].numpy()
    with at_work(open_page, network, photo, f"#layer={path}&channel=3") as page:
        beside = page.locator(".figures div", has_text="class token").locator("dd")
        assert parsed(beside.inner_text()) == pytest.approx(token[3], rel=6e-3)
        page.locator("#choose-query [data-value=tokens]").click()
        drawn(page, f"{path}|0|tokens")
        expect(page.locator("#crumbs")).to_contain_text("class token›value 3")
        assert parsed(page.locator(".readouts strong").inner_text()) == pytest.approx(token[3], rel=1e-3)
        page.reload()
        drawn(page, f"{path}|0|tokens")
        for _ in range(2):
            page.keyboard.press("Escape")
        drawn(page, f"{path}|0")


def test_what_the_heads_attend_to_from_a_patch_that_is_clicked(open_page, photo):
    from layerscope.networks.feeding import batch_of

    network, path = transformer(), "encoder.layers.encoder_layer_0"
    with torch.no_grad(), layerscope.capture(network.model, f"{path}.ln_1") as seen:
        network.model(batch_of(network, photo)[0])
        given = seen[f"{path}.ln_1"]
        attend = network.model.get_submodule(f"{path}.self_attention")
        truth = attend(given, given, given, average_attn_weights=False)[1][0].numpy()  # (heads, 17, 17)
    key = f"{path}.self_attention/attention"
    with at_work(open_page, network, photo, f"#layer={key.replace('/', '%2F')}&channel=1") as page:
        expect(page.locator("#choose-query [aria-pressed=true]")).to_have_text("class token")
        box = page.locator("#sheet-a .marks").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.7)
        page.locator("#choose-query button", has_text="(").click()
        pressed = page.locator("#choose-query [aria-pressed=true]")
        expect(pressed).to_have_text(re.compile(r"\("))
        y, x = (int(one) for one in re.findall(r"\d+", pressed.inner_text()))
        for step in ((0, 0), (0, -1)):  # the query follows the patch that is chosen
            if step[1]:
                page.keyboard.press("ArrowLeft" if x else "ArrowRight")
                x += step[1] if x else 1
            drawn(page, f"{key}|0|{y},{x}")
            want = truth[1, 1 + 4 * y + x, 1:].reshape(4, 4)[y, x]
            expect(page.locator(".readouts .at")).to_have_text(f"({y}, {x}) = ")
            shown = page.locator(".readouts strong")
            for _ in range(100):  # the panel follows the sheet a frame later
                if parsed(shown.inner_text()) == pytest.approx(want, rel=5e-3):
                    break
                page.wait_for_timeout(50)
            assert parsed(shown.inner_text()) == pytest.approx(want, rel=5e-3)
        page.locator("#choose-query [data-value=mean]").click()
        drawn(page, f"{key}|0|mean")


def test_two_networks_at_work_and_another_image(open_page, photo, tmp_path):
    other = picture(tmp_path / "other.png", 40, 40, seed=3)
    with at_work(open_page, tiny(0), photo, "#layer=0", against=tiny(1)) as page:
        assert page.locator("#sheet-b").is_visible()
        expect(page.locator("#subject")).to_contain_text("tiny1")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        expect(page.locator(".unit .result strong")).to_have_count(2)
        shown = [parsed(one) for one in page.locator(".unit .result strong").all_inner_texts()]
        y, x = (int(one) for one in re.findall(r"\d+", page.locator(".readouts .at").inner_text())[:2])
        for seed, value, side in zip((0, 1), shown, "AB", strict=True):
            unit = layerscope.units.unit(tiny(seed), photo, "0", 0, (y, x))
            assert value == pytest.approx(unit.value, rel=1e-4)
            expect(page.locator(".unit")).to_contain_text(f"how it came about in {side}")
        assert [parsed(one[2:]) for one in page.locator(".readouts strong").inner_text().split("\n")] == shown
        page.keyboard.press("w")
        drawn(page, "0.weight|0")
        assert page.locator("#sheet-b").is_visible()
        assert page.locator('#choose-mode [data-value="diff"]').is_enabled()
        page.locator("#file").set_input_files(other)
        expect(page.locator("#input-name")).to_have_text("other.png")
        drawn(page, "0.weight|0")


def test_escape_closes_the_search_whatever_was_typed(open_page, served):
    page = open_page(served)
    page.keyboard.press("Control+k")
    page.keyboard.type("conv")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_be_hidden()
    page.keyboard.press("j")
    drawn(page, "stem.relu|0")


def test_a_key_right_behind_the_search_is_the_pages_own(open_page, served):
    page = open_page(served)
    page.keyboard.press("Control+k")
    page.evaluate("""() => {  // within one task, so that no frame has taken the focus from the hidden field
      for (const key of ["Escape", "j"]) {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      }
    }""")
    drawn(page, "stem.relu|0")


def test_a_tab_that_found_the_server_full_hears_of_news_later(open_page, photo, tmp_path):
    with viewing(tiny(), [photo]) as viewer:
        assert Tab(viewer).until("ready", "failed")["state"] == "ready"
        page = open_page(f"http://127.0.0.1:{viewer.port}/?token={viewer.token}")
        tries = []

        def answer(route: Any) -> None:
            tries.append(route)
            route.fulfill(status=204) if len(tries) < 2 else route.continue_()

        page.route("**/api/events", answer)
        page.reload()
        drawn(page, "0|0")
        with page.expect_response(lambda one: one.url.endswith("/api/events") and one.status == 200):
            pass  # two seconds after it was refused
        new = picture(tmp_path / "new.png", 40, 40, seed=3)
        assert Tab(viewer).ask("POST", "/api/image?name=new.png", new.read_bytes()).status == 200
        expect(page.locator("#input-name")).to_have_text("new.png")
        assert len(tries) == 2
        page.close()


def test_a_counter_says_what_both_checkpoints_have(open_page, tmp_path):
    for name, count in (("a.pth", 7), ("b.pth", 9)):
        torch.save({"bn.num_batches_tracked": torch.tensor(count)}, tmp_path / name)
    record = layerscope.compare(tmp_path / "a.pth", tmp_path / "b.pth")
    with serving(record) as (url, _):
        page = open_page(f"{url}#layer=bn.num_batches_tracked")
        expect(page.locator("#plain")).to_contain_text("A counter: 7 batches | 9 batches.")
