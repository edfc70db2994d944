"""Records that lie: the body and the arrays of a true one, with something in them replaced by something hostile.

What is replaced by what is told by a `Choice`: numbers of a seed in the tests, bytes of the fuzzer's in a run of it.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from layerscope.records.file import body_of
from layerscope.records.maps import Maps
from layerscope.records.record import Entry, Finding, Histogram, Pair, Picture, Prediction, Record
from layerscope.records.sites import Site
from tests.survey import making
from tests.web.making import entry_of

Body = dict[str, Any]
Arrays = dict[str, np.ndarray]


class Choice(Protocol):
    """Where the decisions come from."""

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""


class Seeded:
    """Decisions of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, count: int) -> int:
        return self._random.randrange(count)


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 3, 255, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**400, 0.5, -1.5, 1e308,
    float("nan"), float("inf"), float("-inf"), "", "a", "\ud800", "\x1b[2J", "</script><b>", "../../etc/passwd", "0",
    "entries.0.maps.0.codes", "entries.0.columns", "a:conv1", "NCHW", "OIHW", "NLC", "weights", "survey", "compare",
    "name\n" * 3, "n" * 20_000, [], {}, [[]], [1, 2], [0], ["a", "b"], {"a": 1}, [2**40, 2**40], [-3, -4], [0, 5],
    _deep(60), _deep(900), {"index": 0, "label": "x", "probability": 2}, [None], [1, 2, 3, 4, 5, 6, 7, 8, 9],
]  # fmt: skip
KINDS = [
    "<f8", "<i8", "<f4", "<i4", "|u1", "<f2", "<u2", "<i2", "|i1", "|b1", "<u4", "<u8", "<c8",
]  # fmt: skip
VALUES: list[Any] = [0, 1, -1, 255, 2**31, -(2**63), 2**63 - 1, np.nan, np.inf, -np.inf, 1e300, -1e300]


def _features() -> Record:
    rng = np.random.default_rng(0)
    record = Record("features", "torchvision:tiny=tiny.pth", notes=["a note"], never=["spare"])
    for number, (path, shape) in enumerate({"conv": (6, 16, 14), "relu": (6, 8, 7), "head": (5, 1, 1)}.items()):
        images = [rng.normal(size=shape).astype(np.float32) for _ in range(2)]
        record.add(entry_of(path, images, "Conv2d", layout="NC" if path == "head" else "NCHW", call=number % 2))
    record.pictures = [Picture(name, rng.integers(0, 255, (9, 11, 3), np.uint8)) for name in ("a.png", "b.png")]
    record.predictions = [[Prediction(1, "tulip", 0.9), Prediction(0, "rose", 0.1)]] * 2
    record.provenance = {"layerscope": "0", "preprocessing": {"size": 224, "mean": [0.5, 0.5, 0.5]}}
    return record


def _weights() -> Record:
    rng = np.random.default_rng(1)
    record = Record("weights", "net.pth", foreign=["evil.call"], notes=["a warning"])
    for path, shape, planes in (("conv.weight", (4, 3, 5, 5), 12), ("fc.weight", (6, 8), 1)):
        made = entry_of(path, [rng.normal(size=(planes, *shape[-2:])).astype(np.float32)])
        columns = made.columns.take(np.arange(4)) if planes == 12 else None
        histogram = Histogram(np.linspace(-1, 1, 11), np.arange(10))
        layout = "OIHW" if planes == 12 else "OI"
        record.add(Entry(Site(path, 0, layout), "Conv2d", shape, "float32", columns, made.columns.take([0]), histogram,
                         [made.maps[0]]))  # fmt: skip
    record.add(Entry(Site("bn.num_batches_tracked"), "counter", (), "int64", note="7 batches"))
    record.findings = [Finding("conv.weight", "zero-kernel", [1, 2], "they say nothing")]
    record.provenance = {"format": "zip", "architecture": "alexnet", "epoch": 3}
    return record


def _compare() -> Record:
    rng = np.random.default_rng(2)
    record = Record("compare", "a.pth", subject_b="b.pth", stages=[("conv1", "conv1"), ("odd", "odd")])
    for side in "ab":
        for path, shape in (("conv1", (4, 9, 9)), ("odd", (3, 4, 4))):
            record.add(entry_of(path, [rng.normal(size=shape).astype(np.float32)], side=side))
    shape = (1, 4, 9, 9)
    record.pairs = [Pair("conv1", shape, shape, "changed", 0.5, 0.1, 0.9), Pair("c", shape, None, "only-a")]
    record.pictures = [Picture("a.png", np.zeros((5, 5, 3), np.uint8))]
    record.predictions = [[Prediction(1, "tulip", 0.9)], [Prediction(2, "rose", 0.6)]]
    return record


@cache
def truths() -> tuple[tuple[str, dict[str, np.ndarray]], ...]:
    """One record of each kind: (body as JSON, arrays). The last one is of an older schema."""
    found = []
    for record in (_features(), _weights(), _compare(), making.record()):
        arrays: Arrays = {}
        found.append((json.dumps(body_of(record, arrays)), arrays))
    old = Path(__file__).parents[1] / "data" / "records" / "survey-2.layerscope"
    with safe_open(old, "numpy") as file:
        found.append((file.metadata()["layerscope"], load_file(old)))
    return tuple(found)


def truth(number: int) -> tuple[Body, Arrays]:
    """A fresh copy of one of them."""
    body, arrays = truths()[number]
    return json.loads(body), dict(arrays)


def write(path: Path, body: Body | str, arrays: Arrays) -> Path:
    """A record's file of any body and arrays."""
    text = body if isinstance(body, str) else json.dumps(body)
    path.write_bytes(save({name: np.ascontiguousarray(one) for name, one in arrays.items()}, {"layerscope": text}))
    return path


def places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside of a document, as what holds it and its key there."""
    for key, value in list(body.items()) if isinstance(body, dict) else list(enumerate(body)):
        yield body, key
        if isinstance(value, dict | list):
            yield from places(value)


def _copy(value: Any) -> Any:
    """One of its own: the next lie may be about what is inside."""
    return json.loads(json.dumps(value)) if isinstance(value, list | dict) else value


def mutate(body: Body, arrays: Arrays, choice: Choice) -> None:
    """One lie."""
    what = choice.below(8)
    if what < 5:
        found = list(places(body))
        holder, key = found[choice.below(len(found))]
        if what < 3:
            holder[key] = _copy(HOSTILE[choice.below(len(HOSTILE))])
        elif what == 3:
            other, its = found[choice.below(len(found))]
            holder[key] = _copy(other[its])
        elif isinstance(holder, dict):
            del holder[key]
        elif holder:
            holder.append(_copy(holder[choice.below(len(holder))]))
        return
    name = sorted(arrays)[choice.below(len(arrays))]
    array = arrays[name]
    if what == 5:
        shape = [choice.below(9) for _ in range(choice.below(5))]
        size = int(np.prod(shape))
        kind = np.dtype(KINDS[choice.below(len(KINDS))]) if choice.below(2) else array.dtype
        with np.errstate(all="ignore"):
            arrays[name] = np.resize(array.ravel(), size).astype(kind).reshape(shape)
    elif what == 6 and array.size:
        with np.errstate(all="ignore"):
            flat = array.ravel().copy()
            value = np.array(VALUES[choice.below(len(VALUES))]).astype(array.dtype)
            flat[choice.below(len(flat)) :: 1 + choice.below(4)] = value
        arrays[name] = flat.reshape(array.shape)
    else:
        del arrays[name]


def crafted(path: Path, choice: Choice, most: int = 4) -> Path:
    """A true record with one to `most` lies in it."""
    body, arrays = truth(choice.below(len(truths())))
    for _ in range(1 + choice.below(most)):
        if arrays and body:
            with contextlib.suppress(RecursionError):  # a copy of a lie too deep for Python's own JSON
                mutate(body, arrays, choice)
    try:
        text = json.dumps(body)
    except RecursionError:
        text = "{}"
    return write(path, text, arrays)


def tiny_maps(count: int) -> Maps:
    """Maps of one value a channel: the most channels that a byte can buy."""
    return Maps(
        np.zeros(count, np.float32), np.ones(count, np.float32), (count, 1, 1), np.zeros((count, 1, 1), np.uint8)
    )
