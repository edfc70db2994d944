"""`unit` and `evidence` from a path to plain data, and the pages that are drawn of them."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import layerscope
from layerscope.errors import NoMatch, UsageError
from layerscope.networks.foreign import FRAMES
from layerscope.networks.open import open_network
from layerscope.records.units import Field
from layerscope.server.live import _position
from layerscope.units import UnitInspector, evidence, unit
from layerscope.views.unit import evidence_page, unit_page
from tests.units.zoo import ZOO


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_look_at_a_unit_of_a_users_network(small, photo):
    found = unit(small, str(photo), "block.conv", 2)
    assert found.value == found.map.max()  # by default the channel's greatest value
    assert found.value == found.map[found.position]
    assert unit(small, str(photo), "block.conv", 2, (50, 60)).field.size == (7, 7)
    assert found.field.mask.shape == found.effective.shape == found.picture.pixels.shape[:2] == (224, 224)
    assert abs(found.arithmetic.sum - found.value) < 1e-5 * found.arithmetic.scale
    said = found.text()
    assert "block.conv  channel 2 at" in said
    assert "pixels: rows" in said
    assert "sum of 54 products" in said


def test_a_look_as_json(small, photo):
    body = json.loads(json.dumps(unit(small, str(photo), "block.relu:1", 0, (5, 7)).to_json(), allow_nan=False))
    assert body["layer"] == "block.relu:1"
    assert body["position"] == [5, 7]
    assert body["receptive_field"]["box"] == [[7, 14], [11, 18]]
    assert body["arithmetic"]["formula"] == "max(x, 0)"
    assert body["arithmetic"]["sum"] == body["value"]
    kernel = unit(small, str(photo), "stem", 1, (0, 0)).to_json()["arithmetic"]
    assert np.shape(kernel["patch"]) == np.shape(kernel["kernel"]) == np.shape(kernel["products"]) == (3, 3, 3)
    # float32 comes back from the text as it was
    np.testing.assert_array_equal(np.float32(kernel["kernel"]), small.stem.weight[1].detach())


def test_what_cannot_be_had_is_a_note(small):
    found = unit(small, torch.randn(1, 3, 32, 40), "block", 0)
    assert found.arithmetic is None
    assert any("Block has no arithmetic" in note for note in found.notes)
    assert "note: block: Block has no arithmetic" in found.text()
    inference = ZOO["inference_mode"]()
    assert unit(inference.model, inference.x, "b", 0).effective is None
    with pytest.raises(UsageError, match="channel 6: the layer has channels 0 to 5"):
        unit(small, torch.randn(1, 3, 32, 40), "block", 6)
    with pytest.raises(NoMatch, match="spare: never ran on this input"):
        unit(small, torch.randn(1, 3, 32, 40), "spare", 0)


def test_nan_does_not_stop_a_look(small):
    with torch.no_grad():
        small.stem.weight[0] = float("nan")
    found = unit(small, torch.randn(1, 3, 32, 40), "stem", 0)
    assert np.isnan(found.value)
    unit_page(found)


@pytest.mark.parametrize(
    "name", ["chain", "vit", "one_dimension", "three_dimensions", "norms", "channels_last_layers", "lstm", "pools"]
)
def test_every_kind_of_unit_has_a_page(name):
    animal = ZOO[name]()
    for layer in animal.layers:
        page = pixels(unit_page(unit(animal.model, animal.x, layer, 0)))
        assert page.shape[1:] == (1176, 3)
        assert 500 < page.shape[0] < 1100


def test_the_page_frames_the_receptive_field(small, photo):
    page = pixels(unit_page(unit(small, str(photo), "block.conv", 2, (50, 60))))
    panel = page[114 : 114 + 264, 24 : 24 + 264].astype(int)  # the photo, 264 pixels for 224
    orange = (np.abs(panel - [255, 176, 59]).sum(2) < 40).nonzero()
    box = unit(small, str(photo), "block.conv", 2, (50, 60)).field.box
    for axis in (0, 1):
        for found, want in zip((orange[axis].min(), orange[axis].max() + 1), box[axis], strict=True):
            assert abs(found - want * 264 / 224) <= 3


def test_the_evidence_for_a_class(small, photo):
    pytest.importorskip("captum")
    found = evidence(small, str(photo), target=3, window=64, stride=32)
    assert found.layer == "block"
    assert (found.target, found.label) == (3, "class 3")
    assert found.cam.shape == (112, 112)
    assert found.cam_full.shape == found.occlusion.shape == (224, 224)
    body = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert np.shape(body["occlusion"]["drop"]) == (7, 7)
    np.testing.assert_array_equal(np.float32(body["grad_cam"]), found.cam)
    said = found.text()
    assert "class 3" in said
    assert "occlusion  strongest at row" in said
    page = pixels(evidence_page(found))
    assert page.shape == (518, 1152, 3)
    flat = dataclasses.replace(
        found, cam_full=np.zeros((224, 224), np.float32), occlusion=np.zeros((224, 224), np.float32)
    )
    assert not np.array_equal(pixels(evidence_page(flat)), page)


def test_progress_is_told(small):
    pytest.importorskip("captum")
    told = []
    evidence(small, torch.randn(1, 3, 32, 32), layer="stem", progress=lambda *step: told.append(step))
    done, of, _ = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == of[-1] == of[0]


def test_a_field_that_is_empty_has_an_empty_box():
    assert Field("x", (), np.zeros((4, 5), bool)).box == ((0, 0), (0, 0))
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    net[0].forward = lambda x: torch.zeros(1, 4, 5, 5)  # depends on nothing
    found = unit(net, torch.randn(1, 3, 5, 5), "0", 0)
    assert found.field.size == (0, 0)
    unit_page(found)


def test_another_unit_of_the_last_layers_takes_one_pass_and_says_the_same(small):
    x = torch.randn(1, 3, 24, 24)
    passes: list[int] = []
    small.stem.register_forward_pre_hook(lambda *_: passes.append(1))

    def taken(inspector: UnitInspector, layer: str, *at: int) -> int:
        before = len(passes)
        found = inspector.inspect(layer, 1, at, gradient=False)
        count = len(passes) - before
        assert found.to_json() == unit(small, x, layer, 1, at).to_json()
        assert found.effective is None
        return count

    inspector = UnitInspector(small, x)
    assert [taken(inspector, "block.conv", *at) for at in ((1, 1), (5, 6), (0, 0))] == [3, 1, 1]
    assert taken(inspector, "bn", 2, 2) == 3
    assert taken(inspector, "block.conv", 3, 3) == 1
    poor = UnitInspector(small, x, budget_bytes=1)
    assert [taken(poor, layer, 1, 1) for layer in ("block.conv", "block.conv", "bn", "block.conv")] == [3, 1, 3, 3]


class Patches(nn.Module):
    """Patches of 16 x 16 pixels, tokens without a place in front of them, and a linear layer."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.patch, self.fc, self.head = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 8), nn.Linear(8, 5)
        self.tokens = nn.Parameter(torch.randn(1, tokens, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.fc(torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)).mean(1))


@pytest.mark.parametrize(("tokens", "height", "width"), [(0, 9, 16), (5, 14, 14), (1, 4, 25)])
def test_tokens_lie_on_the_grid_of_their_patches(tokens, height, width):
    """9 x 16 patches are as many as 12 x 12, and 5 tokens in front are no square's rest."""
    torch.manual_seed(0)
    model, x = Patches(tokens).eval(), torch.randn(1, 3, 16 * height, 16 * width)
    y, x_ = height - 2, width - 3
    found = unit(model, x, "fc", 2, (y, x_))
    assert found.map.shape == (height, width)
    assert found.field.box == ((16 * y, 16 * y + 16), (16 * x_, 16 * x_ + 16))
    with torch.no_grad(), layerscope.capture(model, "fc") as seen:
        model(x)
    assert found.value == pytest.approx(float(seen["fc"][0, tokens + y * width + x_, 2]), rel=1e-6)
    assert layerscope.features(model, x)["fc"].maps[0].shape == (8, height, width)
    entry = layerscope.features(model, x)["fc"]
    assert _position(entry, (y, x_)) == [y, x_]


def test_a_unit_of_a_network_that_takes_clips(photo):
    class Clips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.stem(x).mean((2, 3, 4)))

    network = open_network(Clips().eval())
    network.preprocessing = network.preprocessing.changed(12, None, None, None, None)
    assert network.takes == "clips"
    found = unit(network, photo, "stem", 1)
    assert found.map.shape == (FRAMES, 12, 12)
    with pytest.raises(UsageError, match="evidence is for networks of images"):
        evidence(network, photo)
    network.takes = "images"
    with pytest.raises(UsageError, match="takes a list of images"):
        unit(network, photo, "stem", 1)
