"""The seventeen traps of looking into a running network: each was reproduced in some tool, and each is closed here."""

from __future__ import annotations

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerscope
from layerscope.activations.hooks import observing
from layerscope.networks.alexnet import AlexNet
from layerscope.networks.build import build
from tests.test_features import out_of_place, outputs
from tests.units.zoo import Net, conv


def lively(model: nn.Module) -> nn.Module:
    """Batch norms that do something: fresh ones multiply by one and add zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "size", "calls"),
    [
        (lambda: AlexNet(5), 224, 20),
        (lambda: build("torchvision:resnet34", 5), 64, 108),
        (lambda: build("torchvision:mobilenet_v2", 5), 64, 141),
    ],
    ids=["alexnet", "resnet34", "mobilenet_v2"],
)
def test_1_what_happens_in_place_later_changes_nothing(make, size, calls):
    torch.manual_seed(0)
    model = lively(make())
    x = torch.randn(1, 3, size, size)
    seen, want = outputs(model, x), outputs(out_of_place(model), x)
    assert list(seen) == list(want)
    assert len(seen) == calls
    for name in want:
        assert torch.equal(seen[name], want[name]), name
    record = layerscope.features(model, x, maps=False)
    for name in want:
        np.testing.assert_array_equal(record[name].columns.min, want[name].flatten(2).amin((0, 2)) if want[name].dim() > 2 else want[name][0])  # fmt: skip # noqa: E501


def test_1_nor_do_functions_in_place():
    def run(n, x):
        y = n.conv(x)
        F.relu_(y)
        y += 7
        return y

    model = Net(run, conv=conv(3, 4))
    record = layerscope.features(model, torch.randn(1, 3, 8, 8), ops=True)
    assert record["conv"].columns.min.min() < 0
    assert record["/relu"].columns.min.min() == 0
    assert record["/add"].columns.min.min() == 7


def test_2_what_the_hook_returns_does_not_replace_the_output(small):
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), observing(small.eval(), ["stem", "head"], lambda site, module, tensor: tensor * 0):
        tapped = small(x)
    with torch.no_grad():
        assert torch.equal(tapped, small(x))


def test_3_every_call_of_a_module_is_kept(small):
    x = torch.randn(1, 3, 16, 16)
    record, want = layerscope.features(small, x), outputs(out_of_place(small), x)
    for key in ("block.relu", "block.relu:1"):
        np.testing.assert_array_equal(record[key].columns.max, want[key].amax((0, 2, 3)))


def test_4_layers_that_hand_on_the_same_storage():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Identity(), nn.ReLU(True)).eval()
    x = torch.randn(2, 3, 4, 4)
    record = layerscope.features(model, x)
    for key in ("0", "1", "2"):
        np.testing.assert_array_equal(record[key].columns.min, x.flatten(1).amin(0))
    np.testing.assert_array_equal(record["3"].columns.min, x.flatten(1).amin(0).clamp(min=0))


def test_4_and_writing_into_the_input_leaves_the_users_tensor():
    x = torch.randn(1, 3, 4, 4)
    before = x.clone()
    layerscope.features(nn.Sequential(nn.Identity(), nn.ReLU(True)), x)
    assert torch.equal(x, before)


def test_5_channels_last_memory():
    model = nn.Sequential(conv(3, 4), nn.ReLU(True), conv(4, 5))
    x = torch.randn(2, 3, 9, 7)
    want = outputs(out_of_place(model), x)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    record = layerscope.features(other, x.to(memory_format=torch.channels_last))
    for key, tensor in want.items():
        np.testing.assert_allclose(record[key].columns.mean, tensor.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
        codes = record[key].maps[1].values()
        np.testing.assert_allclose(codes, tensor[1], atol=float(tensor.max() - tensor.min()) / 500)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_6_half_precision_and_autocast(kind):
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False)).eval()
    nn.init.ones_(model[0].weight)
    x = torch.tensor([300.0, -300.0]).repeat(32).view(1, 1, 8, 8)  # its square is beyond half precision
    with torch.autocast("cpu", kind):
        record = layerscope.features(model, x)
    assert record["0"].dtype == str(kind)[6:]
    np.testing.assert_allclose(record["0"].columns.std, 300 * (64 / 63) ** 0.5, rtol=1e-3)
    half = layerscope.features(copy.deepcopy(model).to(kind), x.to(kind))
    np.testing.assert_allclose(half["0"].columns.std, 300 * (64 / 63) ** 0.5, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["whole", "part", "in place"])
def test_7_compiled_networks(small, how):
    x = torch.randn(1, 3, 16, 16)
    want = layerscope.features(small, x)
    compiled = small
    if how == "whole":
        compiled = torch.compile(small.eval(), backend="eager")
    elif how == "in place":
        small.eval().compile(backend="eager")
    else:
        small.block = torch.compile(small.block, backend="eager")
    with torch.no_grad():
        compiled(x)  # hooks that come later never fire in what is compiled now
    record = layerscope.features(compiled, x)
    assert [entry.site.path.replace("_orig_mod.", "") for entry in record.values()] == [
        entry.site.path for entry in want.values()
    ]
    assert any("OptimizedModule" in note for note in record.notes) == (how == "whole")
    with torch.no_grad(), layerscope.capture(compiled) as seen:
        compiled(x)
    assert len(seen) == len(want)


def test_8_modules_that_are_storage_for_the_module_around_never_run():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Net(lambda n, x: n.attend(x, x, x, need_weights=False)[0], attend=attention)
    record = layerscope.features(model, (torch.randn(2, 5, 8),))
    assert list(record.entries) == ["attend"]
    assert record.never == ["attend.out_proj"]
    assert "the module around computes with the weights by itself" in record.notes[0]


def test_9_tied_modules_are_named_under_both_paths():
    shared = conv(4, 4)
    model = Net(lambda n, x: n.decoder(n.encoder(n.stem(x))), stem=conv(3, 4), encoder=shared, decoder=shared)
    x = torch.randn(1, 3, 8, 8)
    record = layerscope.features(model, x)
    assert list(record.entries) == ["stem", "encoder", "encoder:1"]
    assert record.notes == ["decoder is the same module as encoder: its calls are listed there"]
    assert record.never == []
    assert list(layerscope.features(model, x, layers="decoder").entries) == ["encoder", "encoder:1"]


def test_10_a_parent_that_calls_forward_itself():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last, self.spare = conv(3, 4), conv(4, 4), conv(4, 4)

        def forward(self, x):
            return self.last(self.inner.forward(x))

    record = layerscope.features(Direct(), torch.randn(1, 3, 8, 8))
    assert record.never == ["inner", "spare"]
    assert record.notes == ["inner never ran: the code around calls .forward(), or takes the weights itself"]


def test_10_a_container_that_uses_its_childrens_weights_shows_its_own_output():
    model = nn.Sequential(Net(lambda n, x: F.conv2d(x, n.inner.weight), inner=nn.Conv2d(3, 4, 1)), nn.ReLU())
    record = layerscope.features(model, torch.randn(1, 3, 8, 8))
    assert list(record.entries) == ["0", "1"]
    assert record.never == ["0.inner"]


class Counts(nn.Module):
    """A buffer that changes in evaluation mode too, and dice of all three kinds."""

    def __init__(self):
        super().__init__()
        self.norm, self.seen = nn.BatchNorm2d(3), None
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.norm(x) + torch.rand(1) + random.random() + np.random.rand()


@pytest.mark.parametrize("fails", [False, True])
def test_11_nothing_of_the_network_and_of_the_dice_moves(fails):
    model = nn.Sequential(Counts(), nn.Linear(4, 2))
    model.train()
    model[0].norm.eval()
    model[1].weight.requires_grad_(False)
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    state, grads = copy.deepcopy(model.state_dict()), [copy.deepcopy(p.grad) for p in model.parameters()]
    flags = [module.training for module in model.modules()]
    dice = (random.getstate(), copy.deepcopy(np.random.get_state()), torch.get_rng_state())
    x = torch.ones(2, 3, 4, 5 if fails else 4)
    if fails:
        with pytest.raises(layerscope.LayerscopeError):
            layerscope.features(model, x)
    else:
        layerscope.features(model, x)
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None and grad is None) or torch.equal(parameter.grad, grad)
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True]
    assert [module.training for module in model.modules()] == flags
    assert random.getstate() == dice[0]
    np.testing.assert_equal(np.random.get_state(), dice[1])
    assert torch.equal(torch.get_rng_state(), dice[2])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_11_the_network_is_looked_at_in_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9)).train()
    x = 5 + torch.randn(4, 3, 6, 6)
    want = layerscope.features(copy.deepcopy(model).eval(), x)
    record = layerscope.features(model, x)
    for key in ("0", "1"):
        np.testing.assert_array_equal(record[key].columns.mean, want[key].columns.mean)
        assert record[key].columns.mean.min() > 4


@pytest.mark.parametrize("options", [{}, {"ops": True, "attention": True}])
def test_11_nor_after_an_interrupt(options):
    def run(n, x):
        n.first(x)
        raise KeyboardInterrupt

    model = Net(run, first=conv(3, 4)).train()
    with pytest.raises(KeyboardInterrupt):
        layerscope.features(model, torch.randn(1, 3, 8, 8), **options)
    assert model.training and model.first.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.is_grad_enabled()


def test_12_one_nan_spoils_no_figure():
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4).repeat(1, 2, 1, 1)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = torch.nan, torch.inf
    columns = layerscope.features(nn.Sequential(nn.Identity()), x)["0"].columns
    assert (columns.nan.tolist(), columns.inf.tolist(), columns.count.tolist()) == ([1, 0], [1, 0], [14, 16])
    np.testing.assert_allclose(columns.mean, [9.5, 8.5])
    assert (columns.min.tolist(), columns.max.tolist()) == ([3, 1], [16, 16])


def test_13_a_small_deviation_beside_a_large_mean():
    x = 100 + 0.01 * torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    columns = layerscope.features(nn.Sequential(nn.Identity()), x)["0"].columns
    np.testing.assert_allclose(columns.std, x.double().movedim(1, 0).flatten(1).std(1), rtol=1e-9)


def test_14_a_branch_that_depends_on_the_data():
    model = Net(lambda n, x: n.a(x) if x.mean() > 0 else n.b(x), a=conv(3, 4), b=conv(3, 4))
    assert layerscope.features(model, torch.ones(1, 3, 8, 8)).never == ["b"]
    assert layerscope.features(model, -torch.ones(1, 3, 8, 8)).never == ["a"]


@pytest.mark.filterwarnings("ignore")
def test_15_dynamically_quantised_layers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(True)).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    x = torch.randn(2, 3, 2, 2)
    record, want = layerscope.features(quantised, x), layerscope.features(model, x)
    assert list(record.entries) == ["0", "1", "2"]
    assert record.never == []
    np.testing.assert_allclose(record["1"].columns.mean, want["1"].columns.mean, atol=0.1)


def test_16_strongly_negative_channels_are_no_weak_ones(small):
    with torch.no_grad():
        small.stem.weight[2], small.stem.bias[2] = small.stem.weight[2] * 50, -100.0
    entry = layerscope.features(small, torch.randn(1, 3, 16, 16))["stem"]
    assert int(np.argmin(entry.columns.mean)) == 2  # what a ranking by signed sums puts last
    assert int(np.argmax(entry.columns.std)) == 2
    assert int(np.argmax(np.maximum(np.abs(entry.columns.min), entry.columns.max))) == 2
    assert 2 not in entry.dead


def test_17_data_parallel(small):
    x = torch.randn(2, 3, 16, 16)
    want = layerscope.features(small, x)
    record = layerscope.features(nn.DataParallel(small), x)
    assert list(record.entries) == list(want.entries)
    assert record.subject == "Small"
    assert any("DataParallel" in note for note in record.notes)
    with warnings.catch_warnings(), torch.no_grad(), layerscope.capture(nn.DataParallel(small), "stem") as seen:
        nn.DataParallel(small)(x)
    assert list(seen) == ["stem"]
