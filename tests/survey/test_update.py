"""A network measured batch by batch: what the layers gave, the same for every split, and the network as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layerscope
from layerscope.errors import ForwardError, NoMatch, RecordError, UsageError
from layerscope.stats import quantize
from layerscope.surveying.accumulators.histogram import BitHistogram
from layerscope.surveying.accumulators.layer import UNLIKE
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.update import Measures, Updater, calibration

IMAGES = 70
LABELS = [number % 4 - 1 for number in range(IMAGES)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 15, 17, generator=torch.Generator().manual_seed(1))


def measures(model: nn.Module, images: torch.Tensor, **options) -> Measures:
    scale = calibration(model, images[:32])
    return Measures(**{"top": 3, "histograms": ("*",), "classes": 3, "scale": scale, **options})


def survey(
    model: nn.Module, images: torch.Tensor, what: Measures, cuts: Sequence[int] = (), takes: Sequence[int] = ()
) -> NetworkAccumulator:
    updater, whole = Updater(model, (), what), NetworkAccumulator()
    ends = sorted({0, len(images), *cuts})
    for at, end in pairwise(ends):
        updater.update(images[at:end], range(at, end), LABELS[at:end] if what.classes else None)
        if end in takes:
            whole.merge(updater.take())
    whole.merge(updater.take())
    return whole


@settings(deadline=None, max_examples=10)
@given(st.sets(st.integers(1, IMAGES // 2 - 1), max_size=6), st.booleans())
def test_every_split_gives_the_same_bytes(images, cuts, take):
    model = network()
    what = measures(model, images)
    # Batches of two and more: a batch of one may take another way through a kernel. Chunks end at a multiple of 64.
    found = survey(model, images, what, [2 * cut for cut in cuts] + [64], [64] if take else [])
    assert found.pack() == survey(model, images, what).pack()


def test_chunks_by_two_updaters_in_any_order(images):
    model = network()
    what = measures(model, images)
    one, two = Updater(model, (), what), Updater(copy.deepcopy(model), (), what)
    two.update(images[64:], range(64, IMAGES), LABELS[64:])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for part in order.split(20):
        one.update(images[part], part.tolist(), [LABELS[number] for number in part])
    whole = two.take()
    whole.merge(NetworkAccumulator.unpack(one.take().pack()))
    assert whole.pack() == survey(model, images, what).pack()


def test_every_layer_is_what_it_gave(images):
    model = network()
    state = survey(model, images, measures(model, images), range(10, IMAGES, 10))
    twin = network().eval()
    twin[2].inplace = False
    with torch.no_grad(), layerscope.capture(twin) as seen:
        twin(images)
    assert list(state.layers) == list(seen)
    assert state.images == IMAGES
    assert state.counts.tolist() == [18, 17, 17]
    for key, tensor in seen.items():
        layer, columns = state.layers[key], state.layers[key].moments.compute()
        values = tensor.movedim(1, 0).flatten(1).double().numpy()  # (C, B*H*W)
        assert layer.shape == tuple(tensor.shape[1:])
        assert layer.images == IMAGES
        np.testing.assert_allclose(columns.mean, values.mean(1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(columns.std, values.std(1, ddof=1), rtol=1e-9)
        np.testing.assert_array_equal(columns.min, values.min(1))
        np.testing.assert_array_equal(columns.max, values.max(1))
        np.testing.assert_array_equal(columns.zeros, (values == 0).sum(1))
        peaks = tensor.flatten(2).amax(2) if tensor.dim() == 4 else tensor  # (B, C)
        alive = (tensor.flatten(2) != 0).any(2) if tensor.dim() == 4 else tensor != 0
        np.testing.assert_array_equal(layer.moments.silent, (~alive).sum(0))
        best = peaks.masked_fill(~alive, -torch.inf).sort(dim=0, descending=True, stable=True).indices[:3].T
        np.testing.assert_array_equal(layer.examples.image, best)


def test_a_relu_in_place_follows_from_what_it_overwrote(images, monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
    bad = images.clone()
    bad[3, 0, 2, 2], bad[4, 1, 3, 3], bad[5, 2, 1, 1] = torch.nan, torch.inf, -torch.inf
    what = Measures(histograms=("*",))
    derived = []
    follow = BitHistogram.follow
    monkeypatch.setattr(BitHistogram, "follow", lambda *given: derived.append(follow(*given)) or derived[-1])
    found = survey(model, bad, Measures(histograms=("*",)), range(10, IMAGES, 10))
    assert derived == [False] * 2 + [True] * 12  # of the first batch nothing was kept
    monkeypatch.setattr(BitHistogram, "follow", lambda *given: False)
    assert found.pack() == survey(model, bad, what, range(10, IMAGES, 10)).pack()


def test_what_was_changed_in_between_is_measured():
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn(x)
            y += 1
            return self.relu(y)

    x = torch.randn(6, 3, 9, 9)
    state = survey(Shifting(), x, Measures(histograms=("*",)), [2, 4])
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.Identity(), nn.ReLU())
    plain[1].register_forward_hook(lambda module, inputs, output: output + 1)
    want = survey(plain, x, Measures(histograms=("*",)), [2, 4])
    np.testing.assert_array_equal(state.layers["relu"].histogram.bins, want.layers["2"].histogram.bins)


def test_the_network_is_left_as_it_was(images):
    model = network().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    what = measures(model, images)
    survey(model, images, what)
    broken = nn.Sequential(model, nn.Linear(3, 3))
    with pytest.raises(ForwardError):
        survey(broken, images, Measures())
    assert [module.training for module in model] == [index != 1 for index in range(10)]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in broken.modules())


def test_a_batch_that_failed_can_be_repeated():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    x = torch.randn(6, 3, 8, 8)
    updater = Updater(model, (), Measures())
    with pytest.raises(ForwardError):
        updater.update(torch.randn(4, 3, 4, 4), range(4))  # the second convolution has nothing left
    with pytest.raises(UsageError, match="make a new Updater"):
        updater.update(x, range(6))
    with pytest.raises(UsageError, match="make a new Updater"):
        updater.take()


def test_tokens_have_a_place_on_their_grid():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.norm = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.cut(x).flatten(2).transpose(1, 2)
            return self.norm(torch.cat([y.new_full((len(y), 1, 4), 0.1), y], 1))

    x = torch.randn(5, 3, 24, 32)
    state = survey(Tokens(), x, Measures(top=5, histograms=("*",)), [2])
    layer = state.layers["norm"]
    assert layer.site.layout == "NLC"
    model = Tokens()
    state = survey(model, x, Measures(top=5, histograms=("*",)), [2])
    with layerscope.capture(model.eval()) as seen, torch.no_grad():
        model(x)
    tokens = seen["norm"]  # (5, 49, 4)
    found = state.layers["norm"].examples
    for channel in range(4):
        for place in range(5):
            values = tokens[found.image[channel, place], :, channel]
            index = int(values.argmax())
            want = [-1, -1] if index == 0 else [(index - 1) // 8, (index - 1) % 8]
            assert found.position[channel, place].tolist() == want
            assert found.value[channel, place] == values.max()
    # The histogram of what lies channels last equals that of what lies channels first.
    flat = survey(nn.Identity(), tokens.transpose(1, 2)[..., None].contiguous(), Measures(histograms=("*",)))
    np.testing.assert_array_equal(state.layers["norm"].histogram.bins, flat.layers["Identity"].histogram.bins)


def test_windows_are_parts_of_an_image():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mix = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.stem(x).permute(0, 2, 3, 1)  # (B, 8, 12, 4)
            return self.mix(y.reshape(len(y), 2, 4, 3, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4))

    torch.manual_seed(0)
    model, x = Windows(), torch.randn(6, 3, 8, 12)
    state = survey(model, x, Measures(top=2, histograms=("*",)), [2])
    assert state.pack() == survey(model, x, Measures(top=2, histograms=("*",))).pack()
    layer = state.layers["mix"]
    with torch.no_grad():
        whole = model.mix(model.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (6, 4, 8, 12)
    np.testing.assert_allclose(layer.moments.compute().mean, whole.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert layer.histogram.bins.sum() == whole.numel()
    for channel in range(4):
        plane = whole[layer.examples.image[channel, 0], channel]
        assert layer.examples.position[channel, 0].tolist() == list(np.unravel_index(int(plane.argmax()), (8, 12)))
        upper, left = layer.examples.corner[channel, 0]
        codes = quantize(plane.reshape(1, -1).numpy(), plane.min()[None].numpy(), plane.max()[None].numpy())
        want = codes.reshape(8, 12)[upper : upper + 4, left : left + 4].astype(int)
        np.testing.assert_allclose(layer.examples.maps[channel, 0], want, atol=1)


def test_the_sequence_may_come_first():
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.mix = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(self.cut(x).flatten(2).permute(2, 0, 1))  # (L, B, C)

    model, x = First(), torch.randn(7, 3, 8, 8)
    layer = survey(model, x, Measures(histograms=("*",))).layers["mix"]
    assert layer.shape == (16, 4)
    assert layer.moments.compute().count.tolist() == [7 * 16] * 4


def test_outputs_of_changing_shape_have_no_statistics():
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.found = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.found(x[:, :, 0, 0][x[:, 0, 0, 0] > 0])

    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4)
    x[:, 0, 0, 0] = torch.tensor([1, -1, 1, 1, 1, -1, -1, -1])
    state = survey(Boxes(), x, Measures(), [3, 6])
    layer = state.layers["found"]
    assert layer.mixed
    assert layer.note == UNLIKE
    assert layer.channels == 0
    assert NetworkAccumulator.unpack(state.pack()).pack() == state.pack()


def test_modules_that_run_twice_and_those_of_another_size(small):
    state = survey(small, torch.randn(5, 3, 16, 16), Measures(), [2])
    assert list(state.layers)[:6] == ["stem", "bn", "act", "block.conv", "block.relu", "block.relu:1"]
    assert "spare" not in state.layers


def test_two_networks_join_one_state(images):
    a, b = network(), nn.Sequential(nn.Conv2d(3, 7, 5), nn.ReLU(inplace=True))
    scale = calibration(a, images[:32], (), b)
    updater = Updater(a, (), Measures(scale=scale), against=b)
    updater.update(images, range(IMAGES))
    state = updater.take()
    assert list(state.layers)[-2:] == ["b:0", "b:1"]
    assert state.layers["b:0"].channels == 7
    assert set(state.similarity.keys) == set(state.layers)
    alone = Updater(b, (), Measures())
    alone.update(images, range(IMAGES))
    want = alone.take().layers["0"]
    np.testing.assert_array_equal(state.layers["b:0"].moments.sums, want.moments.sums)
    assert state.similarity.minibatches == 2
    same = Updater(a, (), Measures(scale=calibration(a, images[:32], (), a)), against=copy.deepcopy(a))
    same.update(images, range(IMAGES))
    value = same.take().similarity
    index = {key: at for at, key in enumerate(value.keys)}
    assert value.value[index["4"], index["b:4"]] == value.value[index["4"], index["4"]] > 0


def test_counters_are_emptied_before_they_are_full(images):
    what = Measures(histograms=("*",))
    updater = Updater(network(), (), what)
    for at in range(0, IMAGES, 14):
        updater.update(images[at : at + 14], range(at, at + 14))
        for layer in updater._layers.values():
            assert layer.histogram._values == 14 * layer.moments.ints[0, 0] / layer.images or at
            layer.histogram._values = (1 << 32) - 1  # as if there had been so many values
    assert updater.take().pack() == survey(network(), images, what, range(14, IMAGES, 14)).pack()


def test_redundant_channels_correlate(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        model[0].weight[1] = 2 * model[0].weight[0]
    state = survey(model, images, measures(model, images, classes=0))
    means = state.layers["0"].means
    gram, sums = means.gram.astype(float), means.sums[0].astype(float)
    covariance = gram - np.outer(sums, sums) / means.images
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert correlation[0, 1] > 0.9999
    assert abs(correlation[0, 2]) < 0.99


def test_other_calibrations_do_not_merge(images):
    model = network()
    one = survey(model, images, measures(model, images))
    other = survey(model, images, measures(model, 2 * images))
    with pytest.raises(RecordError, match="one calibration"):
        one.merge(other)


def test_what_does_not_fit_is_said():
    model = nn.Conv2d(3, 2, 1)
    with pytest.raises(NoMatch):
        Updater(model, ["nothing"])
    with pytest.raises(UsageError, match="top 256"):
        Measures(top=256)
    updater = Updater(model, (), Measures(classes=2))
    x = torch.zeros(2, 3, 4, 4)
    for numbers, labels in (([0, 1, 2], None), ([0, 1], [0]), ([0, -1], None), ([0, 1 << 32], None), ([0, 1], [0, 2])):
        with pytest.raises(UsageError):
            updater.update(x, numbers, labels)
    updater.update(x, [0, 1], [0, 1])
    assert updater.take().images == 2
    assert updater.take().images == 0


def test_rows_beyond_the_numbers_do_not_count():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9, 3))
    x = torch.randn(2, 3, 5, 5)
    padded, plain = Updater(model), Updater(model)
    padded.update(torch.cat([x, x[:1]]), [0, 1])
    plain.update(x, [0, 1])
    ours, theirs = padded.take(), plain.take()
    assert ours.images == theirs.images == 2
    for key, layer in theirs.layers.items():
        assert layer.images == ours.layers[key].images == 2
        np.testing.assert_array_equal(ours.layers[key].moments.ints, layer.moments.ints)
