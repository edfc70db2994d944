"""The kernels against their twins in numpy, which were written from the same sentences and share no line with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from layerscope import stats
from layerscope.stats import calls, histogram, objects, plain
from layerscope.stats.kernels import STEEP
from layerscope.stats.signatures import SIGNATURES

KINDS = st.sampled_from([np.float32, np.float64])


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    stats.machine_code()
    assert all(objects.kernel(name) is not twin for name, twin in plain.TWINS.items())


@contextmanager
def numpy_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_kernels", plain.TWINS)
        yield


def both(call: Callable[..., None], *arguments: object) -> tuple[NDArray, NDArray]:
    """What a kernel and its twin make of the last argument, an array that they write to."""
    *given, out = arguments
    results = out.copy(), out.copy()
    call(*given, results[0])
    with numpy_alone():
        call(*given, results[1])
    return results


def floats(kind: type, *shape: int, specials: bool = True) -> st.SearchStrategy[NDArray]:
    """Any bits, or values of one size: those of another kind are rare among any bits."""
    width = 8 * np.dtype(kind).itemsize
    some = st.floats(-100, 100, width=width)
    wild = st.floats(width=width, allow_nan=specials, allow_infinity=specials)
    return hnp.arrays(kind, shape, elements=some | wild, fill=some) | hnp.arrays(kind, shape, elements=some, fill=some)


def check_table(x: NDArray, table: NDArray, twin: NDArray) -> None:
    """Rows of x (R, N) as the kernel and as its twin see them, tables (8, R)."""
    assert_array_equal(table[2:4], twin[2:4])
    assert_array_equal(table[4:].view(np.int64), twin[4:].view(np.int64))
    for row, (mean, m2) in enumerate(zip(*table[:2], strict=True)):
        values = x[row][np.isfinite(x[row])].astype(np.float64)
        with np.errstate(over="ignore"):
            largest = np.abs(values).max(initial=0)
        assert_allclose(mean, twin[0, row], rtol=1e-13, atol=1e-13 * largest)
        # The kernel shifts by the first value and gives up where that costs more than three digits; squares of what is
        # tiny end below the least float.
        assert_allclose(m2, twin[1, row], rtol=1e-15 * STEEP, atol=len(values) * 1e-307)


sizes = st.tuples(st.integers(0, 4), st.integers(0, 200))


@settings(max_examples=100, deadline=None)
@given(st.data(), KINDS, sizes)
def test_rows(data: st.DataObject, kind: type, shape: tuple[int, int]) -> None:
    rows, size = shape
    x = data.draw(floats(kind, rows, size))
    table, twin = both(calls.rows, x.reshape(-1), size, np.zeros((8, rows)))
    check_table(x, table, twin)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 3), st.integers(0, 20), st.integers(0, 5))
def test_channels_last(data: st.DataObject, images: int, size: int, channels: int) -> None:
    x = data.draw(floats(np.float32, images, size, channels))
    table, twin = both(calls.channels_last, x, np.zeros((8, images * channels)))
    check_table(np.ascontiguousarray(x.transpose(0, 2, 1)).reshape(images * channels, size), table, twin)


@settings(max_examples=100, deadline=None)
@given(st.data(), KINDS, st.integers(1, 255), st.integers(1, 400), st.booleans())
def test_bins(data: st.DataObject, kind: type, bins: int, size: int, finite: bool) -> None:
    x = data.draw(floats(kind, size, specials=not finite))
    good = x[np.isfinite(x)]
    if not good.size or good.min() == good.max():
        return
    edges = histogram.edges(float(good.min()), float(good.max()), x.dtype, bins)
    if (slack := histogram.slack(edges)) is None:
        return
    x = x.astype(edges.dtype)
    counts, twin = both(calls.bin_values, x, edges, np.zeros(bins, np.int64))
    assert_array_equal(counts, twin)
    assert counts.sum() == good.size
    if finite and slack < 0.25:
        many = np.tile(x, 4096 // size + 2)
        assert_array_equal(*both(lambda *of: calls.bin_pairs(*of[:2], slack, of[2]), many, edges, twin))


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 300))
def test_patterns(data: st.DataObject, kind: type, size: int) -> None:
    bits = data.draw(hnp.arrays(kind, size))
    counts = np.arange(1 << 8 * bits.itemsize)
    assert_array_equal(*both(calls.count_patterns, bits, counts))
    table = np.random.default_rng(size).normal(size=counts.size).astype(np.float32)
    assert_array_equal(
        *both(lambda *of: calls.spread(*of[:2], counts.copy(), of[2]), bits, table, np.empty(size, "f4"))
    )
    assert_array_equal(*both(lambda *of: calls.spread(*of[:2], of[2], np.empty(size, "f4")), bits, table, counts))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 4), st.integers(0, 100), st.booleans())
def test_codes(data: st.DataObject, channels: int, size: int, own: bool) -> None:
    x = data.draw(floats(np.float32, channels, size))
    low, high = data.draw(floats(np.float64, 2, channels))
    if own:
        finite = np.isfinite(x)
        low, high = x.min(1, initial=np.inf, where=finite), x.max(1, initial=-np.inf, where=finite)
    out = np.empty(x.shape, np.uint8)
    assert_array_equal(*both(calls.codes, x, low.astype(np.float64), high.astype(np.float64), out))


@pytest.mark.parametrize("size", [1, 7, plain._MANY - 1, plain._MANY + 1, 3 * plain._MANY])
def test_large_arrays_in_parts(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(5, size)).astype(np.float32)
    x[1, 0] = np.nan
    check_table(x, *both(calls.rows, x.reshape(-1), size, np.zeros((8, 5))))
    last = np.ascontiguousarray(x.T)[None]
    check_table(x, *both(calls.channels_last, last, np.zeros((8, 5))))
    edges = np.linspace(-6, 6, 51, dtype=np.float32)
    assert_array_equal(*both(calls.bin_values, x.reshape(-1), edges, np.zeros(50, np.int64)))
    assert_array_equal(*both(calls.codes, x, np.full(5, -3.0), np.full(5, 3.0), np.empty(x.shape, np.uint8)))


def test_sums_that_go_over_the_top() -> None:
    x = np.array([[1.7e308] * 5, [1.7e308, -1.7e308, 1e308, 1, np.inf]])
    table, twin = both(calls.rows, x.reshape(-1), 5, np.zeros((8, 2)))
    assert_allclose(twin[0], table[0], rtol=1e-13)
    assert_array_equal(twin[1:4], table[1:4])
    assert np.isfinite(twin[0]).all() and twin[1].tolist() == [0, np.inf]


def test_numpy_says_nothing_and_serves_what_a_checkpoint_needs() -> None:
    assert objects.plain.TWINS.keys() == {
        name for name in SIGNATURES if name.rpartition("_")[0] not in ("carry", "fold", "enlist", "spectrum")
    }
    x = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0, -0.0], np.float32).repeat(10)
    with numpy_alone():
        columns = stats.distribution(x, "float32").whole
        stats.quantize(x[None], np.array([-1e38]), np.array([1e38]))
    assert (columns.count[0], columns.nan[0], columns.inf[0], columns.zeros[0]) == (40, 10, 20, 20)
