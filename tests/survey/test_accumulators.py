"""What is known of some images: exact, and the same for every split, order and size of batches."""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerscope.errors import RecordError
from layerscope.records.profiles import ChannelHistograms, edges_of
from layerscope.stats import activations, quantize, survey_calls
from layerscope.stats.signatures import BINS, BLOCK
from layerscope.surveying.accumulators import exact
from layerscope.surveying.accumulators.examples import NONE, WINDOW
from layerscope.surveying.accumulators.means import ChannelMeans, calibrate, product, rounded
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.similarity import hsic
from layerscope.surveying.accumulators.update import Measures, Updater

#: values that are hard to add, to order or to bin
HARD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 3e38, -3e38, 100.01, 1e-10, 6.0, 2.0**-33, math.nan, math.inf, -math.inf]
EVERYTHING = Measures(top=3, histograms=("*",), classes=3)


def survey(x: np.ndarray, numbers=None, measures: Measures = EVERYTHING, labels=None) -> NetworkAccumulator:
    """The state of images x (B, C, H, W), which the network hands on as they are."""
    updater = Updater(nn.Identity(), (), measures)
    updater.update(torch.from_numpy(x), range(len(x)) if numbers is None else numbers, labels)
    return updater.take()


def layer_of(x: np.ndarray, measures: Measures = EVERYTHING):
    return survey(x, measures=measures).layers["Identity"]


@st.composite
def pictures(draw, most: int = 7) -> np.ndarray:
    """Images (B, C, H, W), of hard values, of normal ones, or of few values so that there are ties."""
    shape = draw(st.tuples(st.integers(1, most), st.integers(1, 3), st.integers(1, 17), st.integers(1, 5)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    kind = draw(st.sampled_from(["hard", "normal", "ties", "shifted"]))
    if kind == "normal":
        return rng.standard_normal(shape).astype(np.float32)
    if kind == "shifted":
        return (100 + 0.01 * rng.standard_normal(shape)).astype(np.float32)
    values = HARD if kind == "hard" else [0.0, 0.0, 0.0, 1.0, -1.0]
    return rng.choice(np.array(values, np.float32), shape)


@settings(deadline=None, max_examples=60)
@given(pictures(), st.data())
def test_every_split_and_order_gives_the_same_bytes(x, data):
    count = len(x)
    labels = np.arange(count) % 4 - 1
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=4)) | {0, count})
    takes = data.draw(st.sets(st.sampled_from(cuts)))
    updaters = [Updater(nn.Identity(), (), EVERYTHING) for _ in range(2)]
    states = []
    for at, end in pairwise(cuts):
        chosen, updater = order[at:end], updaters[at % 2]
        updater.update(torch.from_numpy(x[chosen]), chosen, labels[chosen])
        if end in takes:
            states.append(updater.take())
    states += [updater.take() for updater in updaters]
    whole = NetworkAccumulator()
    for at in data.draw(st.permutations(range(len(states)))):
        whole.merge(states[at])
    assert whole.pack() == survey(x, labels=labels).pack()


@settings(deadline=None, max_examples=60)
@given(pictures(), pictures(), pictures())
def test_merging_is_associative_and_commutative_and_has_a_zero(x, y, z):
    parts = [
        survey(np.resize(one, (len(one), *x.shape[1:])), range(100 * at, 100 * at + len(one)))
        for at, one in enumerate((x, y, z))
    ]

    def merged(*states: NetworkAccumulator) -> NetworkAccumulator:
        whole = NetworkAccumulator()
        for state in states:
            whole.merge(state)
        return whole

    a, b, c = parts
    left = merged(merged(a, b), c).pack()
    assert left == merged(a, merged(b, c)).pack() == merged(c, b, a).pack()
    assert left == merged(b, NetworkAccumulator(), a, c).pack()
    assert merged(a).pack() == a.pack()


@settings(deadline=None, max_examples=60)
@given(pictures())
def test_mean_and_deviation_are_what_exact_arithmetic_gives(x):
    each = activations(x.reshape(*x.shape[:2], -1))  # (B, C)
    columns = layer_of(x).moments.compute()
    for channel in range(x.shape[1]):
        count = each.count[:, channel].tolist()
        means, m2s = ([Fraction(v) for v in field[:, channel].tolist()] for field in (each.mean, each.m2))
        many = sum(count)
        total = sum(n * mean for n, mean in zip(count, means, strict=True))
        squares = sum(m2 + n * mean**2 for n, mean, m2 in zip(count, means, m2s, strict=True))
        assert columns.count[channel] == many
        assert columns.mean[channel] == (float(total / many) if many else 0.0)
        assert columns.m2[channel] == (float(max(squares - total**2 / many, 0)) if many else 0.0)
        values = x[:, channel][np.isfinite(x[:, channel])]
        assert columns.zeros[channel] == (x[:, channel] == 0).sum()
        assert columns.nan[channel] == np.isnan(x[:, channel]).sum()
        assert columns.inf[channel] == np.isinf(x[:, channel]).sum()
        if many:
            assert (columns.min[channel], columns.max[channel]) == (values.min(), values.max())
        else:
            assert np.isnan(columns.min[channel])
            assert np.isnan(columns.max[channel])


@pytest.mark.parametrize(("mean", "std"), [(100, 0.01), (-1e6, 1.0), (0, 1e-38), (1e37, 1e37), (3, 0)])
def test_deviation_in_hard_cases(mean, std):
    x = (mean + std * np.random.default_rng(0).standard_normal((9, 2, 13, 11))).astype(np.float32)
    values = x.transpose(1, 0, 2, 3).reshape(2, -1).astype(np.float64)
    columns = layer_of(x).moments.compute()
    np.testing.assert_allclose(columns.mean, values.mean(1), rtol=1e-12, atol=1e-50)
    np.testing.assert_allclose(columns.std, values.std(1, ddof=1), rtol=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30).map(lambda v: v if abs(v) > 1e-40 else 0.0), max_size=40))
def test_sums_equal_fsum(values):
    limbs = np.zeros((1, 24), np.int64)
    for value in values:
        exact.add(limbs, np.array([value]), 300)
    (whole,) = exact.numbers(exact.carry(limbs))
    assert int(whole) / (1 << 300) == math.fsum(values)


@settings(deadline=None)
@given(st.integers(-(2**220), 2**220), st.lists(st.integers(-(2**62), 2**62), min_size=6, max_size=6))
def test_a_number_has_one_form(number, noise):
    def limbs_of(value: int) -> np.ndarray:
        sign, value = (-1, -value) if value < 0 else (1, value)
        return np.array([sign * (value >> 32 * k & 0xFFFFFFFF) for k in range(8)], np.int64)

    plain = limbs_of(number)
    # The same number with something moved from limb to limb.
    mixed = plain.copy()
    for k, much in enumerate(noise):
        mixed[k] += (much >> 32) << 32
        mixed[k + 1] -= much >> 32
    np.testing.assert_array_equal(exact.carry(mixed[None]), plain[None])
    assert exact.numbers(plain[None])[0] == number


def test_a_sum_beyond_its_limbs_is_an_error():
    with pytest.raises(ValueError, match="beyond an exact sum"):
        exact.add(np.zeros((1, 8), np.int64), np.array([2.0**200]), 64)


@settings(deadline=None, max_examples=60)
@given(pictures(most=9), st.integers(1, 4))
def test_the_best_images_are_those_of_a_sort(x, top):
    found = layer_of(x, Measures(top=top, histograms=())).examples
    assert found is not None
    for channel in range(x.shape[1]):
        planes = [
            (number, plane)
            for number, plane in enumerate(x[:, channel])
            if np.isfinite(plane).all() and plane.any()  # neither NaN nor infinite; not silent
        ]
        best = sorted(planes, key=lambda pair: (-pair[1].max(), pair[0]))[:top]
        many = len(best)
        assert found.image[channel].tolist() == [number for number, _ in best] + [-1] * (top - many)
        assert found.taken[channel].tolist() == [True] * many + [False] * (top - many)
        assert np.isnan(found.value[channel, many:]).all()
        for place, (_, plane) in enumerate(best):
            assert found.value[channel, place] == plane.max()
            y, x_ = np.unravel_index(plane.argmax(), plane.shape)
            assert found.position[channel, place].tolist() == [y, x_]
            assert found.low[channel, place] == plane.min()
            upper, left = found.corner[channel, place]
            height, width = found.window
            assert (height, width) == (min(WINDOW, plane.shape[0]), min(WINDOW, plane.shape[1]))
            assert upper <= y < upper + height
            assert left <= x_ < left + width
            codes = quantize(plane.reshape(1, -1), plane.min()[None], plane.max()[None]).reshape(plane.shape)
            want = codes[upper : upper + height, left : left + width]
            np.testing.assert_array_equal(found.maps[channel, place], want)


def test_a_channel_that_is_zero_everywhere_is_dead_and_has_no_examples():
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    x[:, 1] = 0
    x[2, 2] = 0
    x[3, 2] = -0.0
    layer = layer_of(x)
    assert layer.moments.silent.tolist() == [0, 4, 2]
    assert layer.images == 4
    assert (layer.examples.image[1] == -1).all()
    assert set(layer.examples.image[2].tolist()) == {-1, 0, 1}


@settings(deadline=None, max_examples=60)
@given(pictures())
def test_histograms_equal_those_of_numpy(x):
    layer = layer_of(x)
    least, most = edges_of(layer.histogram.numbers)
    for channel in range(x.shape[1]):
        values = x[:, channel].ravel()
        values = values[np.isfinite(values) & (np.abs(values) >= 2.0**-32)]
        ends = (np.abs(values).view(np.int32) >> 20).clip(max=FIRST + 511)
        want = [
            ((ends == (abs_bin(low, high))) & (np.signbit(values) == (high <= 0))).sum()
            for low, high in zip(least, most, strict=True)
        ]
        assert layer.histogram.bins[channel].tolist() == want
        assert sum(want) == len(values)


FIRST = (127 - 32) * 8 - 1


def abs_bin(low: float, high: float) -> int:
    """Number of a bin by its smaller bound."""
    return int(np.float32(min(abs(low), abs(high))).view(np.int32) >> 20)


@settings(deadline=None, max_examples=60)
@given(pictures(), st.floats(0, 1))
def test_quantiles_are_within_their_bound(x, share):
    layer = layer_of(x)
    columns = layer.moments.compute()
    spread = ChannelHistograms(layer.histogram.numbers, layer.histogram.bins.astype(np.int64))
    (found,) = spread.quantiles([share], columns.count, columns.min, columns.max)
    for channel in range(x.shape[1]):
        values = np.sort(x[:, channel][np.isfinite(x[:, channel])]).astype(np.float64)
        if not len(values):
            assert np.isnan(found[channel])
            continue
        want = values[max(math.ceil(share * len(values)), 1) - 1]
        if abs(want) < 2.0**31:
            assert abs(found[channel] - want) <= max(0.063 * abs(want), 2.0**-32)


def test_many_values_of_one_kind_are_counted():
    # More than a counter of 16 bits holds, in one channel.
    x = np.full((2, 1, 700, 700), 3, np.float32)
    layer = layer_of(x)
    assert layer.histogram.bins.tolist() == [[x.size]]
    layer = layer_of(np.zeros_like(x))
    assert layer.histogram.bins.shape == (1, 0)


@settings(deadline=None, max_examples=30)
@given(st.permutations([[0.25, 1], [-3, 0.5], [1e9, 2], [-1e-9, -1e20], [-0.0, 0.0], [7, 7]]))
def test_counters_grow_with_the_values(pairs):
    x = np.array(pairs, np.float32).reshape(6, 1, 1, 2)
    updater = Updater(nn.Identity(), (), EVERYTHING)
    for number, image in enumerate(x):
        updater.update(torch.from_numpy(image[None]), [number])
    assert updater.take().pack() == survey(x).pack()


def test_states_of_other_measures_do_not_merge_and_nothing_changes():
    x = np.ones((2, 1, 3, 3), np.float32)
    whole = survey(x)
    before = whole.pack()
    for other in (Measures(top=2, histograms=("*",), classes=3), Measures(top=3, histograms=(), classes=3)):
        with pytest.raises(RecordError, match="Identity"):
            whole.merge(survey(x, measures=other))
    with pytest.raises(RecordError, match="classes"):
        whole.merge(survey(x, measures=Measures(top=3, histograms=("*",))))
    assert whole.pack() == before


def test_bytes_and_back():
    x = np.random.default_rng(0).standard_normal((5, 3, 6, 7)).astype(np.float32)
    scale = {"Identity": calibrate(x.mean((2, 3)))}
    state = survey(
        x, measures=Measures(top=2, histograms=("*",), classes=2, scale=scale, gram=("*",)), labels=[0, 1, 1, 0, -1]
    )
    again = NetworkAccumulator.unpack(state.pack())
    assert again.pack() == state.pack()
    assert (again.images, again.classes, again.counts.tolist()) == (5, 2, [2, 2])
    assert again.nbytes == state.nbytes > 0
    np.testing.assert_array_equal(again.layers["Identity"].means.gram, state.layers["Identity"].means.gram)
    again.merge(state)
    assert again.images == 10
    assert NetworkAccumulator.unpack(NetworkAccumulator().pack()).pack() == NetworkAccumulator().pack()


def whole_state() -> NetworkAccumulator:
    """With everything that a layer can have."""
    x = np.random.default_rng(1).standard_normal((4, 2, 3, 3)).astype(np.float32)
    scale = {"Identity": calibrate(x.mean((2, 3)))}
    what = Measures(top=3, histograms=("*",), classes=3, scale=scale, gram=("*",))
    return survey(x, measures=what, labels=[0, 2, 2, -1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'\\"channels\\": 2', b'\\"channels\\": 3'),
        (b'\\"classes\\": 3', b'\\"classes\\": 2'),
        (b'\\"classes\\": 3', b'\\"classes\\":-3'),
        (b'\\"images\\": 4', b'\\"images\\":-4'),
        (b'\\"images\\": 4, \\"layers', b'\\"images\\":-4, \\"layers'),
        (b'\\"rank\\": 1', b'\\"rank\\": x'),
        (b'\\"rank\\": 1', b'\\"rank\\":-1'),
        (b'\\"rank\\": 1', b'\\"rank\\":""'),
        (b'\\"shape\\": [2, ', b'\\"shape\\": [x, '),
        (b'\\"mixed\\": false', b'\\"mixed\\": 10000'),
        (b'\\"type\\": \\"Identity\\"', b'\\"type\\": 1234567890\\n'),
        (b'\\"schema\\": 2', b'\\"schema\\": 3'),
        (b'\\"moments\\"', b'\\"momentum\\'),
    ],
)
def test_forged_headers_are_an_error(old, new):
    content = whole_state().pack()
    assert old in content and len(old) == len(new)
    with pytest.raises(RecordError):
        NetworkAccumulator.unpack(content.replace(old, new))


def forged(change) -> bytes:
    """A state whose arrays `change` has changed."""
    from safetensors.numpy import load, save

    content = whole_state().pack()
    length = int.from_bytes(content[:8], "little")
    arrays = load(content)
    change(arrays)
    return save(arrays, json.loads(content[8 : 8 + length])["__metadata__"])


def test_every_array_has_to_be_there_in_its_type_and_shape():
    NetworkAccumulator.unpack(forged(lambda arrays: None))
    names = []
    forged(lambda arrays: names.extend(arrays))
    assert len(names) == 19
    for name in names:
        changes = [lambda arrays, name=name: arrays.update({name: np.stack([arrays[name]] * 2)})]
        for kind in (np.int8, np.float32, np.float64, np.uint8, np.int16):
            changes.append(lambda arrays, name=name, kind=kind: arrays.update({name: arrays[name].astype(kind)}))
        changes.append(lambda arrays, name=name: arrays.pop(name))
        right = forged(lambda arrays: None)
        for change in changes:
            if forged(change) != right:
                with pytest.raises(RecordError):
                    NetworkAccumulator.unpack(forged(change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("histogram.first", 1022),
        ("histogram.first", -1),
        ("examples.grid", [3, 4]),
        ("examples.grid", [0, 0]),
        ("examples.key", [[1, 2, 3], [3, 2, 1]]),
        ("means.labels", [2, 0]),
        ("means.labels", [1, 1]),
        ("means.labels", [0, 3]),
        ("means.labels", [-1, 2]),
    ],
)
def test_arrays_that_contradict_themselves_are_an_error(name, value):
    with pytest.raises(RecordError):
        NetworkAccumulator.unpack(forged(lambda arrays: arrays.update({f"0.{name}": np.array(value, np.int64)})))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
def test_sums_of_pooled_means(images, channels, seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(5, 1, (images, channels)) * 10.0 ** rng.integers(-5, 6, channels)
    scale = calibrate(means)
    steps, cut = rounded(means, scale)
    assert not cut.any()
    back = (steps + scale[1]) * scale[0]
    np.testing.assert_allclose(back, means, atol=float(np.ptp(means, axis=0).max()) / 8000 + 1e-30, rtol=1e-6)
    labels = rng.integers(-1, 3, images)
    whole = steps.astype(np.int64) + scale[1].astype(np.int64)
    at = rng.integers(0, images + 1)
    parts = [ChannelMeans.empty(scale, True) for _ in range(2)]
    for part, chosen in zip(parts, (slice(0, at), slice(at, None)), strict=True):
        part.update(part.rounded(means[chosen]), labels[chosen])
    found = parts[0].merge(parts[1])
    assert found.cut == 0
    np.testing.assert_array_equal(found.gram, steps.astype(np.int64).T @ steps)
    np.testing.assert_array_equal(found.from_zero()[0], whole.sum(0))
    np.testing.assert_array_equal(found.from_zero()[1], (whole**2).sum(0))
    counts = np.array([(labels == k).sum() for k in range(3)])
    want = np.stack([whole[labels == k].sum(0) for k in range(3)])
    np.testing.assert_array_equal(found.by_class(counts), want)


def test_products_are_exact_with_and_without_torch(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**15), 2**15, (2, 70, 64))
    want = a @ b.T
    np.testing.assert_array_equal(product(a.astype(float), b.T.astype(float)), want)
    monkeypatch.delitem(sys.modules, "torch")
    np.testing.assert_array_equal(product(a.astype(float), b.T.astype(float)), want)


def test_means_out_of_range_are_counted():
    scale = calibrate(np.array([[1.0], [2.0]]))
    steps, cut = rounded(np.array([[1.5], [1e9], [-1e9]]), scale)
    assert cut.tolist() == [2]
    assert abs(steps).max() == 32767


def test_hsic_is_the_estimator_of_its_authors():
    rng = np.random.default_rng(0)
    n = 11
    layers = [rng.integers(-30000, 30000, (n, size)).astype(np.float64) for size in (3, 8, 1)]
    found = hsic(layers)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            k, l_ = x @ x.T, y @ y.T
            np.fill_diagonal(k, 0)
            np.fill_diagonal(l_, 0)
            one = np.ones(n)
            want = (
                np.trace(k @ l_)
                + one @ k @ one * (one @ l_ @ one) / ((n - 1) * (n - 2))
                - 2 / (n - 2) * one @ k @ l_ @ one
            )
            np.testing.assert_allclose(
                found[i, j], want / (n * (n - 3)), rtol=1e-3, atol=1e-4 * np.sqrt(found[i, i] * found[j, j])
            )
    # It does not see what is added to every image.
    moved = hsic([layers[0] + 1000, *layers[1:]])
    np.testing.assert_allclose(moved[0], found[0], rtol=1e-3, atol=1e-4 * found[0].max())


def test_kernels_take_only_what_fits():
    table, ints = np.zeros((8, 6)), np.zeros((5, 3), np.int64)
    ends, sums = np.zeros((2, 3)), np.zeros((3, exact.LIMBS), np.int64)
    survey_calls.fold(table, 3, ints, ends, sums)
    for wrong in ((table, 2, ints, ends, sums), (table, 3, ints, ends, sums[:, 1:]), (table[:4], 3, ints, ends, sums)):
        with pytest.raises(ValueError, match="expected"):
            survey_calls.fold(*wrong)
    values, numbers, floor = np.zeros(2 * 3 * 4, np.float32), np.zeros(2, np.int64), np.zeros(3, np.int64)
    lists = (
        np.zeros((3, 2), np.int64),
        np.zeros((3, 2), np.uint8),
        np.zeros((3, 2, 2), np.int16),
        np.zeros((3, 2), np.float32),
        np.zeros((3, 2, 4), np.uint8),
    )
    fits = [2, 1, 3, 4, 0, 0, 2, 2, 1, 2, 2]
    survey_calls.enlist(values, table, numbers, np.array(fits), floor, lists)
    for place, size in [(0, 3), (1, 2), (2, 4), (3, 5), (4, 2), (5, 1), (6, 3), (7, 0), (9, 3), (10, 1)]:
        wrong = np.array(fits)
        wrong[place] = size
        with pytest.raises(ValueError, match=r"expected|does not fit"):
            survey_calls.enlist(values, table, numbers, wrong, floor, lists)
    room, counts = np.zeros(8 * BINS + BLOCK, np.uint16), np.zeros((3, 2, BINS), np.uint32)
    values[:] = -0.0
    survey_calls.spectrum(values, table, 3, counts[:, :1, :1].copy(), None, room)
    assert not room[: 8 * BINS].any()
    for wrong in ((values, table, 3, counts[1:], None, room), (values, table, 3, counts, counts[1:], room)):
        with pytest.raises(ValueError, match="expected"):
            survey_calls.spectrum(*wrong)
    table[2], table[3] = -1, 2  # 2 is 33 powers of two over the least that is counted, and the first of its bins
    assert survey_calls.reach(table) == (2, 33 * 8 + 2)
    for signs, width in ((1, 33 * 8 + 2), (2, 33 * 8 + 1), (3, BINS), (2, BINS + 1)):
        with pytest.raises(ValueError, match=f"2 signs and {33 * 8 + 2} bins do not fit into {signs} and {width}"):
            survey_calls.spectrum(values, table, 3, np.zeros((3, signs, width), np.uint32), None, room)
    for low, high, want in ((np.nan, np.nan, (1, 1)), (-0.0, 0.0, (1, 1)), (-3e38, 0, (2, BINS)), (0, 2**-32, (1, 2))):
        table[2], table[3] = low, high
        assert survey_calls.reach(table) == want


def test_an_empty_list_is_the_least_key():
    assert np.iinfo(np.int64).min == NONE


def test_images_without_a_finite_value_change_no_minimum():
    x = np.full((4, 1, 2, 2), np.nan, np.float32)
    x[2:] = [[[[1, 2], [3, -4]]]]
    whole = survey(x[:2])
    whole.merge(survey(x[2:], range(2, 4)))
    assert whole.pack() == survey(x).pack()
    columns = whole.layers["Identity"].moments.compute()
    assert (columns.min[0], columns.max[0], columns.count[0], columns.nan[0]) == (-4, 3, 8, 8)


def test_layers_stand_in_the_order_of_the_pass_whichever_ran_first():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first, self.rare = nn.Identity(), nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.last(self.rare(x) if x.sum() > 0 else x)

    def seen(sign: int, number: int) -> NetworkAccumulator:
        updater = Updater(Sometimes(), (), EVERYTHING)
        updater.update(sign * torch.ones(2, 1, 2, 2), [number, number + 1])
        return updater.take()

    one, other = NetworkAccumulator(), NetworkAccumulator()
    one.merge(seen(-1, 0))
    one.merge(seen(1, 2))
    other.merge(seen(1, 2))
    other.merge(seen(-1, 0))
    assert list(one.layers) == list(other.layers) == ["first", "rare", "last"]
    assert one.pack() == other.pack()
    assert one.layers["rare"].images == 2
