"""Receptive fields against torchlens, against disturbed inputs, and against the closed formula on chains."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.networks.build import build
from layerscope.units import receptive_field
from layerscope.units.receptive import geometry
from verification.chains import Chain, chains
from verification.measuring import Comparison, version

__all__ = ["compare"]

#: networks of torchvision whose maps are NCHW
NETWORKS = ["resnet18", "mobilenet_v2", "googlenet", "convnext_tiny"]
#: network -> layout of its maps
DISTURBED = {"resnet18": "NCHW", "mobilenet_v2": "NCHW", "swin_t": "NHWC"}
SIDE = 97  # odd: strides leave a rest


class Fields:
    """The comparisons, and what was met on the way."""

    def __init__(self) -> None:
        lens = f"{version('torchlens')} receptive_field"
        self.boxes = Comparison("receptive_field: the box of a unit", lens)
        self.lines = Comparison("geometry: rows and columns of the units of a layer", lens)
        self.outside = Comparison("values of a unit, pixels outside of the mask disturbed", "the same unit undisturbed")
        self.corners = Comparison("corners of the box that move the unit when disturbed", "every one moves it")
        self.formula = Comparison(
            "receptive_field on chains: box of a unit inside the image", "Araujo, Norris and Sim 2019"
        )
        self.sets = Comparison("receptive_field on chains: mask of any unit", "index sets walked back by hand")
        self.skipped = 0


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Networks of torchvision and random chains of windows."""
    found = Fields()
    several = NETWORKS[2:3] if quick else NETWORKS
    for name in several:
        _torchlens(found, name, 3 if quick else 5)
    disturbed = dict(list(DISTURBED.items())[:1]) if quick else DISTURBED
    for name, layout in disturbed.items():
        _disturb(found, name, layout, 2 if quick else 4)
    for chain in chains(8 if quick else 150):
        _chain(found, chain)
    lines = [found.boxes, found.lines, found.outside, found.corners, found.formula, found.sets]
    notes = [
        f"Against torchlens: {', '.join(several)}, input 1 x 3 x {SIDE} x {SIDE}, up to five layers each, four units "
        f"and seven rows and columns a layer. Left out: {found.skipped} layers whose field torchlens does not call "
        "exact.",
        f"Disturbed: {', '.join(disturbed)} in float64, eight images at once; a corner is one pixel of the input.",
        "Chains: two to six convolutions and pools of random kernel, stride, padding and dilation; 1 value is a number "
        "of the box or a pixel of the mask.",
    ]
    return lines, notes


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(f"torchvision:{name}", 10).eval()


def _layers(model: nn.Module, x: Tensor, most: int) -> list[tuple[str, tuple[int, ...]]]:
    """Paths of some layers that ran, with the shapes of their maps, spread over the depth."""
    seen: dict[str, tuple[int, ...]] = {}

    def hook(path: str) -> Any:
        def keep(_module: nn.Module, _given: Any, output: Tensor) -> None:
            seen.setdefault(path, tuple(output.shape))

        return keep

    handles = [m.register_forward_hook(hook(p)) for p, m in model.named_modules() if p and not list(m.children())]
    with torch.no_grad():
        model(x.clone())
    for handle in handles:
        handle.remove()
    maps = [(path, shape) for path, shape in seen.items() if len(shape) == 4 and min(shape[1:]) > 1]
    return [maps[i] for i in sorted(set(np.linspace(0, len(maps) - 1, most).astype(int).tolist()))]


def _units(height: int, width: int) -> list[tuple[int, int]]:
    units = [(0, 0), (height - 1, width - 1), (height // 2, width // 2), (height // 3, width - 1)]
    return list(dict.fromkeys(units))


def _torchlens(found: Fields, name: str, most: int) -> None:
    model, x = _network(name), torch.randn(1, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = importlib.import_module("torchlens").trace(model, x.clone())
    lines = geometry(model, x)
    for layer, shape in _layers(model, x, most):
        view = trace.modules[layer].calls[0].receptive_field
        kinds = [axis.kind for axis in view.axes or ()]
        if str(view.status.value) != "exact" or len(kinds) != 4:
            found.skipped += 1
            continue
        for unit in _units(*shape[2:]):
            ours = receptive_field(model, layer, unit, x).box
            found.boxes.see(f"{name} {layer} {unit}", np.array(ours), _lens_box(view, kinds, unit))
        for axis, size in enumerate(shape[2:]):
            for at in sorted(set(np.linspace(0, size - 1, 7).astype(int).tolist())):
                unit = (at, 0) if axis == 0 else (0, at)
                theirs = _lens_box(view, kinds, unit)[axis]
                found.lines.see(f"{name} {layer} axis {axis} at {at}", np.array(lines[layer][axis].ends(at)), theirs)


def _lens_box(view: Any, kinds: Sequence[str], unit: tuple[int, int]) -> np.ndarray:
    """First and last + 1 pixel, of rows and of columns, as torchlens says."""
    windowed = tuple(at for at, kind in zip(unit, kinds[2:], strict=True) if kind == "windowed")
    box = view.at(windowed)
    ends = []
    for axis, at in zip(box.axes[2:], unit, strict=True):
        if axis.kind == "full":
            ends.append((0, SIDE))
        elif axis.kind == "pointwise":
            ends.append((at, at + 1))
        else:
            ends.append((axis.clipped_start, axis.clipped_stop))
    return np.array(ends)


def _disturb(found: Fields, name: str, layout: str, most: int) -> None:
    model = _network(name).double()
    x = torch.randn(8, 3, SIDE, SIDE, dtype=torch.float64)
    for layer, shape in _layers(model, x[:1], most):
        if layout == "NHWC" and shape[1] != shape[2]:
            continue  # the patches, before they are turned
        height, width = (shape[layout.index(letter)] for letter in "HW")
        for unit in _units(height, width)[1:3]:
            case = f"{name} {layer} {unit}"
            mask = torch.from_numpy(receptive_field(model, layer, unit, x[:1]).mask)
            before = _values(model, layer, layout, unit, x)
            noise = torch.randn_like(x) * 5
            after = _values(model, layer, layout, unit, torch.where(mask, x, noise))
            found.outside.see(case, after.numpy(), before.numpy())
            for corner in _corners(mask):
                given = x.clone()
                given[:, :, corner[0], corner[1]] += noise[:, :, corner[0], corner[1]] * 20
                moved = not torch.equal(_values(model, layer, layout, unit, given), before)
                found.corners.see(f"{case} corner {corner}", np.array([moved]), np.array([True]))


def _corners(mask: Tensor) -> Iterator[tuple[int, int]]:
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    for row in {rows[0], rows[-1]}:
        for column in {columns[0], columns[-1]}:
            if mask[row, column]:
                yield row, column


class _Enough(Exception):
    """The layer has run."""


def _values(model: nn.Module, layer: str, layout: str, unit: tuple[int, int], x: Tensor) -> Tensor:
    """All channels of one place of a layer, for every image: (N, C). By a plain hook."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
        seen.append((output[:, :, unit[0], unit[1]] if layout == "NCHW" else output[:, unit[0], unit[1]]).clone())
        raise _Enough

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            model(x.clone())
    except _Enough:
        pass
    finally:
        handle.remove()
    return seen[0]


def _chain(found: Fields, chain: Chain) -> None:
    x = torch.randn(1, 2, *chain.image)
    last = str(len(chain.model) - 1)
    for unit in _units(*chain.grid):
        field = receptive_field(chain.model, last, unit, x)
        rows, columns = (chain.seen(axis, unit[axis]) for axis in (0, 1))
        mask = np.zeros(chain.image, bool)
        mask[np.ix_(sorted(rows), sorted(columns))] = True
        found.sets.see(f"{chain.name} {unit}", field.mask, mask)
        closed = [chain.closed(axis, unit[axis]) for axis in (0, 1)]
        if all(low >= 0 and high <= size for (low, high), size in zip(closed, chain.image, strict=True)):
            found.formula.see(f"{chain.name} {unit}", np.array(field.box), np.array(closed))
