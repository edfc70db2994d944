"""`capture`: what the layers produced, what they were given and the gradients that came back, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerscope
from layerscope.activations.capturing import Captured
from layerscope.errors import ForwardError, NoMatch, UsageError
from tests.units.zoo import Net, conv


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def hooks_of(model):
    return [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


@pytest.mark.parametrize("layers", ["conv*", ["conv*"], nn.Conv2d, [nn.Conv2d]])
def test_layers_may_be_given_second_or_by_name(x, layers):
    model = Net(lambda n, x: n.relu(n.conv1(x)), conv1=conv(3, 4), relu=nn.ReLU(True))
    with layerscope.capture(model, layers) as seen:
        model(x)
    assert list(seen) == ["conv1"]
    assert seen["conv1"].min() < 0 and not seen["conv1"].requires_grad
    with layerscope.capture(model, layers=layers) as again:
        model(x)
    assert torch.equal(again["conv1"], seen["conv1"])
    assert torch.equal(layerscope.capture(model, x, layers=layers)["conv1"], seen["conv1"])


def test_one_call_runs_one_pass_as_the_network_is(x):
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(True)).train()
    before = x.clone()
    seen = layerscope.capture(model, x)
    assert isinstance(seen, Captured) and list(seen) == ["0", "1", "2"]
    assert model[1].num_batches_tracked == 1  # in the mode that it was in
    assert model.training and not hooks_of(model) and torch.equal(x, before)
    assert torch.equal(seen["2"], F.relu(seen["1"]))


def test_what_the_network_is_called_with(x):
    two = Net(lambda n, a, b: n.add(a + b), add=nn.Identity())
    assert torch.equal(layerscope.capture(two, (x, x))["add"], x + x)
    several = Net(lambda n, images: [n.each(image) for image in images], each=nn.Identity())
    assert list(layerscope.capture(several, [x[0], x[1]])) == ["each", "each:1"]

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Identity()

        def forward(self, *, image, factor):
            return self.last(image * factor)

    assert torch.equal(layerscope.capture(Named(), {"image": x, "factor": 3})["last"], x * 3)
    writes = nn.Sequential(nn.ReLU(True))
    before = x.clone()
    layerscope.capture(writes, x)
    assert torch.equal(x, before)


def test_what_went_in_is_what_it_was_before_the_layer_ran(x):
    def run(n, x):
        y = n.act(n.conv(x))
        return n.fork(y, n.act(y - 1), scale=2)

    class Fork(nn.Module):
        def forward(self, a, b, scale):
            return a.add_(b) * scale

    model = Net(run, conv=conv(3, 4), act=nn.ReLU(True), fork=Fork())
    with torch.no_grad():
        seen = layerscope.capture(model, x, inputs=True)
        produced = model.conv(x)
    assert torch.equal(seen.inputs["conv"], x)
    assert torch.equal(seen.inputs["act"], produced)  # which the activation has overwritten
    assert torch.equal(seen.inputs["act:1"], produced.relu() - 1)
    a, b, scale = seen.inputs["fork"]
    assert torch.equal(a, produced.relu()) and torch.equal(b, (produced.relu() - 1).relu()) and scale == 2
    assert layerscope.capture(model, x).inputs == {}


def gradients(model, x, keep):
    """The same gradients by torch alone: of a network that overwrites nothing, with the outputs kept."""
    outputs = {}
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: outputs.setdefault(path, []).append(output)
        )
        for path in keep
    ]
    loss = (model(x) ** 2).sum()
    for handle in handles:
        handle.remove()
    flat = {f"{path}:{at}" if at else path: one for path, many in outputs.items() for at, one in enumerate(many)}
    return dict(zip(flat, torch.autograd.grad(loss, list(flat.values())), strict=True))


@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_are_those_of_autograd(x, inplace):
    def make(inplace):
        torch.manual_seed(0)
        return Net(
            lambda n, x: n.last(n.act(n.conv2(n.act(n.norm(n.conv1(x)))))), conv1=conv(3, 4), norm=nn.BatchNorm2d(4),
            act=nn.ReLU(inplace), conv2=conv(4, 4), last=nn.Conv2d(4, 2, 8),
        )  # fmt: skip

    want = gradients(make(False), x, ["conv1", "norm", "act", "conv2", "last"])
    model = make(inplace)
    with layerscope.capture(model, layers="*", gradients=True) as seen:
        (model(x) ** 2).sum().backward()
    assert set(seen.gradients) == set(want) == set(seen) == {"conv1", "norm", "act", "act:1", "conv2", "last"}
    for key, gradient in want.items():
        assert torch.equal(seen.gradients[key], gradient), key
    assert model.conv1.weight.grad is not None and not hooks_of(model)


def test_gradients_by_hand():
    """loss = sum(relu(w x)^2): 2 relu(y) behind the ReLU, and the same where y > 0, 0 elsewhere, before it."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(True))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2, 3], [-1, 0, -1]]))
    with layerscope.capture(model, gradients=True) as seen:
        loss = (model(torch.ones(1, 3)) ** 2).sum()
    assert seen.gradients == {}
    loss.backward()  # after the block
    assert seen["0"].tolist() == [[6, -2]] and seen["1"].tolist() == [[6, 0]]
    assert seen.gradients["1"].tolist() == [[12, 0]]
    assert seen.gradients["0"].tolist() == [[12, 0]]


def test_gradients_add_up_over_losses_and_passes_follow_on_each_other():
    model, x = nn.Sequential(nn.Hardtanh(-9, 9)), torch.ones(2, requires_grad=True)
    with layerscope.capture(model, gradients=True) as seen:
        first, second = model(x), model(x * 2)
        (first * 5).sum().backward()
        (second * 3).sum().backward(retain_graph=True)
        (second * 4).sum().backward()
    assert {key: gradient.tolist() for key, gradient in seen.gradients.items()} == {"0": [5, 5], "0:1": [7, 7]}


def test_gradients_are_there_for_what_has_one(x):
    model = Net(lambda n, x: n.soft(n.conv(x)) + n.off(x).sum(), conv=conv(3, 4), soft=nn.Softmax(1), off=conv(3, 4))
    model.off.requires_grad_(False)
    with layerscope.capture(model, gradients=True) as seen:
        model(x).sum().backward()
        with torch.no_grad():
            model(x)
    assert set(seen) == {"conv", "soft", "off", "conv:1", "soft:1", "off:1"}
    assert set(seen.gradients) == {"conv", "soft"}
    with pytest.raises(UsageError, match="gradients need a block"):
        layerscope.capture(model, x, gradients=True)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("options", [{}, {"inputs": True, "gradients": True}])
def test_an_exception_leaves_nothing_behind(x, error, options):
    def fail(n, x):
        n.first(x)
        raise error("stop")

    model = Net(fail, first=conv(3, 4))
    with pytest.raises(error), layerscope.capture(model, **options) as seen:
        model(x)
    assert list(seen) == ["first"]
    assert not hooks_of(model)


def test_what_the_network_raises_is_one_line(x):
    with pytest.raises(ForwardError, match=r"^Sequential: forward raised RuntimeError on an input of shape \(2, 3, 8"):
        layerscope.capture(nn.Sequential(conv(4, 4)), x)


def test_tied_modules_are_found_under_every_path(x):
    shared = conv(3, 3)
    model = Net(lambda n, x: n.decoder(n.encoder(x)), encoder=shared, decoder=shared)
    seen = layerscope.capture(model, x, layers="decoder")
    assert list(seen) == ["encoder", "encoder:1"]
    assert torch.equal(seen["decoder"], seen["encoder"])
    with pytest.raises(KeyError, match="nothing"):
        seen["nothing"]
    with pytest.raises(NoMatch, match="no layer matches 'decodr'; nearest: decoder"):
        layerscope.capture(model, "decodr")


def test_the_gradient_of_a_view_that_is_overwritten_is_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.ReLU(True))
    with layerscope.capture(model, gradients=True) as seen:
        model(torch.randn(3, 4)).sum().backward()
    assert set(seen.gradients) == {"0", "2"}
    assert torch.equal(seen.gradients["0"], (seen["0"] > 0).float())
