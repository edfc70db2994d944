"""Receptive fields: nothing outside ever changes the unit, for every network of the zoo; chains equal the formula."""

from __future__ import annotations

import ctypes
import random

import pytest
import torch
import torchvision
from torch import nn

from layerscope.activations.hooks import looking
from layerscope.errors import ForwardError, LayerscopeError, NoMatch, UsageError
from layerscope.networks.alexnet import AlexNet
from layerscope.units import effective_receptive_field, receptive_field
from layerscope.units.place import arguments, run_to_layer
from tests.units.zoo import ZOO, Block, Net, conv

CASES = [(name, layer) for name, make in ZOO.items() for layer in make().layers]

#: animals with operations that have no rule: their fields may be larger than need be, never smaller
COARSE = {"lstm": {"mkldnn_rnn_layer"}, "complex_numbers": {"_fft_c2c"}}


def unit(animal, layer, index, args):
    with looking(animal.model):
        return run_to_layer(animal.model, layer, arguments(args), lambda output, _: output[index].clone()).result


def positions(animal, layer, count):
    with looking(animal.model):
        place = run_to_layer(animal.model, layer, arguments(animal.x), lambda _, place: place).result
    rng = random.Random(layer)
    drawn = [tuple(rng.randrange(size) for size in place.grid) for _ in range(count)]
    return place, [animal.layers[layer], *drawn]


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_pixels_outside_never_change_the_unit_and_some_inside_does(name, layer):
    animal = ZOO[name]()
    place, where = positions(animal, layer, 2)
    moved = False
    for position in where:
        fields = [receptive_field(animal.model, layer, position, animal.x, of=of) for of in range(len(animal.args))]
        assert {one for field in fields for one in field.coarse} <= COARSE.get(name, set())
        index = place.index(None, position)
        before = unit(animal, layer, index, animal.x)
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            noise = [torch.randn(x.shape, generator=generator).to(x.dtype) * 100**seed for x in animal.args]
            pairs = list(zip(animal.args, noise, [torch.from_numpy(field.mask) for field in fields], strict=True))
            outside = tuple(torch.where(mask, x, other) for x, other, mask in pairs)
            assert torch.equal(unit(animal, layer, index, outside), before), position
            inside = tuple(torch.where(mask, other, x) for x, other, mask in pairs)
            moved |= not torch.equal(unit(animal, layer, index, inside), before)
    assert moved


#: networks without a value that the program reads and without layers that hide a border (a ReLU at zero, a window)
SMOOTH = [
    "strides",
    "dilation",
    "groups",
    "reflect",
    "replicate",
    "circular",
    "same_and_valid",
    "transposed",
    "channels_last_layers",
    "vit",
    "windowed_attention",
    "transformer",
    "upsampled",
    "several_inputs",
    "norms",
    "indexed",
]


@pytest.mark.parametrize(("name", "layer"), [case for case in CASES if case[0] in SMOOTH])
def test_the_mask_is_no_larger_than_need_be(name, layer):
    """Every pixel of the mask moves the unit by its gradient, or at least its row and its column do."""
    animal = ZOO[name]()
    position = animal.layers[layer]
    field = receptive_field(animal.model, layer, position, animal.x)
    channels = range(positions(animal, layer, 0)[0].channels)
    fields = [effective_receptive_field(animal.model, layer, channel, position, animal.x) for channel in channels]
    magnitude = sum(fields)
    for axis in (0, 1):
        assert ((magnitude > 0).any(axis) == field.mask.any(axis)).all()
    if "ReLU" not in str(animal.model):
        assert ((magnitude > 0) == field.mask).mean() > 0.99  # a gradient can be zero by chance


def closed(layers):
    """Araujo, Norris and Sim 2019: size, step and start of the field of a chain of (kernel, stride, padding)."""
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size, start = size + (kernel - 1) * step, start - padding * step
        step *= stride
    return size, step, start


def expected(layers, position, side):
    size, step, start = closed(layers)
    first = start + position * step
    return max(first, 0), min(first + size, side)


def test_alexnet_equals_the_closed_formula():
    model, chain = AlexNet(5), []
    for index, module in enumerate(model.features):
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            settings = [getattr(module, name) for name in ("kernel_size", "stride", "padding")]
            chain.append([value[0] if isinstance(value, tuple) else value for value in settings])
            for position in (0, 2)[index % 2 :]:
                box = receptive_field(model, f"features.{index}", (position, position + 1), (1, 3, 224, 224)).box
                assert box == (expected(chain, position, 224), expected(chain, position + 1, 224)), index
    assert closed(chain)[:2] == (195, 32)  # the published figures of AlexNet's last pooling


def test_a_chain_of_basic_blocks_equals_the_closed_formula():
    net = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1), *[Block(4) for _ in range(3)])
    chain = [(7, 2, 3), (3, 2, 1), *[(3, 1, 1)] * 6]
    field = receptive_field(net, "4.relu:1", (12, 13), (1, 3, 100, 110))
    assert field.box == (expected(chain, 12, 100), expected(chain, 13, 110))
    assert field.size == (59, 59)
    assert field.mask[tuple(slice(*pair) for pair in field.box)].all()
    assert field.coarse == ()


def test_a_resnet_at_full_size():
    model = torchvision.models.resnet18(weights=None)
    assert receptive_field(model, "layer1.1.conv2", (28, 28), (1, 3, 224, 224)).size == (43, 43)
    assert receptive_field(model, "layer4.1.conv1", (3, 3), (1, 3, 224, 224)).mask.all()


def test_one_channel_of_a_depthwise_network_and_dilation_leave_holes():
    net = nn.Sequential(conv(2, 2, groups=2, dilation=2, padding=2))
    mask = receptive_field(net, "0", (5, 5), torch.randn(1, 2, 11, 11), channel=1).mask
    assert mask.sum() == 9
    assert mask[3:8:2, 3:8:2].all()


def test_windows_of_attention_are_found_through_the_shift():
    animal = ZOO["windowed_attention"]()
    assert receptive_field(animal.model, "windows", (0, 0), animal.x).mask.sum() == 8 * 8


def test_tokens_are_counted_without_the_class_token():
    animal = ZOO["vit"]()
    assert receptive_field(animal.model, "norm1", (1, 2), animal.x).box == ((4, 8), (8, 12))


def test_values_and_places_of_a_maximum_are_both_needed():
    animal = ZOO["values_and_places"]()
    mask = receptive_field(animal.model, "last", (10, 12), animal.x).mask
    assert (
        mask.sum() == 3 * 9
    )  # the value here, its place five rows above, what is picked by a place seven columns away
    assert mask[10, 12]
    assert mask[5, 12]
    assert mask[10, 5]


def test_what_a_mask_of_truth_chooses_depends_on_the_whole_mask():
    x = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    chosen = Net(lambda n, x: n.b(x[x > 0][:9].view(1, 1, 3, 3)), b=conv(1, 1))
    assert receptive_field(chosen, "b", (1, 1), x).mask.all()
    counted = Net(lambda n, x: n.b(x * len(x[x > 0])), b=conv(1, 1))  # only its length is used
    assert receptive_field(counted, "b", (4, 4), x).mask.all()


def test_a_by_product_that_is_needed_makes_a_rule_step_back():
    """The standard deviation that a layer norm gives beside its output, used by itself."""

    def run(n, x):
        y, _, slope = torch.native_layer_norm(n.a(x), [9], None, None, 1e-5)
        return n.b(y.roll(4, 2) + slope)

    net = Net(run, a=conv(1, 1, 1), b=conv(1, 1, 1))
    field = receptive_field(net, "b", (1, 1), torch.randn(1, 1, 9, 9))
    assert field.coarse == ("native_layer_norm",)


def test_a_branch_depends_on_what_it_asked():
    animal = ZOO["data_dependent_if"]()
    field = receptive_field(animal.model, "b", (15, 20), animal.x)
    assert field.mask[:5, :5].all()  # the condition's four by four, seen through a 3 x 3 kernel
    assert not field.mask[8, 8]
    assert receptive_field(animal.model, "a", (15, 20), animal.x).mask.sum() == 9  # before the branch


def test_an_unknown_operation_depends_on_everything_and_is_named():
    net = Net(lambda n, x: n.b(torch.linalg.inv(n.a(x))), a=conv(1, 1), b=conv(1, 1))
    field = receptive_field(net, "b", (4, 4), torch.randn(1, 1, 8, 8))
    assert field.mask.all()
    assert "linalg_inv_ex" in field.coarse


def test_what_torch_does_not_see_is_found_out():
    class Hidden(nn.Module):
        def forward(self, x):
            at = x.untyped_storage().data_ptr()  # the bytes, past every operation
            return x * ctypes.cast(at, ctypes.POINTER(ctypes.c_float))[0]

    field = receptive_field(nn.Sequential(Hidden(), conv(1, 1)), "1", (6, 6), torch.randn(1, 1, 9, 9))
    assert field.mask.all()
    assert field.coarse == ("something that torch does not see",)


def test_the_network_and_the_input_are_left_as_they_were():
    animal = ZOO["writes_into_its_input"]()
    animal.model.train()
    animal.model.act.eval()
    x, copy = animal.x, animal.x.clone()
    receptive_field(animal.model, "last", (4, 4), x)
    effective_receptive_field(animal.model, "last", 1, (4, 4), x)
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert animal.model.training
    assert not animal.model.act.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in animal.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in animal.model.modules())


def test_nothing_is_left_behind_when_the_network_raises():
    net = nn.Sequential(conv(3, 4), Net(lambda n, x: x.nothing), conv(4, 4))
    with pytest.raises(ForwardError, match=r"up to 2: forward raised.*'nothing'"):
        receptive_field(net, "2", (1, 1), (1, 3, 8, 8))
    assert not any(module._forward_hooks for module in net.modules())
    assert receptive_field(net, "0", (1, 1), (1, 3, 8, 8)).size == (3, 3)  # what comes later does not matter


def test_what_cannot_be_is_said():
    net = nn.Sequential(conv(3, 4), nn.ReLU(True), nn.Flatten())
    x = (1, 3, 8, 9)
    for layer, position, kind, said in [
        ("nothing", (0, 0), NoMatch, "no layer 'nothing'"),
        ("0:1", (0, 0), NoMatch, "0:1: is not there; 0 gave 0"),
        ("0", (8, 0), UsageError, "position 8, 0: give 2 numbers: 0 to 7, 0 to 8"),
        ("0", (1,), UsageError, "give 2 numbers"),
        ("2", (1, 1), UsageError, "a unit of this layer has none"),
    ]:
        with pytest.raises(kind, match=said):
            receptive_field(net, layer, position, x)
    with pytest.raises(UsageError, match="channel 4: the layer has channels 0 to 3"):
        receptive_field(net, "0", (0, 0), x, channel=4)


@pytest.mark.parametrize("name", ["chain", "residual", "squeeze_excite", "vit", "lstm", "one_dimension"])
def test_the_effective_field_is_the_gradient(name):
    animal = ZOO[name]()
    layer, position = list(animal.layers.items())[-1]
    found = effective_receptive_field(animal.model, layer, 1, position, animal.x)
    x = animal.x.clone().requires_grad_()
    kept = []
    path, _, call = layer.partition(":")
    handle = animal.model.get_submodule(path).register_forward_hook(lambda m, i, out: kept.append(out))
    animal.model(x.clone())
    handle.remove()
    output = kept[int(call or 0)]
    place, _ = positions(animal, layer, 0)
    output = output[0] if isinstance(output, tuple) else output
    output[place.index(1, position)].backward()
    torch.testing.assert_close(torch.from_numpy(found), x.grad[0].abs().sum(0))
    assert (found > 0).any()
    mask = receptive_field(animal.model, layer, position, animal.x).mask
    assert not found[~mask].any()


def test_a_network_without_gradients_has_no_effective_field():
    animal = ZOO["inference_mode"]()
    with pytest.raises(LayerscopeError, match="no gradient reaches the input"):
        effective_receptive_field(animal.model, "b", 0, (4, 4), animal.x)
