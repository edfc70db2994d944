"""A survey in the page, opened as a file from disk: examples, meaning, sorting, and where a layer is like another."""

from __future__ import annotations

import re

import pytest

from layerscope.views.html import write
from tests.survey import making
from tests.web.accessible import needs_axe, violations

expect = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright").expect

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    return write(making.record(), tmp_path_factory.mktemp("survey") / "a.html").as_uri()


def test_a_channel_shows_its_best_images_and_what_it_follows(open_page, file):
    page = open_page(f"{file}#layer=conv&channel=0")
    tiles = page.locator(".example")
    expect(tiles).to_have_count(2)
    expect(tiles.nth(0)).to_contain_text("dog")  # image 3
    expect(tiles.nth(0)).to_contain_text("3")
    expect(page.locator("#channel-pane")).to_contain_text("followscat")
    expect(page.locator("#channel-pane")).to_contain_text("classes explain80")
    expect(page.locator("#channel-pane")).to_contain_text("same as2")
    expect(page.locator("#channel-pane")).to_contain_text("median1.4")
    page.wait_for_function("""() => {
      const canvas = document.querySelector(".example canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return canvas.width > 20 && data.some((value, at) => at % 4 === 2 && value > 60);
    }""")


def test_an_example_that_is_chosen_is_shown_whole(open_page, file):
    page = open_page(f"{file}#layer=conv&channel=0")
    page.locator(".example").nth(1).click()
    expect(page.locator("#input-name")).to_have_text("cats/1.jpg")
    expect(page).to_have_url(re.compile("image=1"))
    page.wait_for_function("() => document.querySelector('#input-image').naturalWidth === 16")


def test_dead_channels_are_marked_and_have_no_examples(open_page, file):
    page = open_page(f"{file}#layer=conv&channel=1")
    expect(page.locator("#channel-pane .chip.dead")).to_be_visible()
    expect(page.locator(".examples")).to_contain_text("zero everywhere on every image")


def test_channels_are_sorted_by_what_the_survey_knows(open_page, file):
    page = open_page(f"{file}#layer=conv&channel=0")
    page.locator('#choose-sort [data-value="silent"]').click()
    page.get_by_label("next channel").click()  # from channel 0, second in the order 1, 0, 2
    expect(page.locator("#channel-pane h2")).to_have_text(re.compile("2"))
    page.locator('#choose-sort [data-value="class"]').click()
    page.get_by_label("previous channel").click()  # 0, 2, 1
    expect(page.locator("#channel-pane h2")).to_have_text(re.compile("0"))


def test_a_layer_tells_its_rank_its_copies_and_what_is_like_it(open_page, file):
    page = open_page(f"{file}#layer=conv")
    pane = page.locator("#channel-pane")
    expect(pane).to_contain_text("effective rank1.75 of 3")
    expect(pane).to_contain_text("1 pair of channels with one signal")
    expect(pane.locator("canvas.similarity")).to_be_visible()
    pane.get_by_role("button", name=re.compile(r"relu\s+0\.5")).click()
    expect(page).to_have_url(re.compile("layer=relu"))


def test_a_record_without_a_survey_offers_none_of_it(open_page, served):
    page = open_page(served)
    expect(page.locator('#choose-sort [data-value="silent"]')).to_be_hidden()
    expect(page.locator(".example")).to_have_count(0)


@needs_axe
@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("link", ["layer=conv", "layer=conv&channel=0"])
def test_accessibility(open_page, file, theme, link):
    assert not violations(open_page(f"{file}#{link}", color_scheme=theme, bypass_csp=True))
