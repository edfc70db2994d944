"""Which elements of its inputs an operation needs for some elements of its output: one rule a kind of operation.

A rule takes the operation and one mask an output (None where nothing of it is needed) and gives one mask an input.
An operation without a rule needs everything that it saw: never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map_only

from layerscope.units.trace import Op, Spot

__all__ = ["RULES", "convolution", "max_pool", "needs_of", "window"]

#: one bool mask an output, None where nothing of it is needed
Masks = Sequence[Tensor | None]
#: the inputs with their masks, None for all of it
Pairs = Iterator[tuple[Spot, Tensor | None]]
#: kernel, stride, padding and dilation, one number an axis
Settings = tuple[list[int], list[int], list[int], list[int]]


def _union(masks: Masks) -> Tensor:
    """What is needed of any of several outputs of one shape."""
    found = [mask for mask in masks if mask is not None]
    return torch.stack(found).any(0) if len(found) > 1 else found[0]


def _only(masks: Masks) -> Tensor:
    """What is needed of the first output, where the others are by-products that nobody asks for."""
    first, *others = masks
    if first is None or any(other is not None for other in others):
        raise ValueError("a by-product is needed")
    return first


def _fold(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of something that was broadcast, before it was."""
    extra = mask.dim() - len(shape)
    if extra > 0:
        mask = mask.flatten(0, extra - 1).any(0)
    wide = [axis for axis, size in enumerate(shape) if size == 1 and mask.shape[axis] != 1]
    return mask.any(dim=wide, keepdim=True) if wide else mask


def _over(mask: Tensor, axes: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Along these axes everything depends on everything."""
    return (mask.any(dim=tuple(axes), keepdim=True) if axes else mask).expand(shape)


def needs_of(op: Op, masks: Masks) -> tuple[list[tuple[Spot, Tensor | None]], bool]:
    """(spot, mask) for every input that comes from the network's input, and whether a rule knew the operation.

    All of what the program reads is needed, and known to be.
    """
    if op.read:
        return [(spot, None) for spot in op.spots], True
    rule = RULES.get(op.name) or (_pointwise if torch.Tag.pointwise in op.func.tags else None)
    if rule is None:
        return [(spot, None) for spot in op.spots], False
    try:
        given = list(rule(op, masks))
    except (IndexError, RuntimeError, TypeError, ValueError):  # an overload that the rule was not written for
        return [(spot, None) for spot in op.spots], False
    named = {id(spot) for spot, _ in given}
    # What a rule does not speak of (a weight that was computed, an index) is needed whole.
    rest = [(spot, None) for spot in op.spots if id(spot) not in named]
    return [(spot, mask) for spot, mask in given if spot.reached] + rest, True


def _pointwise(op: Op, masks: Masks) -> Pairs:
    mask = _union(masks)
    for spot in op.spots:
        yield spot, _fold(mask, spot.shape)


def _copy(op: Op, masks: Masks) -> Pairs:
    """copy_(self, src): what was in self is gone."""
    target, source = op.args[:2]
    mask = _union(masks)
    yield target, torch.zeros(target.shape, dtype=torch.bool)
    if isinstance(source, Spot):
        yield source, _fold(mask, source.shape)


def _constant(op: Op, _masks: Masks) -> Pairs:
    """fill_, zero_, zeros_like: only the shape of the first argument is used."""
    yield op.args[0], torch.zeros(op.args[0].shape, dtype=torch.bool)


def _linear(op: Op, masks: Masks) -> Pairs:
    """Operations that are linear with coefficients of at least 0: the gradient is not zero exactly where they look.

    Random cotangents, so that bicubic's negative coefficients do not cancel.
    """
    inputs: list[tuple[Spot, Tensor]] = []

    def stand_in(spot: Spot) -> Tensor:
        values = torch.ones(spot.shape, dtype=torch.float64, requires_grad=spot.reached)
        if spot.reached:
            inputs.append((spot, values))
        return values

    with torch.enable_grad():
        made = {
            # Where an index points is a matter of its values, not of a gradient.
            name: tree_map_only(Spot, _value if name in ("index", "indices") else stand_in, argument)
            for name, argument in op.named.items()
        }
        outputs = [tensor for tensor in tree_leaves(op.func(**made)) if isinstance(tensor, Tensor)]
        pairs = [(out, mask) for out, mask in zip(outputs, masks, strict=True) if mask is not None]
        heads = [mask * (0.5 + torch.rand(mask.shape, dtype=torch.float64)) for _, mask in pairs]
        gradients = torch.autograd.grad(
            [out for out, _ in pairs], [leaf for _, leaf in inputs], heads, allow_unused=True
        )
    for (spot, leaf), gradient in zip(inputs, gradients, strict=True):
        yield spot, torch.zeros_like(leaf, dtype=torch.bool) if gradient is None else gradient != 0


def _adaptive_max_pool(op: Op, masks: Masks) -> Pairs:
    """The bins are those of the adaptive mean."""
    mean = getattr(torch.ops.aten, op.name.replace("adaptive_max", "_adaptive_avg")).default
    yield from _linear(Op(mean, op.args[:2], {}, op.outputs), [_union(masks)])


def _value(spot: Spot) -> Tensor:
    assert spot.value is not None
    return spot.value.cpu()


def _picked(op: Op, masks: Masks) -> Pairs:
    """gather(x, dim, index): each element of the output needs its own element of the index too."""
    yield from _linear(op, masks)
    yield op.args[2], _union(masks)


def _along(op: Op, masks: Masks) -> Pairs:
    """softmax, sums, sort, cumsum, ...: everything along the axes `dim`, all of them if it is not given."""
    spot: Spot = op.args[0]
    given = op.arg("dim")
    dims = [given] if isinstance(given, int) else list(given or range(len(spot.shape)))
    axes = sorted({axis % len(spot.shape) for axis in dims}) if spot.shape else []
    mask = _union(masks)
    if mask.dim() != len(spot.shape):
        for axis in axes:
            mask = mask.unsqueeze(axis)
    yield spot, _over(mask, axes, spot.shape)


def _product(first: int) -> Callable[[Op, Masks], Pairs]:
    """Matrix products a @ b, with a at argument `first`; what stands before is added."""

    def rule(op: Op, masks: Masks) -> Pairs:
        mask = _union(masks)
        a, b = op.args[first : first + 2]
        for added in op.args[:first]:
            yield added, _fold(mask, added.shape)
        yield a, _over(mask, [-1], a.shape)
        yield b, _over(mask, [-2], b.shape)

    return rule


def _row(op: Op, masks: Masks) -> Pairs:
    """linear(x, weight): a row of the output needs the same row of x."""
    yield op.args[0], _over(_union(masks), [-1], op.args[0].shape)


def _batch_norm(op: Op, masks: Masks) -> Pairs:
    """With the running statistics every value for itself; with the batch's, everything of the channel."""
    spot, mask = op.args[0], _only(masks)
    training = op.arg("training", "no_training" not in op.name and "no_update" not in op.name)
    axes = [axis for axis in range(len(spot.shape)) if axis != 1] if training else []
    yield spot, _over(mask, axes, spot.shape)


def _group_norm(op: Op, masks: Masks) -> Pairs:
    spot, mask = op.args[0], _only(masks)
    grouped = mask.reshape(spot.shape[0], op.arg("group"), -1)  # (N, G, rest)
    yield spot, grouped.any(2, keepdim=True).expand(grouped.shape).reshape(spot.shape)


def _layer_norm(op: Op, masks: Masks) -> Pairs:
    spot, mask = op.args[0], _only(masks)
    yield spot, _over(mask, range(-len(op.arg("normalized_shape")), 0), spot.shape)


def _attention(op: Op, masks: Masks) -> Pairs:
    """softmax(q k') v: (B, heads, L, E). A row needs its own query, and every key and value of its head."""
    query, key, value = op.args[:3]
    mask = _only(masks)
    if len(query.shape) != 4 or query.shape[:2] != key.shape[:2]:
        return  # nothing said: everything
    yield query, _over(mask, [3], query.shape)
    for other in (key, value):
        yield other, mask.any(dim=(2, 3), keepdim=True).expand(other.shape)


def _per_item(op: Op, masks: Masks) -> Pairs:
    """Fused attention and transformer layers, (B, L, E): everything of the same item of the batch."""
    mask = _only(masks)
    for spot in op.args[:3]:
        if isinstance(spot, Spot) and len(spot.shape) == 3 and spot.shape[0] == mask.shape[0]:
            yield spot, _over(mask, [1, 2], spot.shape)


def _glu(op: Op, masks: Masks) -> Pairs:
    mask = _union(masks)
    yield op.args[0], torch.cat([mask, mask], op.arg("dim", -1))


def _slid_back(mask: Tensor, settings: Settings, size: Sequence[int], transposed: bool = False) -> Tensor:
    """What the true elements of (B, 1, *out) need of the input (B, 1, *size) of windows that slide.

    Backwards a convolution is a transposed one, and a transposed one is a convolution.
    """
    kernel, stride, padding, dilation = settings
    axes = len(size)
    way = getattr(functional, f"conv{'' if transposed else '_transpose'}{axes}d")
    ones = torch.ones(1, 1, *kernel).double()
    counts = way(mask.double(), ones, stride=stride, padding=padding if transposed else 0, dilation=dilation)
    for axis in range(axes):
        low, length = 0 if transposed else padding[axis], size[axis]  # output_padding makes room for one more
        short = max(low + length - counts.shape[2 + axis], 0)
        counts = functional.pad(counts, [0, 0] * (axes - 1 - axis) + [0, short]).narrow(2 + axis, low, length)
    return counts > 0.5  # counts of windows: rounding cannot reach the half


def window(op: Op, axes: int) -> Settings:
    """Kernel, stride, padding and dilation of a convolution or a pooling, one number an axis."""

    def setting(name: str, default: list[int]) -> list[int]:
        value = op.arg(name) or default
        value = [value] if isinstance(value, int) else list(value)
        return value * axes if len(value) == 1 else value

    weight = op.arg("weight")
    kernel = setting("kernel_size", []) if weight is None else list(weight.shape[2:])
    return kernel, setting("stride", kernel), setting("padding", [0]), setting("dilation", [1])


def convolution(op: Op, masks: Masks) -> Pairs:
    """The windows of every kernel, for all channels of its group."""
    spot, weight = op.args[:2]
    axes = len(weight.shape) - 2
    mask = _union(masks)
    batched = len(spot.shape) == axes + 2
    batch, channels = spot.shape[:2] if batched else (1, spot.shape[0])
    size, groups = spot.shape[-axes:], op.arg("groups", 1)
    grouped = mask.reshape(batch * groups, -1, *mask.shape[-axes:]).any(1, keepdim=True)  # (B*G, 1, *out)
    found = _slid_back(grouped, window(op, axes), size, op.arg("transposed", False))  # (B*G, 1, *in)
    yield spot, found.expand(-1, channels // groups, *size).reshape(spot.shape)


def max_pool(op: Op, masks: Masks) -> Pairs:
    """Every value of the window was compared, not only the greatest."""
    spot: Spot = op.args[0]
    axes = 3 if "3d" in op.name else 2
    mask = _union(masks)
    planes = mask.reshape(-1, 1, *mask.shape[-axes:])
    yield spot, _slid_back(planes, window(op, axes), spot.shape[-axes:]).reshape(spot.shape)


def _table() -> dict[str, Callable[[Op, Masks], Pairs]]:
    kinds: dict[Callable[[Op, Masks], Pairs], str] = {
        # Not tagged as pointwise by torch, or not in every version.
        _pointwise: "_to_copy clone hardswish hardswish_ hardsigmoid_ _prelu_kernel prelu native_dropout contiguous "
        "positive gelu_ mish_ hardtanh_ relu6_ silu_ leaky_relu_ elu_ celu_ selu_ threshold_ clamp_ clamp_min_ "
        "clamp_max_",
        _copy: "copy_",
        _constant: "fill_ zero_ zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones "
        "new_empty new_full uniform_ normal_ bernoulli_",
        _linear: "cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d roll flip repeat index_select index tril triu pixel_shuffle "
        "pixel_unshuffle channel_shuffle im2col col2im upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa avg_pool1d avg_pool2d "
        "avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d slice_scatter select_scatter diag_embed expand_copy",
        _picked: "gather",
        _along: "_softmax _log_softmax _safe_softmax sum nansum mean amax amin aminmax max min argmax argmin var std "
        "var_mean std_mean prod logsumexp linalg_vector_norm norm any all sort topk cumsum cumprod cummax cummin "
        "logcumsumexp median nanmedian mode kthvalue",
        _product(0): "mm bmm",
        _product(1): "addmm baddbmm",
        _row: "linear",
        convolution: "convolution _convolution mkldnn_convolution cudnn_convolution",
        max_pool: "max_pool2d_with_indices max_pool3d_with_indices",
        _adaptive_max_pool: "adaptive_max_pool2d adaptive_max_pool3d",
        _batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm miopen_batch_norm",
        _group_norm: "native_group_norm",
        _layer_norm: "native_layer_norm",
        _attention: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        _per_item: "_native_multi_head_attention _transformer_encoder_layer_fwd",
        _glu: "glu",
    }
    return {name: rule for rule, names in kinds.items() for name in names.split()}


RULES = _table()
