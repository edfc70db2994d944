"""The lines of all layers at once equal the receptive fields found unit by unit."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torchvision.models import alexnet, resnet18

from layerscope.units import receptive_field
from layerscope.units.geometry import geometry
from layerscope.units.place import visiting


def places(model, x):
    found = {}
    with visiting(model, lambda key, _module, _output, place: found.update({key: place.grid})), torch.no_grad():
        model(x)
    return {key: grid for key, grid in found.items() if len(grid) == 2}


def uneven():
    return nn.Sequential(
        nn.Conv2d(3, 4, (5, 3), stride=(3, 1), padding=(0, 2), dilation=(1, 2)),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate"),
    )


@pytest.mark.parametrize(
    ("make", "size"), [(uneven, (41, 30)), (alexnet, (127, 95)), (resnet18, (96, 64))],
    ids=["uneven", "alexnet", "resnet18"],
)  # fmt: skip
def test_lines_are_the_receptive_fields_unit_by_unit(make, size):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(1, 3, *size)
    lines = geometry(model, x)
    grids = places(model, x)
    assert set(lines) == set(grids)
    rng = random.Random(0)
    for key in rng.sample(sorted(grids), min(6, len(grids))):
        height, width = grids[key]
        for y, column in {(0, 0), (height - 1, width - 1), (rng.randrange(height), rng.randrange(width))}:
            box = receptive_field(model, key, (y, column), x).box
            rows, columns = lines[key]
            assert (rows.ends(y), columns.ends(column)) == box, (key, y, column)


def test_the_network_is_left_as_it_was():
    model = uneven().train()
    geometry(model, torch.zeros(1, 3, 41, 30))
    assert model.training and not any(module._forward_hooks for module in model.modules())
