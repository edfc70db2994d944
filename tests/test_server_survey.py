"""A survey through the viewer's server: what it gives of layers and images, and what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from layerscope.server import Viewer
from layerscope.views.format import profile_block
from tests.browsing import Tab, served, small_record
from tests.survey import making


@pytest.fixture(scope="module")
def shown() -> Iterator[Viewer]:
    with served(making.record()) as viewer:
        yield viewer


def test_what_is_known_of_a_layer_and_its_images(shown):
    tab, record = Tab(shown), making.record()
    index = tab.json("/api/index")
    assert index["classes"] == ["cat", "dog"] and index["layers"][0]["profile"] is True
    assert [one["number"] for one in index["images"]] == [0, 1, 3]
    assert index["similarity"]["value"] == [[1, 0.5], [0.5, 1]]
    assert tab.get("/api/profile/1").body == profile_block(record["relu"].profile)
    image = tab.get("/api/shown/3")
    assert image.headers["content-type"] == "image/webp" and image.body == record.shown[2].data.tobytes()


@pytest.mark.parametrize("path", ["/api/profile/2", "/api/shown/2", "/api/shown/x", "/api/profile/-1"])
def test_what_is_not_there_is_said_in_one_line(shown, path):
    answer = Tab(shown).get(path)
    assert answer.status == 404
    assert "\n" not in json.loads(answer.body)["error"]


def test_a_record_of_features_knows_no_more():
    with served(small_record()) as viewer:
        assert Tab(viewer).get("/api/profile/0").status == 404
