"""What is wrong with a network in training, from the figures of one step and of those before it. No torch.

The criteria, and where they come from, are in docs/watching.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import numpy as np

from layerscope.records.record import Entry
from layerscope.watching.events import Event

__all__ = ["EXPLODES", "FEW", "MOVES", "VANISHES", "Health", "rms"]

#: a channel that was zero on fewer values than this is not called dead in an event
FEW = 64
#: times the median of its own earlier gradients, or the spread of its own first activations
EXPLODES = 100.0
#: share of the median of all kernels' gradients
VANISHES = 1e-4
#: standard deviation of an update over that of the weights; about 1e-3 is usual
MOVES = 0.1
#: steps that the median is taken over, and how many there have to be
_PAST, _ENOUGH = 20, 3


def rms(entry: Entry) -> float:
    """Root of the mean square of the finite values; NaN where there is none."""
    one = entry.total
    if one is None or not one.count[0]:
        return math.nan
    return math.sqrt(float(one.m2[0]) / int(one.count[0]) + float(one.mean[0]) ** 2)


def _spread(entry: Entry) -> float:
    return float(entry.total.std[0]) if entry.total is not None else math.nan


class Health:
    """Sees the entries of every chosen step and gives what is to be said; each thing is said once while it lasts."""

    def __init__(self) -> None:
        self.dead: dict[str, frozenset[int]] = {}
        self.scalars: dict[str, float] = {}
        self._ever: set[str] = set()
        self._lost: dict[str, set[int]] = {}
        self._first: dict[str, float] = {}
        self._past: dict[str, deque[float]] = {}
        self._bad: set[tuple[str, str]] = set()
        self._step, self._events = 0, list[Event]()

    def see(
        self,
        step: int,
        layers: Sequence[Sequence[Entry]],
        weights: Sequence[Entry],
        gradients: Sequence[Entry],
        updates: Sequence[Entry],
    ) -> list[Event]:
        """`layers`: for each output of a layer, in the order of the forward pass, its entries: batch, probe or both.

        The others belong together by their order. `scalars` are those of this step afterwards.
        """
        self.scalars, self._step, self._events = {}, step, []
        self._dead(layers, {entry.site.path for entry in weights})
        self._nonfinite([*(entry for entries in layers for entry in entries), *weights, *gradients])
        for entries in layers:
            self._activations(_key(entries[0]), _spread(entries[0]))
        squares = [int(one.count[0]) * rms(entry) ** 2 for entry in gradients if (one := entry.total) and one.count[0]]
        if squares:
            self.scalars["gradient norm"] = math.sqrt(sum(squares))
        self._gradients([entry for entry in gradients if len(entry.shape) > 1])
        self._updates(weights, updates)
        return self._events

    def _dead(self, layers: Sequence[Sequence[Entry]], named: set[str]) -> None:
        now, judged, before, after, many = dict[str, frozenset[int]](), 0, frozenset[int](), "", 0
        for entries in layers:
            key, channels = _key(entries[0]), _channels(entries[0])
            if f"{entries[0].site.path.removesuffix('/batch')}.weight" in named:
                after = _key(entries[0])
            if not channels or _values(entries) < FEW:
                continue
            dead = now[key] = frozenset.intersection(*(frozenset(entry.dead) for entry in entries))
            judged += channels
            if dead or key in self._ever:
                self._ever.add(key)
                self.scalars[f"dead/{key}"] = len(dead) / channels
            new = dead - self.dead.get(key, dead)
            said = self._lost.setdefault(key, set())
            lost = new - said
            said |= new
            if lost and not (lost <= before and channels == many):  # handed on by a pooling or a dropout
                where = key if after in ("", key) else f"{key} (after {after})"
                text = f"{where} lost {len(lost)} of {channels} channels ({len(dead)} dead now)"
                self._events.append(Event(self._step, "dead", key, text, sorted(lost)))
            before, many = frozenset(lost), channels
        if judged:
            self.scalars["dead"] = sum(map(len, now.values())) / judged
            fresh = [len(dead - self.dead[key]) for key, dead in now.items() if key in self.dead]
            self.scalars["newly dead"] = sum(fresh) / judged
        self.dead |= now

    def _once(self, kind: str, layer: str, text: str, bad: bool) -> None:
        if bad and (kind, layer) not in self._bad:
            self._events.append(Event(self._step, kind, layer, text))
        (self._bad.add if bad else self._bad.discard)((kind, layer))

    def _nonfinite(self, entries: Sequence[Entry]) -> None:
        """The first output in the order of the forward pass; or else the first tensor."""
        new = not any(kind == "non-finite" for kind, _ in self._bad)
        bad = next((entry for entry in entries if (one := entry.total) and (one.nan[0] or one.inf[0])), None)
        if bad is None or bad.total is None:
            self._bad = {mark for mark in self._bad if mark[0] != "non-finite"}
            return
        name, of = _key(bad), " of the training batch" if bad.site.path.endswith("/batch") else ""
        text = f"{name} is the first{of} with non-finite values: {bad.total.nan[0]} NaN, {bad.total.inf[0]} infinite"
        self._bad.add(("non-finite", name))
        if new:
            self._events.append(Event(self._step, "non-finite", name, text))

    def _activations(self, key: str, spread: float) -> None:
        first = self._first.setdefault(key, spread) if spread > 0 else 0.0
        times = spread / first if first else 0.0
        text = f"{key} explodes: its activations spread {times:.0f} times as far as at the first step ({spread:.3g})"
        self._once("exploding", key, text, times > EXPLODES)

    def _gradients(self, kernels: Sequence[Entry]) -> None:
        sizes = {entry.site.path.removesuffix("/grad"): rms(entry) for entry in kernels}
        for name, size in sizes.items():
            self.scalars[f"gradient/{name}"] = size
        usual = median(sizes.values()) if sizes else 0.0
        for name, size in sizes.items():
            past = self._past.setdefault(name, deque(maxlen=_PAST))
            middle = median(past) if len(past) >= _ENOUGH else 0.0
            times = size / middle if middle else 0.0
            text = f"the gradient of {name} explodes: {times:.0f} times its median before ({size:.3g})"
            self._once("exploding", name, text, times > EXPLODES)
            text = f"the gradient of {name} vanishes: {size:.1g}, the median over all kernels is {usual:.1g}"
            if size == 0:
                text = f"no gradient reaches {name}: all of it is zero"
            self._once("vanishing", name, text, size <= VANISHES * usual)
            if math.isfinite(size):
                past.append(size)

    def _updates(self, weights: Sequence[Entry], updates: Sequence[Entry]) -> None:
        by_name, ratios = {entry.site.path: entry for entry in weights}, []
        for update in updates:
            name = update.site.path.removesuffix("/update")
            weight = _spread(by_name[name]) if name in by_name else 0.0
            if len(update.shape) < 2 or not weight > 0:
                continue
            ratio = _spread(update) / weight
            self.scalars[f"update to weight/{name}"] = ratio
            ratios.append(ratio)
            text = f"{name} moved by {ratio:.2g} of its own spread in one step; about 0.001 is usual"
            self._once("exploding", f"{name}/update", text, ratio > MOVES)
        if ratios:
            middle = math.nan if np.isnan(ratios).all() else float(np.nanmedian(ratios))
            self.scalars["median update to weight"] = middle


def _key(entry: Entry) -> str:
    """The layer's own key, without what marks the batch."""
    path = entry.site.path.removesuffix("/batch")
    return f"{path}:{entry.site.call}" if entry.site.call else path


def _channels(entry: Entry) -> int:
    return len(entry.columns.count) if entry.columns is not None and "C" in entry.site.layout else 0


def _values(entries: Sequence[Entry]) -> int:
    """Values a channel that were seen, over all entries."""
    columns = [entry.columns for entry in entries if entry.columns is not None]
    return sum(int((one.count + one.nan + one.inf).min(initial=1 << 62)) for one in columns)
