"""The arithmetic of a unit: patch x kernel + bias equals what the layer produced, to float precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from layerscope.activations.hooks import looking
from layerscope.errors import LayerscopeError, UsageError
from layerscope.units import arithmetic
from layerscope.units.place import arguments, run_to_layer
from tests.units.zoo import ZOO, Net, conv

KNOWN = (nn.modules.conv._ConvNd, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def asked():
    """Every call of every layer of the zoo that has an arithmetic."""
    for name, make in ZOO.items():
        model = make().model
        for path, module in model.named_modules():
            inside = any(path.startswith(f"{outer}.") for outer in ("attention", "encoder.self_attn"))
            # A network's own linear layers inside a fused call never run by themselves.
            never = inside or path.startswith("encoder.") or (name, path) == ("functional_operations", "a")
            if path and isinstance(module, KNOWN) and not never:
                yield name, path
    yield from [("called_often", "mix:1"), ("residual", "2.relu:1"), ("called_often", "act:2")]


@pytest.mark.parametrize(("name", "layer"), list(asked()))
def test_the_sum_equals_what_the_layer_produced(name, layer):
    animal = ZOO[name]()
    with looking(animal.model):
        place, output = run_to_layer(
            animal.model, layer, arguments(animal.x), lambda output, place: (place, output.clone())
        ).result
    rng = np.random.default_rng(0)
    corners = [tuple(0 for _ in place.grid), tuple(size - 1 for size in place.grid)]
    for position in [*corners, *(tuple(int(rng.integers(size)) for size in place.grid) for _ in range(4))]:
        channel = int(rng.integers(place.channels))
        found = arithmetic(animal.model, layer, channel, position, animal.x)
        assert found.value == float(output[place.index(channel, position)])
        allowed = 1e-2 if output.dtype == torch.bfloat16 else 1e-5
        assert abs(found.sum - found.value) <= allowed * found.scale, (channel, position)
        if found.kernel is not None:
            assert found.kernel.shape == found.patch.shape
            assert len(found.inputs) == len(found.patch)
            assert found.products.sum() + found.bias == pytest.approx(found.sum, abs=1e-12)
        json.dumps(found.to_json(), allow_nan=False)


def test_groups_say_which_channels_the_patch_shows():
    animal = ZOO["groups"]()  # four channels in two groups, eight out
    found = arithmetic(animal.model, "0", 5, (0, 0), animal.x)
    assert found.inputs == (2, 3)
    assert (found.patch[:, 0, :] == 0).all()  # padding above the first row
    np.testing.assert_array_equal(found.patch[:, 1:, 1:], animal.x[0, 2:, :2, :2])


def test_padding_is_filled_in_by_its_mode():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    for mode, first in [("reflect", 5), ("replicate", 0), ("circular", 15), ("zeros", 0)]:
        found = arithmetic(nn.Sequential(conv(1, 1, padding_mode=mode)), "0", 0, (0, 0), x)
        assert found.patch[0, 0, 0] == first, mode


def test_in_place_operations_change_neither_input_nor_value():
    """A ReLU overwrites the input of a convolution after the fact, and another one its output."""
    torch.manual_seed(0)
    net = Net(lambda n, x: n.act(n.conv(x)) + n.act(x).sum(), conv=conv(2, 2), act=nn.ReLU(True))
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = net.conv(x)
    negative = (want[0, 0] < 0).nonzero()[0].tolist()
    found = arithmetic(net, "conv", 0, negative, x)
    assert found.value == want[0, 0, negative[0], negative[1]] < 0
    before = arithmetic(net, "act", 0, negative, x)
    assert before.terms["x"] == found.value
    assert before.value == 0


def test_the_rules_without_a_kernel():
    animal = ZOO["norms"]()
    norm = arithmetic(animal.model, "1", 2, (3, 4), animal.x)
    terms = norm.terms
    by_hand = (terms["x"] - terms["mean"]) / (terms["var"] + terms["eps"]) ** 0.5 * terms["weight"] + terms["bias"]
    assert norm.value == pytest.approx(by_hand, rel=1e-5)
    assert norm.kernel is None
    pool = arithmetic(nn.Sequential(nn.MaxPool2d(3, 2, 1)), "0", 0, (0, 1), torch.arange(64.0).view(1, 1, 8, 8))
    assert (pool.value, pool.terms) == (11.0, {"from row": 1.0, "from column": 3.0})
    assert pool.patch.shape == (1, 2, 3)  # the row of padding is no candidate
    assert "max of the window" in pool.line


def test_a_weight_that_is_computed_is_the_one_that_was_used():
    net = nn.Sequential(weight_norm(conv(3, 4)))
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(3)
    found = arithmetic(net, "0", 1, (2, 2), torch.randn(1, 3, 6, 6))
    assert abs(found.sum - found.value) <= 1e-5 * found.scale


def test_a_class_that_computes_something_else_is_found_out():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std(
                (1, 2, 3), keepdim=True
            )
            return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)

    with pytest.raises(LayerscopeError, match=r"0: Standardised produced .* computes something else than its class"):
        arithmetic(nn.Sequential(Standardised(3, 4, 3)), "0", 0, (1, 1), torch.randn(1, 3, 6, 6))


def test_what_cannot_be_is_said():
    animal = ZOO["norms"]()
    with pytest.raises(LayerscopeError, match=r"3: GroupNorm has no arithmetic .* ask a convolution"):
        arithmetic(animal.model, "3", 0, (0, 0), animal.x)
    with pytest.raises(UsageError, match="channel 9: the layer has channels 0 to 3"):
        arithmetic(animal.model, "0", 9, (0, 0), animal.x)
    with pytest.raises(UsageError, match="position 8, 0: give 2 numbers: 0 to 7, 0 to 8"):
        arithmetic(animal.model, "0", 0, (8, 0), animal.x)
    with pytest.raises(LayerscopeError, match="a batch norm without running statistics"):
        net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
        arithmetic(net, "0", 0, (0, 0), torch.randn(1, 3, 4, 4))
