"""What is found of one unit, and of one decision: plain data that every view can draw. No torch in here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.records.record import Picture
from layerscope.text import number

__all__ = ["Arithmetic", "Evidence", "Field", "UnitReport", "written"]

Floats = NDArray[np.float32]


def _plain(value: Any) -> Any:
    """For JSON: arrays as nested lists, to nine digits, which are enough to get every float32 back."""
    if isinstance(value, np.ndarray):
        rounded = [float(f"{figure:.9g}") for figure in np.asarray(value, np.float64).ravel()]
        return np.array(rounded).reshape(np.shape(value)).tolist()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Field:
    """The receptive field of a unit: the input pixels that it can depend on.

    `mask`: bool, one value a pixel of the input, over its spatial axes: (H, W) for images. `coarse`: operations that
    were taken to depend on everything they saw, where a closer look may find less; empty where every one was followed
    exactly.
    """

    layer: str
    position: tuple[int, ...]
    mask: NDArray[np.bool_]
    coarse: tuple[str, ...] = ()

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """The smallest box that holds the mask: (first, last + 1) in pixels, one pair an axis; (0, 0) if empty."""
        spans = []
        for axis in range(self.mask.ndim):
            others = tuple(other for other in range(self.mask.ndim) if other != axis)
            at = np.flatnonzero(self.mask.any(axis=others))
            spans.append((int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0))
        return tuple(spans)

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels of the box, one number an axis."""
        return tuple(last - first for first, last in self.box)

    def to_json(self) -> dict[str, Any]:
        """box, size and number of pixels; the mask itself follows from the network."""
        return {
            "box": [list(pair) for pair in self.box],
            "size": list(self.size),
            "pixels": int(self.mask.sum()),
            "coarse": list(self.coarse),
        }


@dataclass(frozen=True)
class Arithmetic:
    """How one value came about.

    `patch`: what the layer saw, float32 (C, *kernel), padding filled in; (F,) for a linear layer. `kernel`: the
    weights of the same shape, None where there are none. `inputs`: which channels of the input the rows of `patch`
    are. `bias` is what was added. `sum` is the result in float64, `value` what the layer produced. `terms` are the
    numbers of a formula without a kernel.
    """

    layer: str
    type: str
    channel: int
    position: tuple[int, ...]
    formula: str
    patch: Floats
    inputs: tuple[int, ...]
    sum: float
    value: float
    kernel: Floats | None = None
    bias: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)

    @property
    def products(self) -> NDArray[np.float64] | None:
        """patch * kernel in float64, the shape of both; None without a kernel."""
        return None if self.kernel is None else self.patch.astype(np.float64) * self.kernel

    @property
    def scale(self) -> float:
        """Sum of |products| + |bias|: what rounding errors are measured against."""
        products = self.products
        return float(np.abs(products).sum() if products is not None else abs(self.sum)) + abs(self.bias)

    @property
    def line(self) -> str:
        """The sum written out: `0.812 + -0.106 = 0.706`."""
        if self.kernel is not None:
            return f"sum of {self.patch.size:,} products {written(self.sum - self.bias)} + bias {written(self.bias)}"
        named = ", ".join(f"{name} {written(value)}" for name, value in self.terms.items())
        return f"{self.formula}: {named}" if named else self.formula

    def to_json(self) -> dict[str, Any]:
        """Every number of it."""
        names = ("type", "formula", "inputs", "patch", "kernel", "products", "bias", "terms", "sum", "value")
        return {name: _plain(getattr(self, name)) for name in names}


def written(value: float) -> str:
    """Five significant digits: enough to add up the numbers of a sum by hand."""
    return f"{value:.5g}" if math.isfinite(value) else str(value)


@dataclass(frozen=True)
class UnitReport:
    """One unit on one image: where it looks, how it was computed, what it is in its map.

    `map`: the channel, float32 (h, w). `effective`: the gradient's magnitude for every pixel, float32 (H, W), None
    where no gradient flows. `arithmetic` is None where the layer has none; `notes` say why.
    """

    network: str
    layer: str
    type: str
    channel: int
    position: tuple[int, ...]
    value: float
    map: Floats
    picture: Picture
    field: Field
    effective: Floats | None = None
    arithmetic: Arithmetic | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`layer1.0.conv1  channel 5 at 12, 30`"""
        at = f" at {', '.join(map(str, self.position))}" if self.position else ""
        return f"{self.layer}  channel {self.channel}{at}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for one JSON document."""
        return {
            "network": self.network,
            "image": self.picture.name,
            "layer": self.layer,
            "type": self.type,
            "channel": self.channel,
            "position": list(self.position),
            "value": self.value,
            "map": {"shape": list(self.map.shape), "min": float(self.map.min()), "max": float(self.map.max())},
            "receptive_field": self.field.to_json(),
            "arithmetic": self.arithmetic.to_json() if self.arithmetic else None,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """A few lines for a terminal."""
        names = ("depth", "rows", "columns")[-len(self.field.box) :]
        spans = [f"{name} {first} to {last - 1}" for name, (first, last) in zip(names, self.field.box, strict=True)]
        inside = f"   in the map of {' x '.join(map(str, self.map.shape))}, " if self.map.size > 1 else ""
        inside += f"{number(float(self.map.min()))} to {number(float(self.map.max()))}" if inside else ""
        lines = [
            f"{self.name}  ({self.type})",
            f"  value            {written(self.value)}{inside}",
            f"  receptive field  {' x '.join(map(str, self.field.size))} pixels: {', '.join(spans)}",
        ]
        if self.arithmetic:
            lines += [f"  arithmetic       {self.arithmetic.line} = {written(self.arithmetic.sum)}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Evidence:
    """Which pixels speak for a class.

    `cam`: Grad-CAM at the layer's own size, float32 (h, w), at least 0; `cam_full` at the image's size. `occlusion`:
    how much the class's score falls, on average, when a patch over this pixel is covered, float32 (H, W).
    """

    network: str
    picture: Picture
    layer: str
    target: int
    label: str
    probability: float
    predicted: bool
    cam: Floats
    cam_full: Floats
    occlusion: Floats
    window: int
    stride: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; Grad-CAM at the layer's size, occlusion on the grid of its strides."""
        return {
            "network": self.network,
            "image": self.picture.name,
            "layer": self.layer,
            "target": {"index": self.target, "label": self.label, "probability": self.probability},
            "predicted": self.predicted,
            "grad_cam": _plain(self.cam),
            "occlusion": {
                "window": self.window,
                "stride": self.stride,
                "drop": _plain(self.occlusion[:: self.stride, :: self.stride]),
            },
        }

    def text(self) -> str:
        """A few lines for a terminal: the class, and where each of the two methods looks most."""
        what = "predicted" if self.predicted else "chosen"
        lines = [f"{self.label}  {self.probability:.1%}  ({what}, class {self.target})"]
        for name, values in (("Grad-CAM", self.cam_full), ("occlusion", self.occlusion)):
            of = f" of {self.layer}" if name == "Grad-CAM" else f", window {self.window}, stride {self.stride}"
            if np.isnan(values).all():
                lines.append(f"  {name:<10} gave no numbers{of}: the network's scores are NaN")
                continue
            y, x = np.unravel_index(int(np.nanargmax(values)), values.shape)
            lines.append(f"  {name:<10} strongest at row {y}, column {x}{of}")
        return "\n".join(lines)
