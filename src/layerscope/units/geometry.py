"""Receptive fields of all units of all layers at once, as straight lines: unit y sees low + step*y up to high + step*y.

`receptive_field` walks back from one unit. Here one pass is noted, and the lines are handed on from operation to
operation by the closed formula of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019. What an operation without a rule gives has no lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from layerscope.hooks import looking, observing
from layerscope.modules import Table
from layerscope.profiles import Line
from layerscope.sites import Site
from layerscope.units.trace import Op, Reads, Spot, Trace

__all__ = ["geometry"]


class _Seen(NamedTuple):
    """What the last two axes of a tensor see of the image; `size` of them."""

    rows: Line
    columns: Line
    size: tuple[int, int]


def geometry(model: nn.Module, x: Tensor) -> dict[str, tuple[Line, Line]]:
    """Rows and columns that the units of every layer see, by the key of its call. x: the input (1, C, H, W).

    Never too small; at the lower and right edge a pixel that no unit sees may be counted in. Layers without a map of
    two axes, and those behind an operation that has no rule, are not listed. One forward pass.
    """
    x = x.detach().clone()
    trace = Trace([x])
    source = trace.spot(x)
    found: dict[str, tuple[Line, Line]] = {}
    if source is None:
        return found
    height, width = source.shape[-2:]
    lines = _Lines(source, _Seen(Line(0, 1, 1, height), Line(0, 1, 1, width), (height, width)))

    def on_output(site: Site, _module: nn.Module, output: Tensor) -> None:
        lines.follow(trace)
        spot = trace.spot(output)
        seen = lines.of(spot) if spot is not None else None
        if seen is not None and output.dim() == 4:
            found[site.key] = seen.rows, seen.columns

    table = Table(model)
    with looking(model), trace, Reads(trace), observing(table, table.observable, on_output):
        table.root(x)
    return {} if trace.lost else found


class _Lines:
    """The lines of every tensor, by its storage: a view of it has the same."""

    def __init__(self, source: Spot, seen: _Seen) -> None:
        self._found: dict[int, _Seen | None] = {source.storage: seen}
        self._whole = _Seen(_all(seen.rows), _all(seen.columns), (1, 1))
        self._done = 0

    def of(self, spot: Spot) -> _Seen | None:
        """None where the axes are not those of a map, or it is not known."""
        seen = self._found.get(spot.storage)
        if seen is None or seen.rows == self._whole.rows:
            return seen  # what sees everything does so whatever its axes mean
        return seen if spot.shape[-2:] == seen.size and spot.stride[-2:] == (seen.size[1], 1) else None

    def follow(self, trace: Trace) -> None:
        """Hand the lines on through the operations that were noted since the last time."""
        for op in trace.ops[self._done :]:
            for output in op.outputs:
                self._found[output.storage] = self._through(op, output)
        self._done = len(trace.ops)

    def _through(self, op: Op, output: Spot) -> _Seen | None:
        inputs = [self.of(spot) for spot in op.spots]
        if op.read or not inputs:
            return None
        if any(one is not None and one.rows == self._whole.rows for one in inputs) or op.name in _GLOBAL:
            return self._whole._replace(size=_size(output))  # with what sees all of the image
        known = [one for one in inputs if one is not None]
        if len(known) < len(inputs):
            return None
        rule = _RULES.get(op.name)
        if rule is not None:
            return rule(op, known[0], _size(output))
        alike = {(one.size, one.rows.step, one.columns.step) for one in known}
        if op.name.rstrip("_") in _ELEMENTWISE and len(alike) == 1 and _size(output) == known[0].size:
            return _Seen(_union([one.rows for one in known]), _union([one.columns for one in known]), known[0].size)
        return None


def _size(spot: Spot) -> tuple[int, int]:
    return (spot.shape[-2], spot.shape[-1]) if len(spot.shape) > 1 else (1, 1)


def _all(line: Line) -> Line:
    return Line(-line.whole, line.whole, 0, line.whole)


def _union(lines: list[Line]) -> Line:
    return Line(min(one.low for one in lines), max(one.high for one in lines), lines[0].step, lines[0].whole)


def _window(line: Line, kernel: int, stride: int, padding: int, dilation: int) -> Line:
    low = line.low - line.step * padding
    high = line.high + line.step * ((kernel - 1) * dilation - padding)
    return Line(low, high, line.step * stride, line.whole)


def _slid(seen: _Seen, sizes: tuple[list[int], ...], size: tuple[int, int]) -> _Seen:
    kernel, stride, padding, dilation = ([*one, *one][:2] if len(one) == 1 else list(one) for one in sizes)
    rows = _window(seen.rows, kernel[0], stride[0], padding[0], dilation[0])
    return _Seen(rows, _window(seen.columns, kernel[1], stride[1], padding[1], dilation[1]), size)


def _convolved(op: Op, seen: _Seen, size: tuple[int, int]) -> _Seen | None:
    weight = op.arg("weight")
    kernel = list(weight.shape[2:])
    if op.arg("transposed") or len(kernel) != 2:
        return None
    return _slid(seen, (kernel, op.arg("stride"), op.arg("padding"), op.arg("dilation")), size)


def _pooled(op: Op, seen: _Seen, size: tuple[int, int]) -> _Seen | None:
    kernel = list(op.arg("kernel_size"))
    stride = list(op.arg("stride") or kernel)
    dilation = [1, 1] if op.name.startswith("avg") else list(op.arg("dilation") or [1, 1])
    return _slid(seen, (kernel, stride, list(op.arg("padding") or [0, 0]), dilation), size)


_RULES: dict[str, Callable[[Op, _Seen, tuple[int, int]], _Seen | None]] = {
    "convolution": _convolved,
    "_convolution": _convolved,
    "max_pool2d_with_indices": _pooled,
    "max_pool2d": _pooled,
    "avg_pool2d": _pooled,
}

#: an output at a place depends on the inputs at that place alone, on one or on several; in place, too
_ELEMENTWISE = {
    "relu", "hardtanh", "clamp", "clamp_min", "native_batch_norm", "cudnn_batch_norm", "silu", "gelu", "sigmoid",
    "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "hardswish", "tanh", "hardsigmoid",
    "leaky_relu", "elu", "celu", "mish", "softplus", "_prelu_kernel", "add", "sub", "mul", "div", "neg", "clone",
    "copy", "_to_copy", "cat", "native_dropout", "exp", "where", "maximum", "minimum",
}  # fmt: skip

#: an output depends on all places
_GLOBAL = {"mean", "sum", "amax", "_adaptive_avg_pool2d", "linear", "addmm", "mm", "bmm", "native_layer_norm",
           "native_group_norm", "_softmax", "_scaled_dot_product_flash_attention_for_cpu"}  # fmt: skip
