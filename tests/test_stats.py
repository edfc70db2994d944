"""The statistics kernels against numpy and exact sums."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from layerscope import dtypes, stats
from layerscope.stats import Columns, activations, distribution, merge, quantize, total

RNG = np.random.default_rng(5)
FLOAT_MAX = np.finfo(np.float32).max


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    stats.warm()


def finite(values: NDArray) -> NDArray:
    return values[np.isfinite(values)]


def reference(values: NDArray, bins: int) -> tuple[NDArray, NDArray] | None:
    """numpy's counts and edges of the finite values, in float64 where it has none in float32."""
    values = finite(values)
    for kind in (values.dtype, np.float64):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return np.histogram(values.astype(kind), bins)
            except (ValueError, RuntimeWarning):
                pass
    return None


def deviation(values: NDArray) -> float:
    """Standard deviation, ddof 1, from exactly rounded sums."""
    values = finite(values).astype(np.float64).ravel()
    mean = math.fsum(values) / len(values)
    residue = math.fsum(values - mean) / len(values)  # what rounding left out of the mean
    return math.sqrt(math.fsum((values - mean - residue) ** 2) / (len(values) - 1))


def check(values: NDArray, bins: int = 50, **options: int) -> stats.Distribution:
    """The distribution of a float tensor, after everything in it was compared with numpy."""
    found = distribution(values, values.dtype.name, bins, **options)
    good = finite(values)
    whole = found.whole
    assert whole.count[0] == good.size
    assert whole.nan[0] == np.isnan(values).sum()
    assert whole.inf[0] == np.isinf(values).sum()
    assert whole.zeros[0] == (values == 0).sum()
    if good.size == 0:
        assert np.isnan(whole.min[0]) and np.isnan(whole.max[0])
        assert found.edges is None and found.counts is None
        return found
    assert (whole.min[0], whole.max[0]) == (good.min(), good.max())
    assert found.edges is not None and found.counts is not None
    assert found.counts.sum() == good.size
    expected = reference(values, bins)
    if expected is not None:
        assert_array_equal(found.counts, expected[0])
        assert_array_equal(found.edges, expected[1])
        assert found.edges.dtype == expected[1].dtype
    return found


def spiked(values: NDArray, spike: float, at: int = 0) -> NDArray:
    values = np.array(values, np.float64)
    values[at] = spike
    return values


ZOO = {
    "normal": RNG.normal(size=30_001),
    "uniform": RNG.random(30_000),
    "one": np.array([1.5]),
    "two": np.array([-1.0, 3.0]),
    "zeros": np.zeros(10_000),
    "constant": np.full(10_000, 0.1),
    "constant 1e10": np.full(100, 1e10),
    "constant 1e38": np.full(100, 1e38),
    "minus zero": np.array([-0.0, 0.0, -0.0, 1.0]),
    "mean 100": RNG.normal(100, 0.01, 30_000),
    "mean 1e4": RNG.normal(1e4, 1e-3, 30_000),
    "two ulp": 1 + RNG.integers(0, 2, 10_000) * 2.0**-23,
    "sixty ulp": 1 + RNG.integers(0, 60, 10_000) * 2.0**-23,
    "300 ulp": 1 + RNG.integers(0, 300, 10_000) * 2.0**-23,
    "sixty denormals": RNG.integers(0, 61, 10_000) * 2.0**-149,
    "many denormals": RNG.integers(-5000, 5000, 10_000) * 2.0**-149,
    "tiny": RNG.normal(0, 1e-38, 10_000),
    "huge": spiked(RNG.normal(0, 1e37, 10_000), 1e38),
    "overflow": np.array([FLOAT_MAX, -FLOAT_MAX, 0.0, 1.0, -2.0]),
    "outlier first": spiked(RNG.normal(size=10_000), 1e8),
    "outlier last": spiked(RNG.normal(size=10_000), -1e4, -1),
    "on the edges": RNG.integers(-25, 26, 10_000) / 25,
    "integers": RNG.integers(0, 100, 10_000).astype(float),
    "pruned": np.where(RNG.random(10_000) < 0.9, 0, np.clip(RNG.normal(size=10_000), -1, 1)),
}
NAN = np.array([np.nan, np.inf, -np.inf])
ZOO["some not finite"] = np.where(RNG.random(10_000) < 0.01, RNG.choice(NAN, 10_000), RNG.normal(size=10_000))
ZOO["first is NaN"] = spiked(RNG.normal(100, 0.01, 10_000), np.nan)
ZOO["none finite"] = RNG.choice(NAN, 100)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", ZOO)
def test_counts_edges_and_deviation_equal_numpys(name: str, kind: type) -> None:
    values = ZOO[name].astype(kind)
    whole = check(values).whole
    if whole.count[0] > 1:
        expected = deviation(values)
        assert_allclose(whole.std[0], expected, rtol=1e-9, atol=1e-16 * abs(whole.mean[0]))
        mean = math.fsum(finite(values).astype(float)) / whole.count[0]
        assert_allclose(whole.mean[0], mean, rtol=1e-12, atol=1e-15 * np.abs(finite(values)).max())


@pytest.mark.parametrize("bins", [1, 2, 7, 64, 255, 256, 300, 1000])
def test_any_number_of_bins(bins: int) -> None:
    check(RNG.normal(size=200_000).astype(np.float32), bins)


def test_small_steps_keep_numpys_own_misplacements() -> None:
    """The last of 50 bins over 60 denormals starts at 49, yet numpy puts 54 into bin 45: so do we."""
    values = np.arange(61, dtype=np.uint32).view(np.float32)
    found = check(values)
    assert found.edges is not None and found.counts is not None
    by_edges = np.minimum(np.searchsorted(found.edges, values, "right") - 1, 49)
    assert not np.array_equal(found.counts, np.bincount(by_edges, minlength=50))


floats32 = st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(np.float32))
narrow = st.floats(-4, 4, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(floats32, narrow), max_size=20), st.integers(1, 70), st.sampled_from([1, 9000]))
def test_any_bits_of_float32(pool: list[float], bins: int, repeats: int) -> None:
    values = np.repeat(np.array(pool, np.float32), repeats)
    np.random.default_rng(0).shuffle(values)
    check(values, bins)


@settings(max_examples=60, deadline=None)
@given(narrow, st.floats(2**-20, 1e6, width=32), st.integers(1, 70), st.sampled_from([np.float32, np.float64]))
def test_values_on_and_beside_every_edge(low: float, span: float, bins: int, kind: type) -> None:
    ends = np.array([low, low + span], kind)
    try:
        edges = np.histogram_bin_edges(ends, bins)
    except ValueError:
        edges = ends
    around = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
    around = np.clip(around, ends[0], ends[1])
    inside = np.random.default_rng(bins).uniform(ends[0], ends[1], 10_000).astype(kind)
    values = np.clip(np.concatenate([inside, np.resize(around, 3000), ends]), ends[0], ends[1])
    np.random.default_rng(0).shuffle(values)
    check(values, bins)


@pytest.mark.parametrize("low, high", [(-1e308, 1.5e308), (1.7e308, 1.7e308), (1.0, 1 + 3e-16), (1e300, 1e300)])
def test_ranges_that_numpy_refuses(low: float, high: float) -> None:
    values = np.array([low, high, low, high, high])
    assert reference(values, 50) is None
    found = check(values)
    assert_allclose(found.whole.mean[0], 2 * (low / 5) + 3 * (high / 5), rtol=1e-12)
    assert found.edges is not None and found.counts is not None
    assert np.isfinite(found.edges).all() and (np.diff(found.edges) > 0).all()
    place = np.minimum(np.searchsorted(found.edges, values, "right") - 1, 49)
    assert_array_equal(found.counts, np.bincount(place, minlength=50))


def test_edges_up_to_the_greatest_float_warn_of_nothing() -> None:
    top = np.finfo(np.float64).max
    check(np.array([0.0, top]), 3)


def bits_of(dtype: str, size: int) -> NDArray:
    """Random bits of a type; for 16-bit floats those of a bell, since most patterns are absurdly large."""
    if dtype == "float16":
        return RNG.normal(0, 0.05, size).astype(np.float16)
    if dtype == "bfloat16":
        return (RNG.normal(0, 0.05, size).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype == "bool":
        return RNG.random(size) < 0.3
    storage = np.dtype(dtypes.STORAGE[dtype])
    bits = RNG.integers(0, 1 << 62, size)
    return bits.astype(storage) if storage.kind in "iu" else bits.astype(np.uint8).view(storage)


NARROW = [name for name in dtypes.STORAGE if dtypes.itemsize(name) <= 2]
INTEGERS = ["int32", "int64", "uint32", "uint64", "qint32"]


@pytest.mark.parametrize("size", [999, 160_000])
@pytest.mark.parametrize("dtype", NARROW + INTEGERS)
def test_other_types(dtype: str, size: int) -> None:
    bits = bits_of(dtype, size).reshape(-1, 3 if size % 100 else 1000)
    rows = len(bits)
    found = distribution(bits, dtype, rows=rows)
    values = dtypes.decode(bits, dtype)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    expected = reference(values, 50)
    assert expected is not None and found.edges is not None and found.counts is not None
    assert_array_equal(found.counts, expected[0])
    assert_array_equal(found.edges, expected[1])
    assert_allclose(found.whole.std[0], deviation(values), rtol=1e-9)
    assert found.rows is not None
    check_rows(found.rows, values)
    alone = distribution(bits, dtype)
    assert_array_equal(alone.counts, found.counts)
    assert_allclose(alone.whole.std, found.whole.std, rtol=1e-12)


def check_rows(columns: Columns, values: NDArray, **tolerance: float) -> None:
    """Columns (R,) against numpy. values (R, N)."""
    values = values.reshape(len(columns.count), -1).astype(np.float64)
    masked = np.ma.masked_invalid(values)
    assert_array_equal(columns.count, masked.count(1))
    assert_array_equal(columns.zeros, (values == 0).sum(1))
    assert_array_equal(columns.nan, np.isnan(values).sum(1))
    assert_array_equal(columns.inf, np.isinf(values).sum(1))
    for row, stretch in enumerate(values):
        good = finite(stretch)
        if not good.size:
            assert (columns.mean[row], columns.m2[row]) == (0, 0) and np.isnan(columns.min[row])
            continue
        mean = math.fsum(good) / good.size
        assert (columns.min[row], columns.max[row]) == (good.min(), good.max())
        assert_allclose(columns.mean[row], mean, rtol=1e-9, atol=1e-12 * np.abs(good).max())
        spread = math.fsum((good - mean) ** 2)
        assert_allclose(columns.m2[row], spread, rtol=1e-8, atol=1e-20 * good.size * mean**2 + 1e-300)


def test_every_pattern_of_16_bits() -> None:
    bits = np.repeat(np.arange(1 << 16, dtype=np.uint16), 3)
    for dtype in ("float16", "bfloat16"):
        stored = bits.view(dtypes.STORAGE[dtype])
        found = distribution(stored, dtype)
        values = dtypes.decode(stored, dtype)
        assert found.whole.nan[0] == np.isnan(values).sum()
        assert found.whole.inf[0] == 6
        assert found.counts is not None and found.counts.sum() == np.isfinite(values).sum()


@pytest.mark.parametrize("dtype, part", [("complex64", "float32"), ("complex128", "float64")])
def test_complex_numbers_count_as_two(dtype: str, part: str) -> None:
    values = (RNG.normal(size=(4, 30)) + 1j * RNG.normal(size=(4, 30))).astype(dtype)
    found, expected = distribution(values, dtype, rows=4), distribution(values.view(part), part, rows=4)
    assert_array_equal(found.counts, expected.counts)
    assert found.rows is not None and found.rows.count.tolist() == [60] * 4


@pytest.mark.parametrize("shape", [(8, 3, 5, 5), (1, 70_000), (20_000, 1), (3, 40_000), (5,), (2, 0), (0, 4)])
def test_rows(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerscope.stats.tensors._PIECE", 10_000)
    values = RNG.normal(10, 1, shape).astype(np.float32)
    found = check(values, rows=shape[0], threads=2)
    assert found.rows is not None and len(found.rows.count) == shape[0]
    if values.size and shape[0] < 100:
        check_rows(found.rows, values)
    assert_array_equal(total(found.rows).count, found.whole.count[0])
    assert distribution(values, "float32").rows is None


def test_rows_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="10 values do not make 3 rows"):
        distribution(np.zeros(10), "float64", rows=3)


def test_empty_and_scalar() -> None:
    found = distribution(np.zeros((0, 3), np.float32), "float32")
    assert (found.edges, found.counts, found.whole.count.tolist()) == (None, None, [0])
    assert np.isnan(found.whole.std).all()
    check(np.array(2.5, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_threads_and_pieces_change_nothing(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = RNG.normal(size=200_003).astype(np.float32) if dtype == "float32" else bits_of(dtype, 200_003)
    whole = distribution(bits, dtype, threads=1)
    monkeypatch.setattr("layerscope.stats.tensors._PIECE", 7_001)
    for threads in (1, 2, 3, None):
        found = distribution(bits, dtype, threads=threads)
        assert_array_equal(found.counts, whole.counts)
        assert_array_equal(found.edges, whole.edges)
        for name, field in found.whole._asdict().items():
            assert_allclose(field, getattr(whole.whole, name), rtol=1e-12, atol=1e-15)


def test_any_layout(tmp_path: Path) -> None:
    values = RNG.normal(size=(40, 30, 70)).astype(np.float32)
    values.tofile(tmp_path / "values")
    mapped = np.memmap(tmp_path / "values", np.float32, "r", shape=values.shape)
    locked = values.copy()
    locked.setflags(write=False)
    odd = np.frombuffer(b"x" + values.tobytes(), np.float32, offset=1).reshape(values.shape)
    assert not odd.flags.aligned
    for same in (mapped, locked, odd, np.asfortranarray(values), values[::-1, :, ::-1][::-1, :, ::-1]):
        found = check(same, rows=40)
        assert found.rows is not None
        check_rows(found.rows, values)
    found = check(values.transpose(2, 0, 1)[::2], rows=35)
    assert found.rows is not None
    check_rows(found.rows, np.ascontiguousarray(values.transpose(2, 0, 1)[::2]))


def test_read_only_and_odd_arrays_compile_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerscope.stats.objects._compile", lambda line: pytest.fail("compiled"))
    values = RNG.normal(size=(2, 3, 50)).astype(np.float32)
    distribution(np.frombuffer(b"x" + values.tobytes(), np.float32, offset=1), "float32")
    values.setflags(write=False)
    columns = activations(values)
    activations(values, channels_last=True)
    quantize(values[0], columns.min[0], columns.max[0])
    distribution(values, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_memory_is_bounded(dtype: str) -> None:
    bits = np.zeros(24 << 20, dtypes.STORAGE[dtype])
    bits[5] = 1
    tracemalloc.start()
    distribution(bits, dtype, rows=16, threads=2)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 60e6


def batch(images: int, channels: int, size: int) -> NDArray[np.float32]:
    """Activations (B, C, N) with a different trap in each of the first channels."""
    x = RNG.normal(0, 1, (images, channels, size)).astype(np.float32)
    traps = [
        lambda row: np.maximum(row, 0),
        lambda row: row * 0,
        lambda row: 100 + 0.01 * row,
        lambda row: spiked(100 + 0.01 * row, 1e4),
        lambda row: spiked(row, np.nan),
        lambda row: spiked(100 + 0.01 * row, np.inf, -1),
        lambda row: row * np.nan,
        lambda row: np.full_like(row, 0.1),
        lambda row: row * 1e-30,
        lambda row: row * 1e30,
        lambda row: spiked(row * 1e-3, -0.0),
    ]
    for channel, trap in enumerate(traps[:channels]):
        for image in range(images):
            x[image, channel] = trap(x[image, channel])
    return x


@pytest.mark.parametrize("shape", [(2, 16, 49), (1, 13, 1), (3, 12, 8), (2, 11, 197), (1, 12, 3000)])
def test_activations(shape: tuple[int, ...]) -> None:
    x = batch(*shape)
    last = np.ascontiguousarray(x.transpose(0, 2, 1))
    for columns in (activations(x), activations(last, channels_last=True)):
        assert all(field.shape == shape[:2] for field in columns)
        check_rows(Columns(*(field.reshape(-1) for field in columns)), x)


def test_activations_of_nothing() -> None:
    for shape in ((2, 3, 0), (0, 3, 4), (2, 0, 4)):
        columns = activations(np.zeros(shape, np.float32))
        assert columns.count.shape == shape[:2] and not columns.count.any()
        last = activations(np.zeros((shape[0], shape[2], shape[1]), np.float32), channels_last=True)
        assert last.count.shape == shape[:2] and not last.count.any()


def test_quantize() -> None:
    x = RNG.normal(size=(5, 1001)).astype(np.float32)
    x[1] = 3.0
    x[2, :3] = np.nan, np.inf, -np.inf
    x[3] *= 1e38
    low, high = (
        np.nanmin(np.where(np.isfinite(x), x, np.nan), 1),
        np.nanmax(np.where(np.isfinite(x), x, np.nan), 1),
    )
    low[4], high[4] = -0.5, 0.5  # a range that does not cover the channel
    low, high = low.astype(np.float64), high.astype(np.float64)
    found = quantize(x, low, high)
    for channel in range(5):
        span = high[channel] - low[channel]
        scale = 254 / span if span > 0 else 0.0
        values = np.where(np.isfinite(x[channel]), x[channel], 0).astype(np.float64)
        steps = np.floor((values - low[channel]) * scale + 0.5)
        codes = np.where(np.isfinite(x[channel]), np.clip(steps, 0, 254), 255)
        assert_array_equal(found[channel], codes)
        one_by_one = [quantize(x[channel : channel + 1, i : i + 1], low[[channel]], high[[channel]]) for i in range(40)]
        assert_array_equal(found[channel, :40], np.ravel(one_by_one))
    assert (found[1] == 0).all() and (found[2, :3] == 255).all()
    back = low[0] + found[0] * (high[0] - low[0]) / 254
    assert np.abs(back - x[0]).max() <= (high[0] - low[0]) / 508 * (1 + 1e-6)
    nothing = np.full(5, np.nan)
    assert (quantize(np.full_like(x, np.nan), nothing, nothing) == 255).all()
    assert_array_equal(quantize(np.asfortranarray(x), low, high), found)


parts = st.lists(st.lists(st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from(NAN.tolist())), max_size=9))


@settings(max_examples=60, deadline=None)
@given(parts)
def test_merge_and_total_equal_the_whole(lists: list[list[float]]) -> None:
    arrays = [np.array(part, np.float32) for part in lists] or [np.zeros(0, np.float32)]
    whole = distribution(np.concatenate(arrays), "float32").whole
    columns = [distribution(part, "float32").whole for part in arrays]
    merged = columns[0]
    for part in columns[1:]:
        merged = merge(merged, part)
    stacked = Columns(*(np.stack(fields) for fields in zip(*columns, strict=True)))
    for found in (merged, total(stacked, axis=0)):
        for name, field in found._asdict().items():
            assert field.shape == (1,)
            assert_allclose(field, getattr(whole, name), rtol=1e-9, atol=1e-7, err_msg=name)


def test_merge_minds_the_counts() -> None:
    """Means merged without counts made 2 of {0, 0, 0} and {4}."""
    a, b = (distribution(np.array(part, np.float64), "float64").whole for part in ([0, 0, 0], [4]))
    assert merge(a, b).mean.tolist() == [1.0]
    assert merge(a, b).m2.tolist() == [12.0]
    assert merge(b, a).max.tolist() == [4.0]


def test_total_along_an_axis() -> None:
    x = batch(3, 12, 64)
    columns = activations(x)
    across = total(columns, axis=0)
    assert across.count.shape == (12,)
    check_rows(across, np.ascontiguousarray(x.transpose(1, 0, 2)))
    assert total(columns).count.shape == ()


def test_every_name_is_exported() -> None:
    assert len(set(stats.__all__)) == len(stats.__all__)
    assert all(hasattr(stats, name) for name in stats.__all__)
