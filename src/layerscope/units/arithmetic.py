"""How a unit's value was computed: input patch x kernel + bias = value, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.records.units import Arithmetic
from layerscope.units.place import LayerCall, Place, arguments, run_to_layer

__all__ = ["arithmetic", "explain"]

#: How far the sum may be from the value, in parts of the sum of |products|, before the layer must have computed
#: something else: half precision and TF32 round to about a thousandth.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

#: what a rule finds out, as fields of `Arithmetic`
Fields = dict[str, Any]

_Conv = nn.modules.conv._ConvNd
_Transposed = nn.modules.conv._ConvTransposeNd
_Norm = nn.modules.batchnorm._BatchNorm
_ASKED = "ask a convolution, linear, batch norm, ReLU or max pool layer"


def arithmetic(model: nn.Module, layer: str, channel: int, position: Sequence[int], x: Any) -> Arithmetic:
    """The numbers behind one unit, of image 0: patch, kernel, bias and sum, beside the value that the layer produced.

    `layer`: a path, with `:1` for its second call. `position`: one number a spatial axis of the layer's output, () for
    vectors. `x`: as `receptive_field` takes it. Convolutions of one to three dimensions and transposed ones, with
    groups, stride, dilation, every padding mode; linear layers, on tokens and on NHWC maps too; batch norm, ReLU and
    max pool by their own formulas. The input is copied before the layer runs and the output the moment it is there,
    so that in-place operations change neither.

    Raises LayerscopeError for a layer without such a formula, or one whose class computes something else than the
    class that it inherits from (weight standardisation, quantisation); UsageError for a channel or position that is
    not there; NoMatch, ForwardError.
    """

    def at(output: Tensor, place: Place) -> float:
        return float(output[place.index(channel, position)].float())

    call = run_to_layer(model, layer, arguments(x), at, keep_input=True)
    return explain(call, layer, channel, tuple(position))


def explain(call: LayerCall, layer: str, channel: int, position: tuple[int, ...]) -> Arithmetic:
    """The arithmetic of a call of a layer, with its input kept and its value as the result."""
    kind = type(call.module).__name__
    rule = next((rule for types, rule in _RULES if isinstance(call.module, types)), None)
    if rule is None or call.input is None:
        raise LayerscopeError(f"{layer}: {kind} has no arithmetic of one patch and one kernel; {_ASKED}")
    fields = rule(call, channel, position)
    made = Arithmetic(layer=layer, type=kind, channel=channel, position=position, value=call.result, **fields)
    allowed = _TOLERANCE.get(call.input.dtype if call.input.device.type == "cpu" else torch.float16, 2e-2)
    if np.isfinite(made.value) and abs(made.sum - made.value) > allowed * made.scale + 1e-30:
        raise LayerscopeError(
            f"{layer}: {kind} produced {made.value:.6g} where patch, kernel and bias give {made.sum:.6g}: its forward "
            "computes something else than its class says, such as a weight that is changed on the way; "
            f"{_ASKED} of torch's own"
        )
    return made


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return tensor.detach().to("cpu", torch.float32).numpy()


def _summed(patch: NDArray, kernel: NDArray, bias: Tensor | None, channel: int, inputs: range) -> Fields:
    added = float(bias[channel].detach()) if bias is not None else 0.0
    total = float((patch.astype(np.float64) * kernel).sum()) + added
    formula = "sum of patch x kernel + bias"
    return {"formula": formula, "patch": patch, "kernel": kernel, "bias": added, "inputs": tuple(inputs), "sum": total}


def _along(setting: Any, axis: int) -> int:
    """A setting of a layer along one axis: one number an axis, or one for all."""
    return int(setting if isinstance(setting, int) else setting[axis])


def _sources(module: Any, axis: int, at: int, size: int) -> NDArray[np.int64]:
    """The input index that each tap of the window meets along one axis, for the output at `at`; -1 for padding."""
    taps = np.arange(_along(module.kernel_size, axis)) * _along(module.dilation, axis)
    stride = _along(module.stride, axis)
    if isinstance(module, _Transposed):
        # Tap k of input i lands on i * stride - padding + k * dilation.
        source, rest = np.divmod(at + _along(module.padding, axis) - taps, stride)
        return np.where((rest == 0) & (source >= 0) & (source < size), source, -1)
    low = {"same": int(taps[-1]) // 2, "valid": 0}  # the odd one goes to the far side
    source = at * stride + taps
    source -= low[module.padding] if isinstance(module.padding, str) else _along(module.padding, axis)
    mode = getattr(module, "padding_mode", "zeros")
    if mode == "circular":
        return source % size
    if mode == "replicate":
        return source.clip(0, size - 1)
    if mode == "reflect":
        mirrored = np.abs(source)
        return np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)
    return np.where((source >= 0) & (source < size), source, -1)


def _convolution(call: LayerCall, channel: int, position: tuple[int, ...]) -> Fields:
    module: Any = call.module
    transposed = isinstance(module, _Transposed)
    given = _floats(call.input)  # type: ignore[arg-type]
    image = given[0] if given.ndim == len(position) + 2 else given  # (C, *size)
    width, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    group = channel // outputs
    inputs = range(group * width, (group + 1) * width)
    at = [_sources(module, axis, where, image.shape[1 + axis]) for axis, where in enumerate(position)]
    patch = image[inputs.start : inputs.stop][np.ix_(np.arange(width), *(source.clip(0) for source in at))]  # (C/g, *k)
    for axis, source in enumerate(at):
        shape = [1] * patch.ndim
        shape[1 + axis] = -1
        patch = np.where((source < 0).reshape(shape), np.float32(0), patch)
    weight = _floats(module.weight)
    kernel = weight[inputs.start : inputs.stop, channel % outputs] if transposed else weight[channel]
    return _summed(patch, kernel, module.bias, channel, inputs)


def _linear(call: LayerCall, channel: int, position: tuple[int, ...]) -> Fields:
    module: Any = call.module
    where = call.place.index(channel, position)[:-1]  # features are the last axis of input and output alike
    patch = _floats(call.input[where])  # type: ignore[index]
    return _summed(patch, _floats(module.weight)[channel], module.bias, channel, range(module.in_features))


def _same(call: LayerCall, channel: int, position: tuple[int, ...]) -> float:
    """The input at the unit's own place."""
    return float(_floats(call.input[call.place.index(channel, position)]))  # type: ignore[index]


def _batch_norm(call: LayerCall, channel: int, position: tuple[int, ...]) -> Fields:
    module: Any = call.module
    if module.running_mean is None:
        raise LayerscopeError(
            "a batch norm without running statistics takes its mean from the batch; ask another layer"
        )
    x = _same(call, channel, position)
    mean, var = float(module.running_mean[channel]), float(module.running_var[channel])
    weight = float(module.weight[channel].detach()) if module.affine else 1.0
    bias = float(module.bias[channel].detach()) if module.affine else 0.0
    terms = {"x": x, "mean": mean, "var": var, "eps": module.eps, "weight": weight, "bias": bias}
    formula, patch = "(x - mean) / sqrt(var + eps) * weight + bias", np.array([x], np.float32)
    total = (x - mean) * (weight / (var + module.eps) ** 0.5) + bias
    return {"formula": formula, "patch": patch, "bias": bias, "inputs": (channel,), "terms": terms, "sum": total}


def _relu(call: LayerCall, channel: int, position: tuple[int, ...]) -> Fields:
    x = _same(call, channel, position)
    top = 6.0 if isinstance(call.module, nn.ReLU6) else np.inf
    formula, patch = "min(max(x, 0), 6)" if top == 6 else "max(x, 0)", np.array([x], np.float32)
    total = float(min(max(x, 0.0), top))
    return {"formula": formula, "patch": patch, "inputs": (channel,), "terms": {"x": x}, "sum": total}


def _max_pool(call: LayerCall, channel: int, position: tuple[int, ...]) -> Fields:
    module: Any = call.module
    given = _floats(call.input)  # type: ignore[arg-type]
    plane = given[(0, channel) if given.ndim == len(position) + 2 else channel]  # (*size)
    sources = (_sources(module, axis, where, plane.shape[axis]) for axis, where in enumerate(position))
    at = [source[source >= 0] for source in sources]  # padding never wins
    window = plane[np.ix_(*at)]
    best = np.unravel_index(int(window.argmax()), window.shape)
    terms = {f"from {name}": float(at[axis][best[axis]]) for axis, name in enumerate(_NAMES[-len(position) :])}
    total = float(window.max())
    return {"formula": "max of the window", "patch": window[None], "inputs": (channel,), "terms": terms, "sum": total}


_NAMES = ("depth", "row", "column")

_RULES: list[tuple[Any, Any]] = [
    (_Conv, _convolution),
    (nn.Linear, _linear),
    (_Norm, _batch_norm),
    ((nn.ReLU, nn.ReLU6), _relu),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
]
