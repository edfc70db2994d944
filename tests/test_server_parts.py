"""What a live network is asked beyond its record: kernels, the class token, attention from a patch, two at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import layerscope
from layerscope.errors import UsageError
from layerscope.networks.feeding import batch_of
from layerscope.networks.open import Network, network_of
from layerscope.server import Viewer
from layerscope.server.parts import State, kernels_of
from layerscope.server.session import Kept
from layerscope.text import json_text
from layerscope.views import format as viewer_format
from tests.browsing import Tab, served, small_record
from tests.conftest import picture


def unpacked(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The values of a block to half a step, (C, h, w), and the size of a step, (C, 1, 1)."""
    channels, height, width, flags = np.frombuffer(data, "<u4", 4)
    assert flags == 0
    low, high = np.frombuffer(data, "<f4", 2 * channels, 16).reshape(2, channels, 1, 1)
    codes = np.frombuffer(data, np.uint8, offset=16 + 36 * channels).reshape(channels, height, width)
    return low + codes * (high - low) / 254, (high - low) / 254


def same(data: bytes, want: np.ndarray) -> None:
    values, step = unpacked(data)
    assert values.shape == want.shape
    assert (np.abs(values - want) <= step / 2 + 1e-6).all()


@pytest.fixture
def live(code, photo) -> Iterator[Tab]:
    with served(f"{code}:small", [photo]) as viewer:
        tab = Tab(viewer)
        assert tab.until("ready", "failed")["state"] == "ready"
        yield tab


def test_the_kernels_of_every_layer_are_what_weights_finds_in_its_checkpoint(live, small, tmp_path):
    index = live.json("/api/index")
    assert index["kernels"] == ["stem.weight", "block.conv.weight", "head.weight", "spare.weight"]
    torch.save(small.state_dict(), tmp_path / "small.pth")
    want = layerscope.weights(tmp_path / "small.pth")
    kernels = live.json("/api/kernels")
    assert kernels["kind"] == "weights"
    assert kernels["layers"] == json.loads(json_text(viewer_format.index(want)))["layers"]
    assert kernels["findings"] == json.loads(json_text(viewer_format.index(want)))["findings"] != []
    for layer in kernels["layers"]:
        assert live.get(f"/api/block/kernels/{layer['id']}/0").body == viewer_format.block(want[layer["key"]], 0)
    assert live.get("/api/block/kernels/999/0").status == 404
    assert live.get("/api/block/kernels/0/1").status == 404


def test_kernels_of_every_type_and_none_that_cannot_be_read():
    model = nn.Module()
    model.sixteen = nn.Parameter(torch.randn(4, 3, 3, 3).half())
    model.brain = nn.Parameter(torch.randn(4, 3, 3, 3).bfloat16())
    model.away = nn.Parameter(torch.empty(4, 4, device="meta"))
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    network = Network(model, "odd")
    assert State(network).kernels == ["sixteen", "brain"]
    record = kernels_of([network])
    for name in ("sixteen", "brain"):
        tensor = getattr(model, name).detach().float()
        assert record[name].total.mean.item() == pytest.approx(tensor.mean().item(), rel=1e-5)


def test_a_record_has_no_kernels_to_ask_for():
    with served(small_record()) as viewer:
        tab = Tab(viewer)
        assert "kernels" not in tab.json("/api/index")
        assert tab.get("/api/kernels").status == 404


@pytest.fixture
def transformer(tmp_path) -> Iterator[SimpleNamespace]:
    """A tiny vision transformer at work: 16 patches, a class token, two heads."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = network_of(VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=3).eval(), "tiny")
    network.preprocessing = network.preprocessing.changed(32, None, None, None, None)
    photo = picture(tmp_path / "photo.png", 40, 40)
    with served(network, [photo]) as viewer:
        tab = Tab(viewer)
        assert tab.until("ready", "failed")["state"] == "ready"
        yield SimpleNamespace(tab=tab, model=network.model, x=batch_of(network, photo)[0])


BLOCK = "encoder.layers.encoder_layer_1"


def test_the_class_token_apart_from_its_patches(transformer):
    with torch.no_grad(), layerscope.capture(transformer.model, f"{BLOCK}.ln_1") as seen:
        transformer.model(transformer.x)
    token = seen[f"{BLOCK}.ln_1"][0, 0].numpy()
    same(transformer.tab.get(f"/api/tokens/{BLOCK}.ln_1/0").body, token[:, None, None])
    assert transformer.tab.get("/api/tokens/conv_proj/0").status == 400
    assert transformer.tab.get("/api/tokens/nothing/0").status == 404
    assert transformer.tab.get(f"/api/tokens/{BLOCK}.ln_1/1").status == 404


def test_attention_from_any_patch_and_on_average(transformer):
    with torch.no_grad(), layerscope.capture(transformer.model, f"{BLOCK}.ln_1") as seen:
        transformer.model(transformer.x)
        given = seen[f"{BLOCK}.ln_1"]
        attention = transformer.model.get_submodule(f"{BLOCK}.self_attention")
        weights = attention(given, given, given, average_attn_weights=False)[1][0].numpy()  # (heads, 17, 17)
    at = f"/api/attention/{BLOCK}.self_attention%2Fattention/0"
    same(transformer.tab.get(f"{at}?y=2&x=1").body, weights[:, 1 + 2 * 4 + 1, 1:].reshape(2, 4, 4))
    same(transformer.tab.get(at).body, weights.mean(1)[:, 1:].reshape(2, 4, 4))
    assert transformer.tab.get(f"{at}?y=4&x=0").status == 400
    assert transformer.tab.get(f"/api/attention/{BLOCK}.ln_1/0").status == 400


def test_two_networks_on_one_image_and_then_on_another(code, photo, tmp_path):
    with served(f"{code}:small", [photo], against="layerscope:alexnet") as viewer:
        tab = Tab(viewer)
        assert tab.until("ready", "failed")["state"] == "ready"
        index = tab.json("/api/index")
        assert (index["kind"], index["live"]) == ("compare", {"image": True, "units": True})
        assert {layer["side"] for layer in index["layers"]} == {"a", "b"}
        assert {"stem.weight", "features.0.weight"} <= set(index["kernels"])
        assert {layer["key"] for layer in tab.json("/api/kernels")["layers"]} >= {
            "a:stem.weight",
            "b:features.0.weight",
        }
        for key in ("a:stem", "b:features.0"):
            unit = tab.json(f"/api/unit/{key}/2/0?y=3&x=4")
            assert unit["layer"] == key[2:]
            assert unit["arithmetic"]["sum"] == pytest.approx(unit["value"], abs=1e-4)
            assert unit["notes"] == []
        assert any(note.startswith("B: ") for note in index["notes"])
        assert tab.get("/api/unit/a:features.0/2/0?y=3&x=4").status == 404
        other = picture(tmp_path / "other.png", 30, 60, seed=5).read_bytes()
        before = tab.get("/api/block/0/0").body
        assert tab.ask("POST", "/api/image?name=other.png", other).status == 200
        with tab.events() as events:
            next(event for event in events if event["version"] == 2)
        assert tab.json("/api/index")["pictures"][0]["name"] == "other.png"
        assert tab.get("/api/block/0/0").body != before


def test_two_networks_without_an_image_wait_for_one(code):
    with served(f"{code}:small", against=f"{code}:small") as viewer:
        tab = Tab(viewer)
        assert tab.until("ready", "failed")["state"] == "ready"
        index = tab.json("/api/index")
        assert (index["kind"], index["layers"], index["subject_b"]) == ("compare", [], index["subject"])


def test_what_cannot_be_put_side_by_side_is_said_at_once(code, photo, tmp_path):
    record = small_record().save(tmp_path / "a.layerscope")
    for given, against in ((record, "layerscope:alexnet"), (f"{code}:small", record)):
        with pytest.raises(UsageError, match="a record is not run"):
            Viewer(given, against=against)
    with pytest.raises(UsageError, match=r"gone\.pth: no such"):
        Viewer(f"{code}:small", against="gone.pth")
    with pytest.raises(UsageError, match="one image"):
        Viewer(f"{code}:small", [photo, photo], against="layerscope:alexnet")


def test_answers_are_kept_within_their_budget():
    kept, made = Kept(100, len), []

    def make(name: str) -> bytes:
        made.append(name)
        return bytes(40)

    for name in ("a", "b", "a", "c", "a", "b"):  # b has to go for c: a was asked for later
        kept.made(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]
    kept.made("huge", lambda: bytes(1000))
    assert len(kept.made("huge", lambda: b"")) == 1000, "the last one stays, whatever its size"
    kept.clear()
    assert kept.made("a", lambda: b"new") == b"new"


def test_a_unit_is_computed_once(live, monkeypatch):
    from layerscope import units

    first = live.get("/api/unit/stem/2/0?y=3&x=4").body
    monkeypatch.setattr(units.UnitInspector, "inspect", None)
    assert live.get("/api/unit/stem/2/0?y=3&x=4").body == first
    assert live.get("/api/unit/stem/2/0?y=3&x=5").status == 500
