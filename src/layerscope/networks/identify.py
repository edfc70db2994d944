"""Which architecture do these names and shapes belong to? Answered from an index, without building a network.

The index, `signatures.json.gz`, holds the names and shapes of every tensor of every architecture; it is made once by
`python -m layerscope.networks.signatures` and ships with the package.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Identity", "digest", "identify", "signatures"]

Shapes = Mapping[str, tuple[int, ...]]

#: Below this share of the checkpoint's tensors a match says nothing.
ENOUGH = 0.5


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
        facts = [f"{self.classes} classes"] if self.classes else []
        facts.append("strict" if self.strict else f"{self.matched} of {self.total} tensors")
        if self.prefix:
            facts.append(f"names begin with {self.prefix!r}")
        if self.also:
            facts.append(f"the same tensors as {', '.join(self.also)}")
        return ", ".join([name, *facts])


@cache
def signatures() -> dict[str, dict[str, tuple[int, ...]]]:
    """name of the architecture -> name of the tensor -> shape, in the order of the state dict."""
    packed = files("layerscope.networks").joinpath("signatures.json.gz").read_bytes()
    index = json.loads(gzip.decompress(packed))
    shapes = [tuple(shape) for shape in index["shapes"]]
    return {name: {key: shapes[at] for key, at in tensors.items()} for name, tensors in index["networks"].items()}


@cache
def _without_counters() -> dict[str, dict[str, tuple[int, ...]]]:
    return {name: _counted(shapes) for name, shapes in signatures().items()}


@cache
def _timm() -> dict[str, list[str]]:
    """digest -> names of timm's architectures"""
    packed = files("layerscope.networks").joinpath("timm.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))["networks"]


def digest(shapes: Shapes) -> str:
    """Twelve hexadecimal digits that two networks share whose tensors have the same names and shapes.

    First axes are left out: they repeat the second axes of the layers that follow, but for the number of classes.
    """
    lines = sorted(f"{name} {'x'.join(map(str, shape[1:]))}" for name, shape in _counted(shapes).items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _counted(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    # Checkpoints of before 2018 have no num_batches_tracked; it says nothing about the architecture.
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


def _head_classes(want: Shapes, have: Shapes) -> int | None:
    """Length of the last bias or weight of the architecture in the checkpoint: its number of classes."""
    for name in reversed(list(want)):
        if len(want[name]) in (1, 2, 4) and name in have and not name.endswith(("running_mean", "running_var")):
            return have[name][0]
    return None


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
    have = _counted(shapes)
    if not have:
        return None
    best: list[tuple[tuple[int, int], Identity]] = []
    prefix = _common_prefix(list(have))
    for lead in dict.fromkeys(["", prefix]):
        stripped = {name[len(lead) :]: shape for name, shape in have.items()}
        # The same names, as in most files: only then are the shapes compared, and nothing else is tried.
        same = {name: want for name, want in _without_counters().items() if want.keys() == stripped.keys()}
        for name, want in (same or _without_counters()).items():
            for matched, part, classes in _candidates(stripped, want):
                if matched < max(ENOUGH * len(have), 2):
                    continue
                strict = not part and matched == len(want) == len(have)
                classes = classes or (
                    _head_classes(want, stripped) if not part and stripped.keys() == want.keys() else None
                )
                # Of two that match as many tensors the one that has fewer others explains more.
                best.append(((-matched, len(want)), Identity(name, classes, strict, matched, len(want), part, lead)))
    found = _best(best)
    return found if found and found.strict else _among_timms(have, prefix) or found


def _among_timms(have: Shapes, prefix: str) -> Identity | None:
    for lead in dict.fromkeys(["", prefix]):
        stripped = {name[len(lead) :]: shape for name, shape in have.items()}
        names = _timm().get(digest(stripped))
        if names:
            classes = _head_classes(stripped, stripped)
            also = tuple(f"timm:{name}" for name in names[1:])
            return Identity(f"timm:{names[0]}", classes, True, len(have), len(have), "", lead, also)
    return None


def _best(best: list[tuple[tuple[int, int], Identity]]) -> Identity | None:
    if not best:
        return None
    best.sort(key=lambda row: row[0])
    rank, first = best[0]
    also = tuple(other.name for key, other in best[1:] if key == rank and other.name != first.name and not other.part)
    return Identity(**{**first.__dict__, "also": tuple(dict.fromkeys(also))})
