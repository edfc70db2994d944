"""Which architecture do these names and shapes belong to? Answered from an index, without building a network.

Two indices ship with the package, made once by `python -m layerscope.networks.signatures`: `digests.json.gz` knows
whole networks, timm's too, by a digest of their names and shapes; `signatures.json.gz` has all names and shapes of
torchvision's, for checkpoints that hold a part or differ a little.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from layerscope.text import counted

__all__ = ["Identity", "digest", "identify", "shapes_of", "signatures", "without_counters"]

Shapes = Mapping[str, tuple[int, ...]]

#: Below this share of the checkpoint's tensors, and below this number of them, a match says nothing.
ENOUGH, FEW = 0.5, 6


@dataclass(frozen=True)
class Identity:
    """The architecture that a checkpoint fits best.

    `matched` of `total` tensors of the architecture are in the checkpoint with the same shape, apart from the number
    of classes. `strict`: nothing is missing and nothing is left over. `part` is the dotted path of the submodule that
    the checkpoint holds ("" for the whole network); `prefix` is what the checkpoint's names carry in front.
    """

    name: str
    classes: int | None
    strict: bool
    matched: int
    total: int
    part: str = ""
    prefix: str = ""
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = f"{self.name}.{self.part}" if self.part else self.name
        facts = [counted(self.classes, "class")] if self.classes else []
        facts.append("strict" if self.strict else f"{self.matched} of {self.total} tensors")
        if self.prefix:
            facts.append(f"names begin with {self.prefix!r}")
        if self.also:
            facts.append(f"the same tensors as {', '.join(self.also)}")
        return ", ".join([name, *facts])


@cache
def signatures() -> dict[str, dict[str, tuple[int, ...]]]:
    """name of the architecture -> name of the tensor -> shape, in the order of the state dict."""
    index = _index("signatures.json.gz")
    shapes = [tuple(shape) for shape in index["shapes"]]
    return {name: {key: shapes[at] for key, at in tensors.items()} for name, tensors in index["networks"].items()}


@cache
def _digests() -> dict[str, list[str]]:
    """digest -> names of the architectures, torchvision's and the tutorial's before timm's"""
    return _index("digests.json.gz")


def _index(name: str) -> Any:
    return json.loads(gzip.decompress(files("layerscope.networks").joinpath(name).read_bytes()))


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def digest(shapes: Shapes) -> str:
    """Twelve hexadecimal digits that two networks share whose tensors have the same names and shapes.

    First axes are left out: they repeat the second axes of the layers that follow, but for the number of classes.
    """
    lines = sorted(f"{name} {'x'.join(map(str, shape[1:]))}" for name, shape in without_counters(shapes).items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def without_counters(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """All but num_batches_tracked: checkpoints of before 2018 have none, and it says nothing of the architecture."""
    return {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


def _fits(have: Shapes, want: Shapes) -> tuple[int, int | None]:
    """How many tensors of `want` are in `have` with their shape, and the number of classes where only that differs."""
    matched = 0
    heads: Counter[tuple[int, int]] = Counter()
    for name, shape in want.items():
        other = have.get(name)
        if other == shape:
            matched += 1
        elif other and len(other) == len(shape) and other[1:] == shape[1:]:
            heads[shape[0], other[0]] += 1
    # A head is the one place, weight and bias, where the first axis alone differs. More are another network.
    if len(heads) == 1 and sum(heads.values()) <= 4:
        return matched + sum(heads.values()), next(iter(heads))[1]
    return matched, None


def _common_prefix(names: list[str]) -> str:
    """First component that all names share, with its dot; "" if there is none."""
    first, dot, _ = names[0].partition(".")
    return first + dot if dot and all(name.startswith(first + dot) for name in names) else ""


def _parts(want: Shapes) -> list[str]:
    parts = {name.rsplit(".", depth)[0] for name in want for depth in (1, 2, 3) if name.count(".") >= depth}
    return sorted(part for part in parts if part.count(".") <= 1)


def _candidates(have: Shapes, want: Shapes) -> list[tuple[int, str, int | None]]:
    """(matched, part, classes) of the whole architecture and, where names lack its first component, of its parts."""
    matched, classes = _fits(have, want)
    found = [(matched, "", classes)]
    if matched < ENOUGH * len(have):
        for part in _parts(want):
            inside = {name[len(part) + 1 :]: shape for name, shape in want.items() if name.startswith(part + ".")}
            if len(inside) >= ENOUGH * len(have) and not have.keys().isdisjoint(inside):
                found.append((_fits(have, inside)[0], part, None))
    return found


def identify(shapes: Shapes) -> Identity | None:
    """The architecture that agrees with most of these names and shapes; None if none agrees with half of them."""
    have = without_counters(shapes)
    if not have:
        return None
    leads = dict.fromkeys(["", _common_prefix(list(have))])
    ways = {lead: {name[len(lead) :]: shape for name, shape in have.items()} for lead in leads}
    return next(filter(None, (_whole(way, lead) for lead, way in ways.items())), None) or _nearest(ways)


def _whole(have: Shapes, lead: str) -> Identity | None:
    """By digest: all tensors of an architecture, and no others."""
    names = _digests().get(digest(have))
    if not names:
        return None
    library = names[0].partition(":")[0]
    also = tuple(name for name in names[1:] if name.startswith(library))
    return Identity(names[0], _head_classes(have), True, len(have), len(have), "", lead, also)


def _head_classes(have: Shapes) -> int | None:
    """Length of the last bias or weight: the number of classes."""
    for name in reversed(list(have)):
        if len(have[name]) in (1, 2, 4) and not name.endswith(("running_mean", "running_var")):
            return have[name][0]
    return None


def _nearest(ways: dict[str, dict[str, tuple[int, ...]]]) -> Identity | None:
    """The architecture, or part of one, that has most of the tensors; of equals the one with the fewest others."""
    found: list[tuple[tuple[int, int], Identity]] = []
    for lead, have in ways.items():
        for name, every in signatures().items():
            want = without_counters(every)
            for matched, part, classes in _candidates(have, want):
                if matched >= max(ENOUGH * len(have), FEW):
                    one = Identity(name, classes, False, matched, len(want), part, lead)
                    found.append(((-matched, len(want)), one))
    if not found:
        return None
    found.sort(key=lambda row: row[0])
    rank, first = found[0]
    also = (other.name for key, other in found[1:] if key == rank and other.name != first.name and not other.part)
    return replace(first, also=tuple(dict.fromkeys(also)))
