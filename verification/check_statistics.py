"""Statistics and histograms of every element type against numpy, torch and exactly rounded sums."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layerscope import dtypes, weights
from layerscope.activations import collector
from layerscope.commands import demo
from layerscope.stats import Columns, activations, distribution
from verification.measuring import Comparison, version
from verification.numbers_made import Made, floats, made

__all__ = ["Figures", "compare", "exact"]

BINS = 50
#: roundings of float64 that a mean or deviation may be off: 3.6e-12 of it
LIMIT = 16384.0


class Figures:
    """Comparisons of one set of statistics with three references, each in float64."""

    def __init__(self, of: str, exactly: bool = True) -> None:
        both = f"{version('numpy')} and {version('torch')}, float64"
        moments = ("mean", "std, ddof 1")
        self.plain = Comparison(f"{of}: count, zeros, NaN, infinities, min, max", both)
        self.exact = [Comparison(f"{of}: {what}", "sums rounded once (math.fsum)", LIMIT) for what in moments]
        self.others = [Comparison(f"{of}: {what}", both, LIMIT) for what in moments]
        self.exactly = exactly

    @property
    def lines(self) -> list[Comparison]:
        """Lines of the table."""
        return [self.plain, *(self.exact if self.exactly else []), *self.others]

    def see(self, case: str, found: Columns, values: NDArray[np.float64]) -> None:
        """One element of statistics against the values that they are of."""
        good, tensor = values[np.isfinite(values)], torch.from_numpy(np.ascontiguousarray(values))
        kept = tensor[tensor.isfinite()]
        ends = (good.min(), good.max()) if good.size else (np.nan, np.nan)
        torchs = (float(kept.amin()), float(kept.amax())) if good.size else (np.nan, np.nan)
        ours = [float(one) for one in (found.count, found.zeros, found.nan, found.inf, found.min, found.max)]
        self.plain.see(
            case, ours, [good.size, (values == 0).sum(), np.isnan(values).sum(), np.isinf(values).sum(), *ends]
        )
        sums = [kept.numel(), (tensor == 0).sum(), tensor.isnan().sum(), tensor.isinf().sum()]
        self.plain.see(case, ours, [*map(float, sums), *torchs])
        if good.size:
            self._moments(case, found, good)

    def _moments(self, case: str, found: Columns, good: NDArray[np.float64]) -> None:
        mean, std, size = exact(good)
        ours, true = (float(found.mean), float(found.std)), (mean, std)
        for line, a, b, scale in zip(self.exact, ours, true, (size, std), strict=True):
            line.see(case, a, b, scale)
        tensor = torch.from_numpy(good)
        with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deviation of one value
            numpys = good.mean(), good.std(ddof=1)
            torchs = float(tensor.mean()), float(tensor.std(correction=1))
        # Their deviation of a constant is a rounding of its mean, not 0.
        scales = (size, std if std > 0 else size)
        for others in (numpys, torchs):
            for line, a, b, right, scale in zip(self.others, ours, others, true, scales, strict=True):
                if np.isfinite(b) or b == right or np.isnan(right):  # else a sum of theirs has overflowed
                    line.see(case, a, b, scale)


def exact(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, standard deviation (ddof 1) and mean size of finite values, from sums that are rounded once.

    The squares of the deviations are those of float64: they overflow to infinity and underflow to zero.
    """
    shift = int(np.frexp(np.abs(values).max())[1])
    small = np.ldexp(values, -shift)  # no sum of these overflows
    mean, size = math.fsum(small) / len(small), math.fsum(np.abs(small)) / len(small)
    rest = math.fsum(small - mean) / len(small)  # what rounding left out of the mean
    with np.errstate(over="ignore", under="ignore"):
        mean, size = float(np.ldexp(mean, shift)), float(np.ldexp(size, shift))
        if len(values) < 2:
            return mean, math.nan, size
        squares = (np.ldexp(small - math.fsum(small) / len(small) - rest, shift)) ** 2
    try:
        return mean, math.sqrt(math.fsum(squares) / (len(values) - 1)), size
    except OverflowError:
        return mean, math.inf, size


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Every element type, the activation kernels, and a published checkpoint."""
    tensors, rows = Figures("tensors of every type"), Figures("every row of a tensor", exactly=False)
    values = Comparison("values of every bit pattern, 8 and 16 bits, and of samples", version("torch"))
    edges = Comparison("histogram edges", f"{version('numpy')}, numpy.histogram")
    counts = Comparison("histogram counts", f"{version('numpy')}, numpy.histogram")
    own = Comparison("histogram counts where numpy has no answer", "searching each value among the edges")
    names = [name for name in dtypes.STORAGE if not quick or name in ("float32", "bfloat16", "float8_e5m2", "int8")]
    for dtype in names:
        for one in made(dtype, 501 if quick else 5001):
            if quick and one.values.size > 1 << 18:
                continue
            case = f"{dtype}, {one.kind}"
            found = distribution(one.bits, dtype, BINS)
            tensors.see(case, found.whole.take(0), one.values)
            _values(values, case, one)
            _histogram(case, one.values, dtype, found, counts, edges, own)
            _rows(rows, case, one)
    kernels, away = Figures("activations, channels first and last"), Figures("activations, in torch for accelerators")
    for how in ("first", "last"):
        _activations(quick, kernels, how)
    _activations(quick, away, "torch")
    real = [] if quick else _checkpoint()
    lines = [values, *tensors.lines, *rows.lines, counts, edges, own, *kernels.lines, *away.lines, *real]
    notes = [
        f"Element types: {', '.join(names)}. Complex numbers count as two values each, quantised ones by their codes.",
        "For every type: ordinary, denormal, huge, constant and non-finite values, a large mean with a tiny deviation, "
        "an outlier in front or at the end, one element, none, and random bits; from 1 value to a million.",
        "The unit of a mean is that of the mean absolute value, since values of either sign cancel; the unit of a "
        "deviation is its own.",
        "Left out against numpy and torch: means and deviations for which a float64 sum of theirs overflows to "
        "something else than the right answer, which is infinite where the squares alone overflow.",
    ]
    return lines, notes


def _values(line: Comparison, case: str, one: Made) -> None:
    ours = dtypes.decode(np.atleast_1d(one.bits), one.dtype).reshape(-1)
    if np.iscomplexobj(ours):
        ours = np.ascontiguousarray(ours).view(f"f{ours.dtype.itemsize // 2}")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        line.see(case, ours.astype(np.float64), one.values)


def reference(values: NDArray[np.float64], dtype: str) -> tuple[NDArray, NDArray] | None:
    """numpy's counts and edges, as float32 for floats below float64, as float64 where it has no answer there."""
    small = dtype not in ("float64", "complex128") and (dtypes.is_float(dtype) or dtype.startswith("complex"))
    for kind in (np.float32, np.float64) if small else (np.float64,):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return np.histogram(values.astype(kind), BINS)
            except (ValueError, RuntimeWarning):
                pass
    return None


def _histogram(
    case: str, values: NDArray[np.float64], dtype: str, found: Any, counts: Comparison, edges: Comparison,
    own: Comparison,
) -> None:  # fmt: skip
    good = values[np.isfinite(values)]
    if not good.size:
        counts.see(case, [found.counts is None, found.edges is None], [True, True])
        return
    expected = reference(good, dtype)
    if expected:
        counts.see(case, found.counts, expected[0])
        edges.see(case, found.edges, expected[1])
        return
    place = np.clip(np.searchsorted(found.edges, good, "right") - 1, 0, BINS - 1)
    own.see(case, found.counts, np.bincount(place, minlength=BINS))


def _rows(figures: Figures, case: str, one: Made) -> None:
    """The same values cut into seven rows."""
    length = one.bits.size // 7
    if length == 0:
        return
    bits = one.bits.reshape(-1)[: 7 * length].reshape(7, length)
    found = distribution(bits, one.dtype, BINS, rows=7).rows
    values = one.values[: 7 * length * (len(one.values) // one.bits.size)].reshape(7, -1)
    assert found is not None
    for row in range(7):
        figures.see(f"{case}, row {row}", found.take(row), values[row])


def _activations(quick: bool, figures: Figures, how: str) -> None:
    """The kernels of the hooks: every kind of float32 values as the channels of two images."""
    rng = np.random.default_rng(3)
    info = np.finfo(np.float32)
    size = 301 if quick else 12544
    kinds = floats(rng, float(info.max), float(info.smallest_subnormal), size)
    kept = {name: values[:size] for name, values in kinds.items() if values.ndim == 1 and len(values) >= size}
    with np.errstate(over="ignore"):
        plane = np.stack([np.stack(list(kept.values())), np.stack(list(kept.values()))[::-1]]).astype(np.float32)
    last = how == "last"
    given = np.ascontiguousarray(plane.swapaxes(1, 2)) if last else plane
    if how == "torch":
        count, mean, m2, low, high, zeros, nan, inf = collector.columns_on_device(torch.from_numpy(given)).numpy()
        found = Columns(count.astype(int), mean, m2, low, high, zeros, nan, inf)
    else:
        found = activations(given, last)
    for image in range(2):
        for channel, kind in enumerate(list(kept)[:: -1 if image else 1]):
            figures.see(f"{kind}, {how}", found.take((image, channel)), plane[image, channel].astype(np.float64))


def _checkpoint() -> Sequence[Comparison]:
    """All tensors of torchvision's MobileNetV2, ImageNet, read by torch and by layerscope."""
    path = demo.files()[0]
    figures, rows = Figures("MobileNetV2, ImageNet", exactly=False), Figures("MobileNetV2, every kernel", exactly=False)
    against = f"{version('torch')} torch.load, {version('numpy')} numpy.histogram"
    counts = Comparison("MobileNetV2: histogram counts and edges", against)
    record = weights(path, bins=BINS)
    for name, tensor in torch.load(path, weights_only=True).items():
        if name.endswith("num_batches_tracked"):
            continue
        entry, values = record[name], tensor.numpy()
        figures.see(name, entry.total.take(0), values.reshape(-1).astype(np.float64))
        expected = np.histogram(values, BINS)
        counts.see(name, entry.histogram.counts, expected[0])
        counts.see(name, entry.histogram.edges, expected[1].astype(np.float64))
        if entry.columns is not None and values.ndim > 1:
            for row, kernel in enumerate(values.reshape(len(values), -1)):
                rows.see(f"{name}, {row}", entry.columns.take(row), kernel.astype(np.float64))
    return [*figures.lines, *rows.lines, counts]
