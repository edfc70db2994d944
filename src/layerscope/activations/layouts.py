"""What the axes of an output mean, and where its values lie in a picture.

Shapes alone do not say it: 197 x 768 are 196 patches and a class token, 128 x 49 x 96 two images of 64 windows. What
can be known comes from the modules on the way: a convolution has its channels first, a linear layer last, and the
patch embedding tells the grid that later tokens lie on.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import cast

from torch import nn

__all__ = ["Layouts", "Plan"]

# Modules that fix the meaning of their output's axes; the others keep what came in. By name where the module is of a
# foreign kind: quantised, mirrored from TorchScript, unflattened from an exported program.
_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention)
_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.GroupNorm,
)
_LAST_NAMES = re.compile(r"\w*Linear|LinearReLU|Embedding|MultiheadAttention")
_FIRST_NAMES = re.compile(r"(Conv|BatchNorm|InstanceNorm|(Adaptive)?(Max|Avg)Pool)\w*[123]d|GroupNorm")
_CHANNELS_FIRST = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}


@cache
def _kind_of(module: type) -> str:
    """ "first", "last", "norm" or "permute" for a class of modules, or "" where the class does not tell."""
    name = module.__name__
    if issubclass(module, nn.LayerNorm) or name == "LayerNorm":
        # torchvision's and timm's LayerNorm2d are layer norms over the channels of (N, C, H, W).
        return "first" if name.endswith("2d") else "norm"
    if issubclass(module, _FIRST) or _FIRST_NAMES.fullmatch(name):
        return "first"
    if issubclass(module, _LAST) or _LAST_NAMES.fullmatch(name):
        return "last"
    return "permute" if name == "Permute" else ""


#: class, distillation and register tokens: DINOv2 has 5; more than this is another grid
_MOST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How an output is read.

    `layout`: one letter an axis; "" for a tensor that has no channels (more than five axes). `prefix_tokens`: tokens in
    front that have no place in the image. `grid`: (height, width) of a channel's picture, or of one window of it.
    `windows`: (rows, columns) of windows that make up one image; they lie behind one another on the batch axis.
    """

    layout: str
    prefix_tokens: int = 0
    grid: tuple[int, int] = (1, 1)
    windows: tuple[int, int] = (1, 1)

    @property
    def note(self) -> str:
        """What a reader of the maps has to know; "" where the picture is the tensor."""
        said, (height, width) = [], self.grid
        if tokens := self.prefix_tokens:
            said.append(f"{tokens} token{'s' if tokens > 1 else ''} in front of {height} x {width}")
        if self.windows != (1, 1):
            said.append(f"{self.windows[0]} x {self.windows[1]} windows of {height} x {width}, put side by side")
        return "; ".join(said)


class Layouts:
    """The plan of each output of one pass after the other, in the order in which they are produced.

    Convolutions and batch norms say which axis is the channels, linear layers and layer norms too. An activation
    function or a dropout has the layout of the last output of the same shape.

    `images`: how many are in the batch; the first axis of the first output if it is not given.
    """

    def __init__(self, images: int | None = None) -> None:
        self.images = images
        self._seen: dict[tuple[int, ...], str] = {}
        self._grids: dict[tuple[int, int], None] = {}  # the sizes of maps so far, the latest last
        self._windowed: set[int] = set()  # tokens of windows so far
        self._maps: dict[tuple[int, ...], Plan] = {}  # the same as plans

    def plan(self, module: nn.Module | None, shape: tuple[int, ...]) -> Plan:
        """How the output of `module` is to be read. No module: a function's output."""
        if self.images is None:
            self.images = shape[0]
        layout = self._axes(module, shape)
        self._seen[shape] = layout
        if layout == "NCHW":  # the usual case first: this is the hot path
            return self._map(shape)
        if layout == "NLC":
            return self.tokens(shape)
        if not layout:
            return Plan("", 0, (1, math.prod(shape)))
        sizes = [size for letter, size in zip(layout, shape, strict=False) if letter not in "NC"]
        if len(sizes) < 2:
            return Plan(layout, 0, (1, sizes[0] if sizes else 1))
        grid = (math.prod(sizes[:-1]), sizes[-1])
        if len(sizes) == 2:
            self._grids.setdefault(grid)
        return Plan(layout, 0, grid)

    def _map(self, shape: tuple[int, ...]) -> Plan:
        plan = self._maps.get(shape[2:])
        if plan is None:
            grid = (shape[2], shape[3])
            self._grids.setdefault(grid)
            plan = self._maps[grid] = Plan("NCHW", 0, grid)
        return plan

    def _axes(self, module: nn.Module | None, shape: tuple[int, ...]) -> str:
        axes = len(shape)
        if axes == 1:
            return "N"
        kind = _kind_of(cast(type, type(module)))
        if kind == "norm":
            size = getattr(module, "normalized_shape", shape)
            kind = "last" if shape[-1] == size[-1] else "first"
        elif kind == "permute" and isinstance(dims := getattr(module, "dims", None), list | tuple):
            kind = "last" if dims[-1] == 1 else "first"
        if kind == "first":
            return _CHANNELS_FIRST.get(axes, "")
        if kind == "last":
            layout = _CHANNELS_LAST.get(axes, "")
        elif shape in self._seen:
            return self._seen[shape]
        elif axes == 4 and self._seen.get((shape[0], shape[3], *shape[1:3])) == "NCHW":
            layout = "NHWC"  # the same sizes with the channels moved to the end
        else:
            layout = (_CHANNELS_LAST if axes == 3 else _CHANNELS_FIRST).get(axes, "")
        if layout == "NLC" and self.images not in (None, shape[0]) and shape[1] == self.images:
            return "LNC"  # the sequence first, as torch's transformers have it unless they are told otherwise
        return layout

    def tokens(self, shape: tuple[int, ...]) -> Plan:
        """Tokens (N, L, C) back on the grid of the patches that they were cut from."""
        rows = shape[0] // self.images if self.images and shape[0] % self.images == 0 else 1
        found = self._windows(rows, shape[1]) if rows > 1 or shape[1] in self._windowed else None
        if found:
            return found
        return Plan("NLC", *self.grid_of(shape[1]))

    def _windows(self, count: int, length: int) -> Plan | None:
        """`count` windows an image of `length` tokens each, if they cover a known grid (Swin fills up its edges)."""
        side = math.isqrt(length)
        for height, width in self._known() if side * side == length and side > 1 else ():
            windows = (-(-height // side), -(-width // side))
            if math.prod(windows) == count:
                self._windowed.add(length)  # a later map may fit into a single one
                return Plan("NLC", 0, (side, side), windows)
        return None

    def _known(self) -> list[tuple[int, int]]:
        """Sizes of maps, the latest first, and then their halves: merging patches happens on tokens."""
        latest = list(reversed(self._grids))
        return latest + self._halves()

    def _halves(self) -> list[tuple[int, int]]:
        return [(-(-h // part), -(-w // part)) for part in (2, 4, 8) for h, w in reversed(self._grids)]

    def grid_of(self, length: int) -> tuple[int, tuple[int, int]]:
        """(tokens without a place, (height, width)) of a sequence; (0, (1, length)) where it is on no grid."""
        if length <= 4:
            return 0, (1, length)
        rests = ((length - h * w, (h, w)) for h, w in reversed(self._grids) if h * w > 4)
        fits = [fit for fit in rests if 0 <= fit[0] <= _MOST_TOKENS]
        if fits:
            return min(fits, key=lambda fit: fit[0])
        for height, width in self._halves():
            if height * width == length and height > 1:
                return 0, (height, width)
        for prefix_tokens in (0, 1):  # patches of a square image, with or without a class token in front
            side = math.isqrt(length - prefix_tokens)
            if side * side == length - prefix_tokens:
                return prefix_tokens, (side, side)
        return 0, (1, length)
