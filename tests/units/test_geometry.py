"""The lines of all layers at once equal the receptive fields found unit by unit."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torchvision.models import alexnet, resnet18, shufflenet_v2_x0_5

from layerscope.activations.modules import Table
from layerscope.units import receptive_field
from layerscope.units.place import placing
from layerscope.units.receptive import geometry


def places(model, x):
    found, table = {}, Table(model)

    def note(key, _module, _output, place):
        found[key] = place.grid

    with placing(table, table.observable, note), torch.no_grad():
        model(x)
    return {key: grid for key, grid in found.items() if len(grid) == 2}


def uneven():
    return nn.Sequential(
        nn.Conv2d(3, 4, (5, 3), stride=(3, 1), padding=(0, 2), dilation=(1, 2)),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="zeros"),
    )


def shuffled():
    return shufflenet_v2_x0_5(weights=None)


@pytest.mark.parametrize(
    ("make", "size"), [(uneven, (41, 30)), (alexnet, (127, 95)), (resnet18, (96, 64)), (shuffled, (64, 96))],
    ids=["uneven", "alexnet", "resnet18", "shuffled"],
)  # fmt: skip
def test_lines_are_the_receptive_fields_unit_by_unit(make, size):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(1, 3, *size)
    lines = geometry(model, x)
    grids = places(model, x)
    # A pooling into more bins than there are units has its own on no line.
    assert set(lines) >= {key for key, grid in grids.items() if grid != (1, 1)} - {"avgpool"}
    rng = random.Random(0)
    for key in rng.sample(sorted(set(lines) & set(grids)), min(8, len(grids))):
        height, width = grids[key]
        ends = [last for _, last in receptive_field(model, key, (height - 1, width - 1), x).box]
        for y, column in {(0, 0), (height - 1, width - 1), (rng.randrange(height), rng.randrange(width))}:
            box = receptive_field(model, key, (y, column), x).box
            rows, columns = lines[key]
            seen = [
                (low, min(high, end))
                for (low, high), end in zip((rows.ends(y), columns.ends(column)), ends, strict=True)
            ]
            assert tuple(seen) == box, (key, y, column)


def test_what_has_no_rule_has_no_lines():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 3))
    assert set(geometry(model, torch.zeros(1, 3, 20, 20))) == {"0"}


class Layer(nn.Module):
    """A convolution that sees 3 x 3 pixels, and what follows."""

    def __init__(self, follows):
        super().__init__()
        self.conv, self.follows, self.last = nn.Conv2d(3, 4, 3), follows, nn.Identity()

    def forward(self, x):
        return self.last(self.follows(self.conv(x)))


def shifted(x):
    x[:, :, 2:] = x[:, :, :-2].clone()
    return x


def written(x):
    x[:, :1] = nn.functional.max_pool2d(x, 3, 1, 1)[:, :1]
    return x


@pytest.mark.parametrize(("follows", "ends"), [
    (nn.InstanceNorm2d(4), ((0, 21), (0, 17))),  # takes its mean over the image
    (nn.GroupNorm(2, 4), ((0, 21), (0, 17))),
    (lambda x: x.mean(1, keepdim=True) + x.amax(1, keepdim=True), ((5, 8), (4, 7))),
    (lambda x: nn.functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2), ((5, 8), (4, 7))),
    (lambda x: nn.functional.adaptive_avg_pool2d(x, 7), None),
    (lambda x: x.flip(2), None),
    (lambda x: x.roll(1, 2), None),
    (lambda x: x + x.flip(2), None),
    (lambda x: nn.functional.conv2d(x, x.mean((0, 2, 3)).view(1, 4, 1, 1)), ((0, 21), (0, 17))),
    (lambda x: nn.functional.conv2d(x, x.relu()), None),  # a kernel that sees as much, and is not asked for it
    (shifted, None),
    (written, ((4, 9), (3, 8))),
])  # fmt: skip
def test_what_follows_is_asked_for_what_it_needs(follows, ends):
    lines = geometry(Layer(follows), torch.randn(1, 3, 21, 17)).get("last")
    assert (lines and (lines[0].ends(5), lines[1].ends(4))) == ends


def test_a_gate_over_the_whole_image_sees_it_all():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Identity()

        def forward(self, x):
            x = self.conv(x)
            return self.last(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())

    lines = geometry(Gate(), torch.zeros(1, 3, 20, 16))
    assert lines["conv"][0].ends(4) == (4, 7)
    assert lines["last"][0].ends(4) == (0, 20) and lines["last"][1].ends(0) == (0, 16)


def test_the_network_is_left_as_it_was():
    model = uneven().train()
    geometry(model, torch.zeros(1, 3, 41, 30))
    assert model.training and not any(module._forward_hooks for module in model.modules())
