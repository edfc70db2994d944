"""Outputs of all layers and their statistics, on a hundred networks, against captum and a copy of the network."""

from __future__ import annotations

import copy
import gc
import importlib
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import layerscope
from layerscope.activations.modules import Table
from layerscope.records.record import Entry
from verification.measuring import Comparison, version
from verification.references import Outputs, plain, pure, tensors
from verification.zoo import LARGEST, QUICK, Net, names, nets

__all__ = ["Zoo", "compare"]

LIMIT = 16384.0


class Zoo:
    """The comparisons, and what was met on the way."""

    def __init__(self) -> None:
        plainly = f"plain hooks on a copy without in-place operations ({version('torch')})"
        self.whole = Comparison("what the network returns", "the same copy")
        self.copies = Comparison("capture: every tensor of every call of every module", plainly)
        self.captum = Comparison("capture: the last call of every module", f"{version('captum')} LayerActivation")
        self.counts = Comparison("features: count, zeros, NaN, infinities, min, max of every channel", plainly)
        self.mean = Comparison("features: mean of every channel", f"{plainly}, float64", LIMIT)
        self.std = Comparison("features: std of every channel", f"{plainly}, float64", LIMIT)
        self.dead = Comparison("features: dead channels", plainly)
        self.maps = Comparison("features: 8-bit maps", "their formula in numpy, float64")
        self.networks = self.overwritten = self.modules = 0
        self.unsure: list[str] = []

    @property
    def lines(self) -> list[Comparison]:
        """Lines of the table."""
        return [self.whole, self.copies, self.captum, self.counts, self.mean, self.std, self.dead, self.maps]

    def see(self, net: Net) -> None:
        """All comparisons of one network."""
        self.networks += 1
        truth, written = pure(net.model, net.args), plain(net.model, net.args)
        self.modules += len(written.found)
        self.overwritten += sum(not written.kept(key) for key in written.found)
        for ours, theirs in zip(tensors(written.last), tensors(truth.last), strict=True):
            self.whole.see(net.name, ours.numpy(), theirs.numpy())
        seen = self._capture(net, truth)
        if isinstance(net.args[0], Tensor):
            self._captum(net, seen, truth)
        del seen, written
        self._features(net, truth)

    def _capture(self, net: Net, truth: Outputs) -> dict[str, Tensor]:
        paths = set(Table(net.model).observable)
        with layerscope.capture(net.model, sorted(paths)) as seen, torch.no_grad():
            net.model(*copy.deepcopy(net.args))
        expected = _flat(truth, paths)
        missing, more = set(expected) - set(seen), set(seen) - set(expected)
        if missing or more:
            self.copies.fail(net.name, f"missing {sorted(missing)[:3]}, not expected {sorted(more)[:3]}")
        for key in set(expected) & set(seen):
            tensor, kept = expected[key]
            if kept:
                self.copies.see(f"{net.name} {key}", seen[key].numpy(), tensor.numpy())
            else:
                self.unsure.append(f"{net.name} {key}")
        return seen

    def _captum(self, net: Net, seen: dict[str, Tensor], truth: Outputs) -> None:
        attr = _captum()
        single = {path for (path, _), output in truth.found.items() if isinstance(output, Tensor)}
        modules = {path: module for path, module in Table(net.model).modules.items() if path in single}
        found = attr.LayerActivation(net.model, list(modules.values())).attribute(net.args[0].clone())
        for path, theirs in zip(modules, found, strict=True):
            last = truth.calls[path] - 1
            key = f"{path}:{last}" if last else path
            theirs = theirs[0] if isinstance(theirs, tuple) else theirs
            self.captum.see(f"{net.name} {key}", seen[key].numpy(), theirs.detach().numpy())

    def _features(self, net: Net, truth: Outputs) -> None:
        (given,) = net.args
        record = layerscope.features(net.model, copy.deepcopy(given))
        expected = _flat(truth, set(Table(net.model).observable))
        for entry in record.values():
            tensor, kept = expected[entry.key]
            if kept:
                self._entry(f"{net.name} {entry.key}", entry, tensor)

    def _entry(self, case: str, entry: Entry, tensor: Tensor) -> None:
        if entry.columns is None or entry.shape[0] == 0:
            return
        if tuple(tensor.shape) != entry.shape:  # (L, N, C) is recorded as (N, L, C)
            tensor = tensor.transpose(0, 1)
        axis = entry.site.channel_axis
        rows = tensor.movedim(axis, 0).flatten(1) if axis is not None else tensor.reshape(1, -1)
        rows = rows.double()  # (C, N)
        if len(entry.columns.count) != len(rows):
            rows = rows.reshape(len(entry.columns.count), -1)
        _rows(self, case, entry, rows)
        if entry.site.layout == "NCHW" and entry.maps and entry.maps[0].reduced == 1:
            self.maps.see(case, entry.maps[0].codes, _codes(tensor[0].double().numpy()))


def _rows(zoo: Zoo, case: str, entry: Entry, rows: Tensor) -> None:
    """The columns of an entry against (C, N) in float64."""
    found, good = entry.columns, rows.isfinite()
    assert found is not None
    ours = [found.count, found.zeros, found.nan, found.inf, found.min, found.max]
    low = rows.where(good, torch.inf).amin(1)
    high = rows.where(good, -torch.inf).amax(1)
    nothing = ~good.any(1)
    ends = [one.masked_fill(nothing, torch.nan).numpy() for one in (low, high)]
    sums = [good.sum(1), (rows == 0).sum(1), rows.isnan().sum(1), rows.isinf().sum(1)]
    zoo.counts.see(case, np.stack(ours).astype(float), np.stack([*(one.double().numpy() for one in sums), *ends]))
    dead = np.flatnonzero((rows == 0).all(1).numpy())
    zoo.dead.see(case, np.asarray(entry.dead), dead)
    if not good.all():
        return
    size = rows.abs().mean(1).numpy()
    zoo.mean.see(case, found.mean, rows.mean(1).numpy(), size)
    if rows.shape[1] > 1:
        rest = rows - rows.mean(1, keepdim=True)
        rest = rest - rest.mean(1, keepdim=True)  # what rounding left out of the mean
        std = ((rest * rest).sum(1) / (rows.shape[1] - 1)).sqrt().numpy()
        zoo.std.see(case, found.std, std, np.where(std > 1e-12 * size, std, size))


def _codes(values: np.ndarray) -> np.ndarray:
    """(C, h, w) over each channel's own range: floor((v - low) * (254 / (high - low)) + 0.5)."""
    flat = values.reshape(len(values), -1)
    low, high = flat.min(1)[:, None], flat.max(1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.floor((flat - low) * (254 / (high - low)) + 0.5)
    return np.where(high > low, steps, 0).clip(0, 254).reshape(values.shape)


def _flat(outputs: Outputs, paths: set[str]) -> dict[str, tuple[Tensor, bool]]:
    """Every tensor by the name that layerscope gives it: `path[1]:2`; and whether it is as the layer made it."""
    found = {}
    for (path, call), output in outputs.found.items():
        if path in paths:
            for name, tensor in _named(output, path):
                found[f"{name}:{call}" if call else name] = (tensor, outputs.kept((path, call)))
    return found


def _named(output: Any, path: str) -> list[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        return [(path, output)]
    if isinstance(output, dict):
        return [one for key, value in output.items() for one in _named(value, f"{path}[{key}]")]
    if isinstance(output, list | tuple):
        parts = [(f"{path}[{index}]" if index else path, value) for index, value in enumerate(output)]
        return [one for name, value in parts for one in _named(value, name)]
    return [(f"{path}[{key}]", value) for key, value in getattr(output, "__dict__", {}).items()
            if isinstance(value, Tensor) and not isinstance(output, nn.Module)]  # fmt: skip


def _captum() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("captum.attr")


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Every network, one after the other."""
    chosen, large = (list(QUICK), []) if quick else names()
    zoo = Zoo()
    for net in nets(chosen):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # networks warn about their own code
            zoo.see(net)
        gc.collect()
        if not quick:
            print(f"{net.name}: {sum(len(one.exceptions) for one in zoo.lines)} exceptions so far", file=sys.stderr)
    notes = [
        f"{zoo.networks} networks with random weights in evaluation mode: {', '.join(chosen)}.",
        f"Of {zoo.modules:,} module outputs that plain hooks on the networks as they are keep by reference, "
        f"{zoo.overwritten:,} are written to by a later operation: they are no longer what the module gave.",
        "The copy is without in-place operations as far as a table of functions reaches; an output counts only if "
        f"torch's own count of writes says that nothing was written into it. Not so, and left out: {len(zoo.unsure)} "
        f"outputs{': ' + ', '.join(zoo.unsure[:6]) if zoo.unsure else ''}.",
        "captum was asked for modules that return one tensor, in networks that take one.",
    ]
    if large:
        notes.append(
            f"Left out, above {LARGEST // 10**6} million parameters or too large in one pass: {', '.join(large)}."
        )
    return zoo.lines, notes
