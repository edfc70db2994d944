"""One way to observe a network: whatever asks for a layer gets the same layer, or the same kind of one-line error."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import layerscope
from layerscope import units
from layerscope.activations.hooks import looking, observing
from layerscope.activations.modules import Table, copied, select
from layerscope.activations.planes import pixels_of
from layerscope.errors import NoMatch, UsageError
from tests.conftest import picture
from tests.units.zoo import Net, conv


class Everything(nn.Module):
    """A tied module, a fused attention and a container on (N, 3, 16, 16), and a class score of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.encoder = nn.Sequential(conv(8, 8), nn.ReLU(inplace=True))
        self.decoder = self.encoder  # tied
        self.self_attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.decoder(self.encoder(self.stem(x)))
        tokens = y.flatten(2).transpose(1, 2)  # (N, 256, 8)
        tokens = tokens + self.self_attn(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(tokens.mean(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Everything().eval()


def by_features(model, layer, tmp_path):
    return list(layerscope.features(model, torch.randn(1, 3, 16, 16), layer).entries)


def by_capture(model, layer, tmp_path):
    return list(layerscope.capture(model, torch.randn(1, 3, 16, 16), layers=layer))


def by_unit(model, layer, tmp_path):
    return [units.unit(model, torch.randn(1, 3, 16, 16), layer, 1, gradient=False).layer]


def by_evidence(model, layer, tmp_path):
    pytest.importorskip("captum")
    return [units.evidence(model, torch.randn(1, 3, 16, 16), layer=layer, window=8, stride=8).layer]


def by_survey(model, layer, tmp_path):
    from layerscope.networks.open import open_network

    picture(tmp_path / "a.png", 16, 16)
    network = open_network(model)
    network.preprocessing = network.preprocessing.changed(16, None, None, None, None)
    return list(layerscope.survey(network, tmp_path, layer).entries)


def by_watch(model, layer, tmp_path):
    with layerscope.watch(model, tmp_path / "run", layers=layer, tensorboard=False, say=lambda line: None) as watch:
        return watch.paths


WAYS = [by_features, by_capture, by_unit, by_evidence, by_survey, by_watch]


def whole(model):
    return torch.compile(model, backend="eager")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [lambda model: model, whole, nn.DataParallel], ids=["plain", "compiled", "parallel"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("layer", "first"), [
    ("stem", "stem"), ("decoder.0", "encoder.0"), ("encoder", "encoder"), ("decoder", "encoder"),
])  # fmt: skip
def test_every_way_finds_the_same_layer(model, way, wrap, layer, first, tmp_path):
    assert way(wrap(model), layer, tmp_path)[0] == first


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [lambda model: model, whole, nn.DataParallel], ids=["plain", "compiled", "parallel"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("layer", "said"), [
    ("encodr.0", r"^no layer .*'encodr\.0'; nearest: encoder"),
    ("self_attn.out_proj", r"^self_attn\.out_proj never runs: the module around .*; ask for self_attn$"),
])  # fmt: skip
def test_every_way_says_the_same_of_a_layer_that_cannot_be_had(model, way, wrap, layer, said, tmp_path):
    with pytest.raises(NoMatch, match=said):
        way(wrap(model), layer, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", [by_features, by_capture, by_unit, by_evidence])
def test_a_compiled_part_is_seen_from_inside(model, way, tmp_path):
    model.encoder[0] = torch.compile(model.encoder[0], backend="eager")
    with torch.no_grad():
        model(torch.randn(1, 3, 16, 16))  # hooks that come later never fire in what is compiled now
    assert way(model, "encoder.0._orig_mod", tmp_path)[0] == "encoder.0._orig_mod"


def test_a_module_that_did_not_run_is_explained_to_who_asks_for_a_unit():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last, self.spare = conv(3, 4), conv(4, 4), conv(4, 4)

        def forward(self, x):
            return self.last(self.inner.forward(x))

    with pytest.raises(NoMatch, match=r"^inner: never ran on this input \(the code around calls .forward\(\)"):
        units.unit(Direct(), torch.randn(1, 3, 8, 8), "inner", 0)
    with pytest.raises(NoMatch, match=r"^spare: never ran on this input; ask for another layer$"):
        units.unit(Direct(), torch.randn(1, 3, 8, 8), "spare", 0)


@pytest.mark.parametrize(("layers", "paths"), [
    ((), ["stem", "encoder.0", "encoder.1", "self_attn", "self_attn.out_proj", "head"]),
    ("Conv2d", ["stem", "encoder.0"]),
    (nn.Conv2d, ["stem", "encoder.0"]),
    (nn.modules.conv._ConvNd, ["stem", "encoder.0"]),
    (nn.Sequential, ["encoder"]),
    (["head", nn.ReLU, "decoder.0"], ["encoder.0", "encoder.1", "head"]),
    ({"head"}, ["head"]),
])  # fmt: skip
def test_layers_are_paths_globs_types_or_mixed(model, layers, paths):
    assert select(model, layers).paths == paths


def test_layers_are_module_objects_too(model, tmp_path):
    assert select(model, model.decoder).paths == ["encoder"]  # a Sequential is one layer, not a list of them
    assert select(model, [model.head, nn.ReLU, "st*"]).paths == ["stem", "encoder.1", "head"]
    assert by_features(model, model.encoder[0], tmp_path) == ["encoder.0", "encoder.0:1"]
    assert by_capture(model, model.encoder[0], tmp_path) == ["encoder.0", "encoder.0:1"]
    assert by_survey(model, [model.encoder[0], nn.Linear], tmp_path) == ["encoder.0", "encoder.0:1", "head"]
    with pytest.raises(NoMatch, match=r"^this Linear is no layer of the network; give one of its modules, or a path$"):
        by_features(model, nn.Linear(8, 4), tmp_path)
    with pytest.raises(NoMatch, match=r"^this Everything is no layer of the network"):
        by_capture(model, model, tmp_path)
    with pytest.raises(NoMatch, match=r"^no layer is a Conv3d; nearest: Conv2d"):
        by_features(model, nn.Conv3d, tmp_path)
    with pytest.raises(UsageError, match=r"^layers: 3 names no layer; give a path"):
        by_features(model, [3], tmp_path)


def test_a_name_with_the_signs_of_a_glob():
    model = nn.Sequential()
    model.add_module("a[1]", nn.Identity())
    model.add_module("a1", nn.Identity())
    assert select(model, model[0]).paths == ["a[1]"]


def test_a_network_that_computes_all_by_itself_is_its_own_layer():
    attention, x = nn.MultiheadAttention(8, 2), torch.randn(2, 5, 8)
    record = layerscope.features(attention, (x, x, x))
    assert list(record.entries) == ["MultiheadAttention", "MultiheadAttention[1]"]
    assert record.never == ["out_proj"]
    with pytest.raises(NoMatch, match=r"ask for MultiheadAttention$"):
        layerscope.features(attention, (x, x, x), "out_proj")


def test_a_script_module_is_captured_as_a_whole():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(nn.Sequential(conv(3, 4), nn.ReLU()))
    x = torch.randn(1, 3, 8, 8)
    ((key, value),) = layerscope.capture(script, x).items()
    assert key == type(script).__name__
    assert torch.equal(value, script(x))


def hooks_of(model):
    return [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_whatever_ends_the_block_the_hooks_are_gone(model, error):
    def end(*_):
        if error:
            raise error

    nothing = {"on_input": end, "on_exit": lambda *_: None, "on_shape": lambda *_: None}
    try:
        with observing(model, ["stem", ""], lambda *_: None, replacing=True, fallback=["encoder"], **nothing):
            assert hooks_of(model)
            model(torch.randn(1, 3, 16, 16))
    except BaseException as raised:
        assert type(raised) is error
    assert not hooks_of(model)


def test_what_goes_on_in_place_of_an_output():
    """The second call of a layer is replaced, and one of the tensors in what a layer returns."""
    net = Net(lambda n, x: n.fork(n.a(n.a(x))), a=nn.Identity(), fork=Net(lambda n, x: (x + 1, {"y": [x + 2]})))

    def replace(site, module, tensor):
        return {"a:1": tensor * 10, "fork[1][y]": tensor * 0}.get(site.key)

    with observing(net, ["a", "fork"], replace, replacing=True) as observation:
        first, named = net(torch.ones(2))
    assert first.tolist() == [11, 11] and named["y"][0].tolist() == [0, 0]
    assert observation.calls == {"a": 2, "fork": 1}
    assert net(torch.ones(2))[1]["y"][0].tolist() == [3, 3]


def test_a_block_ends_when_a_callback_says_so_and_no_block_ends_for_another(model):
    x = torch.randn(1, 3, 16, 16)
    with observing(model, ["head"], lambda *_: None) as outer:
        with observing(model, ["stem"], lambda *_: inner.stop()) as inner:
            model(x)
            raise AssertionError("not reached")
        model(x)
    assert (outer.calls, inner.calls) == ({"head": 1}, {"stem": 1})
    after = []
    with observing(model, ["stem"], lambda *_: outer.stop()) as outer:
        with observing(model, ["head"]):
            model(x)
        after.append(1)
    assert not after


def test_a_block_ends_after_so_many_calls_and_learns_how_many(model):
    x, learned, seen = torch.randn(1, 3, 16, 16), Counter(), []
    for _ in range(2):
        with observing(model, ["decoder.0", "stem"], lambda site, *_: seen.append(site.key), learned):
            model(x)
            seen.append("end")
    assert learned == {"encoder.0": 2, "stem": 1}
    assert seen == ["stem", "encoder.0", "encoder.0:1", "end", "stem", "encoder.0", "encoder.0:1"]


def test_before_and_after_a_module_also_where_it_raises():
    def fail(n, x):
        raise ValueError("no")

    told = []

    class Scaled(Net):
        def forward(self, x, factor):
            return self.bad(self.a(x) * factor)

    net = Scaled(fail, a=nn.Identity(), bad=Net(fail))
    with pytest.raises(ValueError, match="no"), observing(
        net, ["", "a", "bad"], on_input=lambda path, module, args, kwargs: told.append((path, len(args), kwargs)),
        on_exit=lambda *_: told.append("exit"),
    ):  # fmt: skip
        net(torch.ones(1), factor=2)
    assert told == [("", 1, {"factor": 2}), ("a", 1, {}), "exit", ("bad", 1, {}), "exit", "exit"]


def test_looking_without_evaluation_leaves_the_modes_and_puts_batch_norm_back():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()
    net[0].track_running_stats = True
    with looking(net, evaluating=False):
        assert net.training
        net(torch.randn(4, 3, 5, 5))
        assert net[0].num_batches_tracked == 1
    assert net[0].num_batches_tracked == 0
    assert torch.equal(net[0].running_mean, torch.zeros(3))


def test_arguments_are_copied_whatever_they_lie_in():
    x = torch.arange(4.0).view(2, 2).t().requires_grad_()
    given = ([x, "text"], {"a": (x, None)})
    (first, text), named = copied(given)
    assert text == "text" and named["a"][1] is None
    for copy in (first, named["a"][0]):
        assert torch.equal(copy, x) and copy.stride() == x.stride() and not copy.requires_grad
        assert copy.data_ptr() != x.data_ptr()


def test_a_table_lists_every_module_once(model):
    table = Table(nn.DataParallel(model))
    assert table.root is model
    assert list(table.modules) == [
        "stem", "encoder", "encoder.0", "encoder.1", "self_attn", "self_attn.out_proj", "head",
    ]  # fmt: skip
    assert table.inside == {"self_attn.out_proj"}
    assert table.aliases == {"decoder": "encoder", "decoder.0": "encoder.0", "decoder.1": "encoder.1"}


def test_the_tokens_of_a_unit_lie_where_features_has_them(model):
    x = torch.randn(1, 3, 16, 16)
    report, entry = units.unit(model, x, "self_attn", 2, gradient=False), layerscope.features(model, x)["self_attn"]
    assert report.map.shape == entry.maps[0].shape[1:] == (16, 16)
    np.testing.assert_allclose(report.map, entry.maps[0].values()[2], atol=float(np.ptp(report.map)) / 200)


def test_a_tensor_as_a_picture():
    """Over its own range; the first three channels as colours, or the first one in gray; what is no number is dark."""
    values = torch.tensor([-1.0, 0.0, 1.0, torch.nan]).view(1, 2, 2)
    gray = pixels_of(values)
    assert gray.shape == (2, 2, 3) and gray[..., 0].tolist() == [[0, 128], [255, 0]]
    colours = pixels_of(torch.cat([values, values * 0, values, values]))
    assert colours[..., 1].tolist() == [[128, 128], [128, 0]]
    assert pixels_of(torch.full((3, 2, 2), 5.0)).max() == 0
    assert pixels_of(torch.full((1, 2, 2), torch.nan)).max() == 0
    assert pixels_of(torch.tensor([[0.0, torch.inf]])).tolist() == [[[0, 0, 0], [255, 255, 255]]]
