"""Class evidence: Grad-CAM equals the formula by hand on any layout, occlusion equals a plain loop."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from layerscope.errors import ForwardError, LayerscopeError, NoMatch, UsageError
from layerscope.units import evidence, grad_cam, occlusion
from layerscope.units.attribution import class_of, deepest
from tests.units.zoo import ZOO, Block, ConvNext, Net, Vit, conv

captum = pytest.importorskip("captum", reason="an extra")


def classifier(*trunk: nn.Module, width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)).eval()


@pytest.fixture
def x():
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def by_hand(rest, maps, target):
    """Grad-CAM from its definition: maps (1, C, h, w), and the network from there on."""
    maps = maps.detach().requires_grad_()
    rest(maps)[0, target].backward()
    weights = maps.grad.mean((2, 3), keepdim=True)
    return (weights * maps).sum(1)[0].clamp_min(0).detach().numpy()


@pytest.mark.parametrize("target", [None, 0, 3])
def test_grad_cam_equals_its_formula(x, target):
    net = classifier(conv(3, 4), nn.ReLU(), conv(4, 4), nn.ReLU())
    cam, full = grad_cam(net, "2", x, target)
    index = int(net(x).argmax()) if target is None else target
    np.testing.assert_allclose(cam, by_hand(net[3:], net[:3](x), index), atol=1e-7)
    assert cam.dtype == full.dtype == np.float32
    assert full.shape == (16, 16)


def test_in_place_operations_change_nothing(x):
    plain = classifier(conv(3, 4), nn.ReLU(), conv(4, 4), nn.ReLU())
    written = classifier(conv(3, 4), nn.ReLU(True), conv(4, 4), nn.ReLU(True))
    for layer in ("0", "1", "2", "3"):
        np.testing.assert_array_equal(grad_cam(plain, layer, x, 1)[0], grad_cam(written, layer, x, 1)[0])


def test_a_network_that_writes_into_its_input(x):
    plain, written = (classifier(nn.ReLU(inplace), conv(3, 4)) for inplace in (False, True))
    copy = x.clone()
    np.testing.assert_array_equal(grad_cam(plain, "1", x, 1)[0], grad_cam(written, "1", x, 1)[0])
    np.testing.assert_array_equal(occlusion(plain, x, 1, 4, 4), occlusion(written, x, 1, 4, 4))
    assert torch.equal(x, copy)


def test_every_call_of_a_layer_has_its_own(x):
    block = Block(4)
    net = classifier(conv(3, 4), block)
    found = [grad_cam(net, key, x, 2)[0] for key in ("1.relu", "1.relu:1")]
    np.testing.assert_allclose(found[1], by_hand(net[2:], net[:2](x), 2), atol=1e-7)
    stem = net[0](x)
    first = block.bn1(block.conv1(stem)).relu()
    np.testing.assert_allclose(
        found[0], by_hand(lambda maps: net[2:]((block.bn2(block.conv2(maps)) + stem).relu()), first, 2), atol=1e-6
    )
    with pytest.raises(NoMatch, match=r"1.relu:2: is not there; 1.relu gave 1.relu, 1.relu:1"):
        grad_cam(net, "1.relu:2", x, 2)


def test_maps_with_channels_last(x):
    block = ConvNext()
    net = classifier(conv(3, 4, stride=2), block)
    stem = net[0](x)
    hidden = block.up(block.norm(block.depth(stem).permute(0, 2, 3, 1)))  # (1, h, w, 8)

    def rest(maps):
        return net[2:](stem + block.down(block.act(maps.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))

    np.testing.assert_allclose(grad_cam(net, "1.up", x, 1)[0], by_hand(rest, hidden.permute(0, 3, 1, 2), 1), atol=1e-7)


def test_tokens_lie_on_their_grid(x):
    animal = ZOO["vit"]()
    net: Vit = animal.model
    tokens = net.patch(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.token, tokens], 1) + net.place
    normed = net.norm1(tokens)

    def rest(maps):
        y = torch.cat([normed[:, :1], maps.flatten(2).transpose(1, 2)], 1)
        out = tokens + net.attention(y, y, y, need_weights=False)[0]
        return net.head((out + net.mlp(net.norm2(out)))[:, 0])

    want = by_hand(rest, normed[:, 1:].transpose(1, 2).reshape(1, 8, 4, 4), 2)
    np.testing.assert_allclose(grad_cam(net, "norm1", x, 2)[0], want, atol=1e-6)


def test_the_default_layer_is_the_last_that_counts(x):
    assert deepest(classifier(conv(3, 4), nn.ReLU(True), conv(4, 4)), x, 0) == "2"
    # After the attention only the class token goes on: a map of the last layers would be zero everywhere.
    assert deepest(ZOO["vit"]().model, x, 0) == "norm1"
    with pytest.raises(LayerscopeError, match="no layer with a map"):
        deepest(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), x, 0)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (5, 3), ((3, 6), (2, 4))])
def test_occlusion_equals_a_plain_loop(x, window, stride):
    net = classifier(conv(3, 4), nn.ReLU(True), conv(4, 4), nn.ReLU(True))
    found = occlusion(net, x, 1, window, stride, baseline=0.25)
    high, wide = window if isinstance(window, tuple) else (window, window)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    total, covered = np.zeros((16, 16)), np.zeros((16, 16))
    with torch.no_grad():
        whole = net(x)[0, 1].item()
        for row in range(-(-(16 - high) // down) + 1):
            for column in range(-(-(16 - wide) // right) + 1):
                place = np.s_[row * down : row * down + high, column * right : column * right + wide]
                hidden = x.clone()
                hidden[0, :, place[0], place[1]] = 0.25
                total[place] += whole - net(hidden)[0, 1].item()
                covered[place] += 1
    np.testing.assert_allclose(found, total / covered, atol=1e-6)


def test_the_network_is_left_as_it_was(x):
    net = classifier(conv(3, 4), nn.ReLU(True), conv(4, 4)).train()
    net[2].weight.requires_grad_(False)
    copy = x.clone()
    evidence(net, x, window=8, stride=8)
    assert net.training
    assert not net[2].weight.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(x, copy)
    assert not x.requires_grad


def test_the_class_is_predicted_or_chosen(x):
    net = classifier(conv(3, 4))
    labels = ["daisy", "rose", "tulip", "weed", "grass"]
    best = int(net(x).argmax())
    assert class_of(net, x).index == best
    assert class_of(net, x).predicted
    assert class_of(net, x, "tulip", labels).index == class_of(net, x, "2", labels).index == 2
    probability = functional.softmax(net(x)[0], 0)[2].item()
    assert class_of(net, x, 2).probability == pytest.approx(probability)
    with pytest.raises(UsageError, match="target 'tulips': no class of that name; nearest: tulip"):
        class_of(net, x, "tulips", labels)
    with pytest.raises(UsageError, match="target 5: the network has classes 0 to 4"):
        class_of(net, x, 5)


def test_what_cannot_be_is_said(x, monkeypatch):
    net = classifier(conv(3, 4))
    with pytest.raises(UsageError, match="2: its output 1 x 4 has no map of two axes"):
        grad_cam(net, "2", x)
    with pytest.raises(NoMatch, match="no layer 'layer9'"):
        grad_cam(net, "layer9", x)
    with pytest.raises(UsageError, match="window 17 x 17: give 1 to 16 x 16 pixels"):
        occlusion(net, x, window=17)
    with pytest.raises(UsageError, match="stride 5 x 5: give 1 to 4 x 4 pixels"):
        occlusion(net, x, window=4, stride=5)
    with pytest.raises(LayerscopeError, match="no class scores"):
        grad_cam(nn.Sequential(conv(3, 4)), "0", x)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(LayerscopeError, match=r"pip install 'layerscope\[evidence\]'"):
        grad_cam(net, "0", x)
    monkeypatch.undo()
    assert importlib.import_module("captum.attr")


def test_outputs_in_a_dict(x):
    net = Net(
        lambda n, x: {"aux": n.a(x), "logits": n.head(n.a(x).mean((2, 3)))}, a=conv(3, 4), head=nn.Linear(4, 3)
    ).eval()
    assert grad_cam(net, "a:1", x)[0].shape == (16, 16)
    assert grad_cam(net, "a:1", x)[0].any()


def test_what_the_network_raises_is_said_in_a_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(ForwardError, match=r"^Sequential: forward raised RuntimeError on .* \(1, 3, 8, 8\)"):
        evidence(model, torch.randn(1, 3, 8, 8))


def test_scores_that_are_no_numbers_are_said_to_be_none():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model[3].weight.data[:] = float("nan")
    said = evidence(model, torch.randn(1, 3, 16, 16), layer="0").text()
    assert "Grad-CAM   gave no numbers of 0: the network's scores are NaN" in said


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_of_nothing_is_refused(window):
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(UsageError, match=f"window {window} x {window}"):
        evidence(model, torch.randn(1, 3, 16, 16), layer="0", window=window)
