"""A training in the page: its steps on a slider, followed while it runs, two steps compared, and as a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope
from layerscope.server import runs
from layerscope.watching.run import open_run
from layerscope.watching.store import name_of
from tests.browsing import served
from tests.web.accessible import needs_axe, violations

expect = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright").expect

pytestmark = pytest.mark.browser

#: keeps in `window.seen` what is drawn, in turn
SEEING = """() => {
  const stage = document.querySelector("#stage");
  window.seen = [];
  new MutationObserver(() => stage.dataset.drawn !== window.seen.at(-1) && window.seen.push(stage.dataset.drawn))
    .observe(stage, { attributes: true, attributeFilter: ["data-drawn"] });
}"""


class Training:
    """A network that learns under a watch, step by step."""

    def __init__(self, logdir: Path) -> None:
        torch.manual_seed(0)
        self.logdir, self.random = logdir, torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        probe = torch.randn(2, 3, 12, 12, generator=self.random)
        options: dict[str, Any] = {"probe": probe, "graph": False, "tensorboard": False, "say": lambda line: None}
        self.watch = layerscope.watch(self.net, logdir, every=1, **options)

    def step(self) -> None:
        self.optimizer.zero_grad()
        images = torch.randn(4, 3, 12, 12, generator=self.random)
        loss = cross_entropy(self.net(images), torch.arange(4) % 3)
        loss.backward()
        self.optimizer.step()
        self.watch.step(loss=loss)

    def kill(self, channel: int) -> None:
        """From the next step on this channel is dead."""
        with torch.no_grad():
            self.net[0].bias[channel] = -100.0


@pytest.fixture
def training(tmp_path) -> Iterator[Training]:
    made = Training(tmp_path / "run")
    with made.watch:
        for step in range(1, 6):
            if step == 4:
                made.kill(2)
            made.step()
        yield made


@pytest.fixture
def live(training, open_page, chromium, monkeypatch) -> Iterator[Any]:
    """live(link) -> the page on the run; `strict=False` where the server refuses something: browsers log that."""
    monkeypatch.setattr(runs, "POLL_S", 0.05)
    pages = []
    with served(training.logdir) as viewer:

        def go(link: str = "", drawn: str = "0|0@5", strict: bool = True) -> Any:
            page = open_page(viewer.url) if strict else chromium.contexts[0].new_page()
            pages.append(page)
            if not strict:
                page.goto(viewer.url)
            if link:
                page.goto(f"http://127.0.0.1:{viewer.port}/{link}")
                page.reload()
            at(page, drawn)
            return page

        yield go
        for page in pages:
            page.goto("about:blank")  # its stream would keep the server waiting


def at(page: Any, drawn: str) -> None:
    expect(page.locator("#stage")).to_have_attribute("data-drawn", drawn)


def test_the_newest_step_is_shown_and_the_slider_leads_to_the_others(live, training):
    page = live()
    expect(page.locator("#step-said")).to_contain_text("5 of 5")
    loss = open_run(training.logdir).scalars["loss"]
    expect(page.locator("#step-said")).to_contain_text(f"loss {loss[-1][1]:.4g}".rstrip("0"))
    page.locator("#step").fill("1")
    at(page, "0|0@2")
    expect(page.locator("#step-said")).to_contain_text("step 2")
    expect(page).to_have_url(re.compile("step=2"))
    total = open_run(training.logdir).record(2)["0"].total
    expect(page.locator("#channel-pane")).to_contain_text(f"{total.mean[0]:.4g}".replace("-", "−"))


def test_keys_step_and_what_is_chosen_stays(live):
    page = live("#layer=1&channel=3&range=layer&step=3", "1|0@3")
    for key, step in ((",", 2), (",", 1), (",", 1), (".", 2)):
        page.keyboard.press(key)
        at(page, f"1|0@{step}")
    expect(page.locator("#crumbs")).to_contain_text("channel 3")
    expect(page.locator('#choose-range [aria-pressed="true"]')).to_have_text("layer")
    expect(page.locator("#layer-list [aria-current]")).to_have_attribute("data-key", "1")
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")  # the slider's own
    at(page, "1|0@3")
    page.keyboard.press(".")
    at(page, "1|0@4")


def test_nothing_jumps_when_the_step_changes(live):
    page = live("#layer=0&step=3", "0|0@3")
    page.keyboard.press("+")
    page.locator("#layer-list").evaluate("list => (list.scrollTop = 60)")
    places = """() => ["#layer-list", "#stage", "#histogram-canvas", "#channel-pane"].map((name) => {
      const { x, y, width, height } = document.querySelector(name).getBoundingClientRect();
      return [x, y, width, height, document.querySelector(name).scrollTop];
    })"""
    before = page.evaluate(places)
    assert before[0][4] == 60
    page.keyboard.press(",")
    at(page, "0|0@2")
    assert page.evaluate(places) == before
    page.locator('[data-key="0.weight"]').click()
    expect(page.locator("#plain canvas")).to_be_visible()
    page.keyboard.press(".")
    expect(page.locator("#step-said")).to_contain_text("step 3")
    expect(page.locator("#layer-list [aria-current]")).to_have_attribute("data-key", "0.weight")


def test_a_link_names_its_step_and_does_not_follow(live, training):
    page = live("#layer=0&step=2", "0|0@2")
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    training.step()
    page.locator("#against option", has_text="with step 6").wait_for(state="attached")
    at(page, "0|0@2")
    page.evaluate("location.hash = '#layer=0&step=4&channel=1'")
    at(page, "0|0@4")


def test_a_running_training_is_followed(live, training):
    page = live("#layer=1&channel=3", "1|0@5")
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
    training.step()
    at(page, "1|0@6")
    expect(page.locator("#crumbs")).to_contain_text("channel 3")
    page.keyboard.press(",")
    at(page, "1|0@5")
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    training.step()
    expect(page.locator("#step-said")).to_contain_text("5 of 7")
    at(page, "1|0@5")
    page.keyboard.press("f")
    at(page, "1|0@7")


def test_the_page_waits_for_the_first_step(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "POLL_S", 0.05)
    with served(tmp_path / "run" / "later") as viewer:
        page = chromium.contexts[0].new_page()
        page.goto(viewer.url)
        expect(page.locator("#busy")).to_contain_text("waiting for the first step of ")
        made = Training(tmp_path / "run" / "later")
        with made.watch:
            made.step()
            expect(page.locator("#step-said")).to_contain_text("1 of 1")
            at(page, "0|0@1")
            expect(page.locator("#busy")).to_be_hidden()
        page.close()


def test_play_goes_through_all_steps_and_ends(live):
    page = live("#layer=1&step=1", "1|0@1")
    page.evaluate(SEEING)
    page.keyboard.press("p")
    expect(page.get_by_label("pause")).to_be_visible()
    at(page, "1|0@5")
    expect(page.get_by_label("play", exact=True)).to_be_visible()
    assert page.evaluate("window.seen") == ["1|0@2", "1|0@3", "1|0@4", "1|0@5"]
    page.keyboard.press("p")  # from the end it begins anew
    page.wait_for_function("() => window.seen.length === 9")
    assert page.evaluate("window.seen")[4:] == [f"1|0@{step}" for step in range(1, 6)]


def test_two_steps_are_compared(live, training):
    page = live("#layer=0&channel=1&step=5", "0|0@5")
    page.locator("#against").select_option("1")
    at(page, "0|0@5~1")
    expect(page).to_have_url(re.compile("against=1"))
    expect(page.locator("#side-a")).to_contain_text("step 5")
    expect(page.locator("#crumbs")).to_contain_text("channel 1")
    page.keyboard.press("2")
    expect(page.locator("#swipe")).to_be_visible()
    expect(page.locator("#side-b")).to_contain_text("step 1")
    run = open_run(training.logdir)
    a, b = (run.record(step)["0"].columns for step in (5, 1))
    assert f"{a.max[1]:.4g}" != f"{b.max[1]:.4g}"
    for one in (a, b):
        expect(page.locator("#channel-pane")).to_contain_text(f"{np.float32(one.max[1]):.4g}")
    page.keyboard.press("4")
    expect(page.locator("#side-a")).to_have_text("A − B")
    page.keyboard.press(".")
    page.keyboard.press(",")
    at(page, "0|0@4~1")
    page.locator("#against").select_option("-1")
    at(page, "0|0@4")
    expect(page.locator("#group-mode")).to_be_hidden()


def test_an_event_leads_to_its_layer_channel_and_step(live):
    page = live("#layer=4", "4|0@5")
    page.locator("#events summary").click()
    expect(page.locator("#events summary")).to_have_text("1 event")
    page.locator("#events button", has_text="step 4: 1 (after 0) lost 1 of 6 channels").click()
    at(page, "1|0@4")
    expect(page.locator("#crumbs")).to_contain_text("channel 2")
    expect(page.locator("#channel-pane .chip.dead")).to_be_visible()
    expect(page.locator('#curve [data-kind="dead"]')).to_have_count(1)
    expect(page.locator('.layer[data-key="1"] .finding')).to_be_visible()
    page.keyboard.press(",")
    at(page, "1|0@3")
    expect(page.locator('.layer[data-key="1"] .finding')).to_have_count(0)


def test_weights_gradients_and_updates_hang_below_their_layer(live):
    page = live()
    lines = page.locator("#layer-list .layer")
    keys = lines.evaluate_all("all => all.map((one) => one.dataset.key)")
    names = ["0.weight", "0.weight/grad", "0.weight/update", "0.bias", "0.bias/grad", "0.bias/update"]
    assert keys[:9] == ["0", "0/batch", *names, "1"]
    page.locator('[data-key="0.weight/grad"]').click()
    expect(page.locator("#plain")).to_contain_text("A run keeps its distribution")
    expect(page.locator("#plain canvas")).to_be_visible()


def test_a_damaged_step_is_passed_over_and_named(live, training):
    page = live("#layer=0&step=5", "0|0@5", strict=False)
    path = training.logdir / "layerscope" / name_of(2)
    path.write_bytes(path.read_bytes()[:400])
    page.evaluate("location.hash = '#layer=0&step=2'")
    at(page, "0|0@1")
    expect(page.locator("#events li").first).to_contain_text("step 2 is skipped")
    page.keyboard.press(".")
    at(page, "0|0@3")


def test_another_run_in_its_place_is_shown(live, training):
    page = live("#step=1", "0|0@1", strict=False)
    page.keyboard.press("f")
    at(page, "0|0@5")
    training.watch.__exit__(None, None, None)
    again = Training(training.logdir)
    with again.watch:
        again.kill(0)
        again.step()
        at(page, "0|0@1")  # its maps were those of the run before
        page.keyboard.press("j")
        expect(page.locator('.layer[data-key="1"] .badge.dead')).to_have_text("1")


def test_a_step_that_cannot_be_read_in_a_file_is_said(training, open_page, tmp_path):
    file = runs.export_run(training.logdir, tmp_path / "run.html", 10_000_000, lambda line: None)
    text = re.sub(r'(id="index-3">)[^<]+', r"\1AAAA", file.read_text())
    file.write_text(text)
    page = open_page(f"{file.as_uri()}#layer=1&step=2")
    at(page, "1|0@2")
    page.keyboard.press(".")
    expect(page.locator("#busy [role=alert]")).to_have_text("the record of step 3 is damaged or cut off")
    page.keyboard.press(".")
    at(page, "1|0@4")
    expect(page.locator("#busy")).to_be_hidden()


@pytest.mark.parametrize("budget", [10_000_000, 200_000])
def test_the_run_as_a_file(training, open_page, tmp_path, budget):
    said: list[str] = []
    file = runs.export_run(training.logdir, tmp_path / "run.html", budget, said.append)
    page = open_page(f"{file.as_uri()}#layer=1&step=1&channel=3")
    at(page, "1|0@1")
    expect(page.locator("#follow")).to_be_hidden()
    page.keyboard.press(".")
    steps = page.evaluate("JSON.parse(document.querySelector('#layerscope-run').textContent).steps")
    assert steps == [1, 2, 3, 4, 5] if budget > 1e6 else steps[0] == 1 and steps[-1] == 5
    at(page, f"1|0@{steps[1]}")
    page.keyboard.press("[")
    page.keyboard.press("]")
    at(page, f"1|1@{steps[1]}")
    page.wait_for_function("() => document.querySelector('#input-image').naturalWidth === 12")
    page.locator("#step").fill(str(len(steps) - 1))
    at(page, "1|1@5")
    page.locator("#against").select_option("1")
    at(page, "1|1@5~1")
    expect(page.locator("#crumbs")).to_contain_text("channel 3")
    assert bool(said) == (len(steps) < 5)


@needs_axe
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_accessibility(open_page, training, theme):
    with served(training.logdir) as viewer:
        page = open_page(viewer.url, color_scheme=theme, bypass_csp=True)
        at(page, "0|0@5")
        assert not violations(page)
        page.locator("#events summary").click()
        assert not violations(page)
        page.goto("about:blank")
