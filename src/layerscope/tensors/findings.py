"""What is wrong with the tensors of a checkpoint, told from the tensors alone.

Every rule and threshold stands in `docs/findings.md`, with what it is good for.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from layerscope.dtypes import decode, is_float
from layerscope.records.record import Entry, Finding
from layerscope.text import number

__all__ = ["ALIKE", "COLLAPSED", "EXPLODED", "KINDS", "CheckpointChecks", "duplicates"]

KINDS = (
    "zero-kernel",
    "duplicate-kernel",
    "collapsed-variance",
    "untouched-batchnorm",
    "non-finite",
    "constant",
    "exploding-scale",
)

#: Batch norm divides by sqrt(variance + 1e-5): this far below, the variance no longer counts.
COLLAPSED = 1e-10
#: cosine of two kernels above which they are one
ALIKE = 0.9999
#: times the median channel of the tensor, and times every other tensor of its type
EXPLODED = 100.0

#: channels named in a finding; all of them are counted
_NAMED = 64
#: output channels above which a tensor is not searched for duplicates
_MOST = 1 << 13


class CheckpointChecks:
    """Sees the tensors of a checkpoint one by one and says at the end what is wrong with them."""

    def __init__(self, first: str = "") -> None:
        """first: the name of the network's first kernel, though only some of its tensors may be seen."""
        self._first = first
        self.findings: list[Finding] = []
        self._norms: dict[str, dict[str, NDArray]] = defaultdict(dict)
        self._scales: dict[str, list[tuple[Entry, NDArray]]] = defaultdict(list)

    def add(self, entry: Entry, bits: NDArray) -> None:
        """Look at a tensor and its statistics. Only vectors, and one figure a channel, are kept until `finish`."""
        name, last = entry.site.path, entry.site.path.rpartition(".")[2]
        if last in ("running_mean", "running_var", "num_batches_tracked"):
            self._norms[name[: -len(last) - 1]][last] = np.array(decode(bits, entry.dtype))
        if entry.total is None or not is_float(entry.dtype):
            return
        if entry.total.nan.any() or entry.total.inf.any():
            self._not_finite(entry, bits)
        channels = _largest(entry, bits)
        if channels.size:
            self._scales[entry.type].append((entry, channels))
        if entry.type in ("kernel", "weight"):
            self._kernel(entry, bits)

    def _say(self, name: str, kind: str, channels: list[int], detail: str) -> None:
        self.findings.append(Finding(name, kind, channels[:_NAMED], detail))

    def _not_finite(self, entry: Entry, bits: NDArray) -> None:
        assert entry.total
        where = np.argwhere(~np.isfinite(decode(bits, entry.dtype)))
        at = ", ".join("[" + ", ".join(map(str, index)) + "]" for index in where[:3].tolist())
        more = ", ..." if len(where) > 3 else ""
        channels = np.unique(where[:, 0]).tolist() if where.shape[1] else []
        counts = [
            f"{int(n)} {what}" for what, n in (("NaN", entry.total.nan[0]), ("infinite", entry.total.inf[0])) if n
        ]
        self._say(
            entry.key, "non-finite", channels, f"{' and '.join(counts)} at {at}{more}: it spreads to every output"
        )

    def _kernel(self, entry: Entry, bits: NDArray) -> None:
        assert entry.total and entry.columns
        low, high = float(entry.total.min[0]), float(entry.total.max[0])
        if low == high and bits.size > 1:
            self._say(entry.key, "constant", [], f"every value is {number(low)}: it was never initialised or trained")
            return
        if entry.dead:
            self._say(entry.key, "zero-kernel", entry.dead, "all zero: these channels carry nothing but their bias")
        # One input channel a kernel, and not at the network's input: depthwise. Equal kernels then see unlike inputs.
        depthwise = len(entry.shape) > 2 and entry.shape[1] == 1 and entry.site.path != self._first
        pairs = [] if depthwise else duplicates(bits, entry.dtype)
        if pairs:
            named = ", ".join(f"{a} = {b}" for a, b in pairs[:4]) + (", ..." if len(pairs) > 4 else "")
            channels = sorted({channel for pair in pairs for channel in pair})
            self._say(entry.key, "duplicate-kernel", channels, f"{named} up to scale: one of each is enough")

    def finish(self) -> list[Finding]:
        """The findings: tensors in the order of the file, then batch norms, then scales."""
        for name, parts in self._norms.items():
            self._norm(name, parts)
        for entries in self._scales.values():
            self._scale(entries)
        return self.findings

    def _norm(self, name: str, parts: dict[str, NDArray]) -> None:
        mean, var, batches = (parts.get(key) for key in ("running_mean", "running_var", "num_batches_tracked"))
        if var is None:
            return
        low = np.flatnonzero(var < COLLAPSED).tolist()
        if low:
            least = number(float(var.min()))
            detail = f"variance down to {least}: what came in never varied, so what goes out is a constant"
            self._say(f"{name}.running_var", "collapsed-variance", low, detail)
        if mean is not None and not mean.any() and (var == 1).all() and (batches is None or not batches.any()):
            detail = "means 0, variances 1, no batch tracked: it was never run in training"
            self._say(name, "untouched-batchnorm", [], detail)

    def _scale(self, entries: list[tuple[Entry, NDArray]]) -> None:
        largest = [float(channels.max()) for _, channels in entries]
        for index, (entry, channels) in enumerate(entries):
            others = max(largest[:index] + largest[index + 1 :], default=0.0)
            usual = max(float(np.median(channels)), others)
            wild = np.flatnonzero(channels > EXPLODED * usual).tolist() if usual else []
            if wild:
                detail = (
                    f"up to {number(largest[index])}, {number(largest[index] / usual)} times what is usual for a "
                    f"{entry.type} here: one value rules the output"
                )
                self._say(entry.key, "exploding-scale", wild, detail)


def _largest(entry: Entry, bits: NDArray) -> NDArray[np.float64]:
    """Largest absolute finite value of each channel; of each element for a vector."""
    if entry.columns is not None:
        both = np.abs([entry.columns.min, entry.columns.max])
        return np.nan_to_num(both.max(0), nan=0.0)
    values = np.abs(np.atleast_1d(decode(bits, entry.dtype)).astype(np.float64).reshape(-1))
    return values[np.isfinite(values)]


def duplicates(bits: NDArray, dtype: str) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of output channels whose kernels have a cosine above ALIKE; b is named once.

    Kernels are first compared by eight random projections (Johnson and Lindenstrauss 1984) of at most 256 of their
    values; only those that agree there are compared whole.
    """
    count = len(bits)
    flat = bits.reshape(count, -1)
    if flat.shape[1] < 2 or count < 2 or count > _MOST:
        return []
    sketch = _sketch(flat, dtype)
    order = np.argsort(sketch[:, 0], kind="stable")
    sketch = sketch[order]
    # Ten times the angle that is asked for, since a projection keeps angles only roughly.
    near = 1 - 100 * (1 - ALIKE)
    ends = np.searchsorted(sketch[:, 0], sketch[:, 0] + np.sqrt(2 - 2 * near), "right")
    earlier: dict[int, int] = {}
    for start in range(0, count, 64):
        end = ends[min(start + 63, count - 1)]
        close = np.argwhere(np.triu(sketch[start : start + 64] @ sketch[start:end].T > near, 1)) + start
        for pair in order[close].tolist():
            a, b = sorted(pair)
            if earlier.get(b, count) > a and _cosine(flat, dtype, a, b) > ALIKE:
                earlier[b] = a
    return sorted((a, b) for b, a in earlier.items())


def _sketch(flat: NDArray, dtype: str) -> NDArray[np.float32]:
    """Unit vectors (O, 8), of zeros where a kernel is zero or not finite."""
    size = flat.shape[1]
    if size > 256:  # eight stretches of 32: a linear weight need not be read a second time as a whole
        starts = np.linspace(0, size - 32, 8).astype(int)
        flat = flat[:, (starts[:, None] + np.arange(32)).ravel()]
    values = np.asarray(decode(flat, dtype), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        sketch = values @ np.random.default_rng(0).standard_normal((values.shape[1], 8), np.float32)
        norm = np.linalg.norm(sketch, axis=1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 0)
    return (np.where(usable, sketch, 0) / np.where(usable, norm, 1)).astype(np.float32)


def _cosine(flat: NDArray, dtype: str, a: int, b: int) -> float:
    x, y = (decode(flat[at], dtype).astype(np.float64) for at in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
