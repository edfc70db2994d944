"""`layerscope layers`: the structure as it runs."""

from __future__ import annotations

import torch
from torch import nn

from layerscope.inspection import layers


def test_the_tree_names_types_shapes_and_parameters(run, code):
    ran = run("layers", f"{code}:small", "--input", "3x32x32")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].endswith("input 1x3x32x32")
    assert "├── stem  Conv2d  1x6x16x16  168 parameters" in lines
    assert "│   └── relu  ReLU  1x6x16x16  ran 2 times" in lines
    assert "└── spare  Linear  28 parameters  never ran" in lines
    assert "7 layers ran, 566 parameters, 566 trainable" in lines
    assert lines[-1] == "never ran: spare"


def test_json(run, code):
    document = run("layers", f"{code}:small", "--json", "--input", "3x32x32").json
    layers = {layer["path"]: layer for layer in document["layers"]}
    assert document["input"] == [1, 3, 32, 32]
    assert (layers["block"]["type"], layers["block"]["leaf"], layers["block"]["calls"]) == ("Block", False, 1)
    assert (layers["block.relu"]["calls"], layers["spare"]["calls"], layers["spare"]["shape"]) == (2, 0, None)
    assert layers["head"]["parameters"] == 28


def test_the_names_are_those_that_features_takes(run, code, photo):
    document = run("layers", f"{code}:small", "--json").json
    for layer in document["layers"]:
        ran = run("features", f"{code}:small", photo, "--layers", layer["path"], "--size", 32, "--json")
        assert ran.code == 0
        assert (layer["path"] in [one["path"] for one in ran.json["layers"]]) == (layer["calls"] > 0)


def test_an_image_instead_of_zeros(run, code, photo):
    document = run("layers", f"{code}:small", "--image", photo, "--size", "24x32", "--json").json
    assert document["input"] == [1, 3, 24, 32]


def test_alexnet_has_the_tutorials_shapes(run):
    document = run("layers", "layerscope:alexnet", "--json").json
    shapes = {layer["path"]: layer["shape"] for layer in document["layers"]}
    assert shapes["features.0"] == [1, 48, 55, 55]
    assert shapes["features.12"] == [1, 128, 6, 6]
    assert shapes["classifier.6"] == [1, 1000]


def test_from_python_it_is_the_same(run, code, small, photo):
    document = run("layers", f"{code}:small", "--json").json
    for found in (layers(f"{code}:small"), layers(small)):
        assert [(one.path, one.calls, list(one.shape or [])) for one in found] == [
            (one["path"], one["calls"], one["shape"] or []) for one in document["layers"]
        ]
    assert layers(small, image=torch.zeros(1, 3, 24, 32))[0].shape == (1, 6, 12, 16)
    assert layers(small, image=str(photo))[0].shape == (1, 6, 112, 112)


def test_a_tied_module_is_one_layer_and_a_lone_module_is_one():
    shared = nn.Conv2d(3, 3, 1)
    found = layers(nn.Sequential(shared, shared), image=torch.zeros(1, 3, 4, 4))
    assert [(one.path, one.calls, one.parameters) for one in found] == [("0", 2, 12)]
    assert [one.path for one in layers(nn.Identity(), image=torch.zeros(1, 3, 4, 4))] == ["Identity"]
