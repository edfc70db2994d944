"""Records as older versions wrote them, kept in `tests/data/records`, are read as what they were made of.

`features-1` was written by the code that wrote schema 1, the others by 0.1.0, which wrote schema 2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerscope.maps import Maps
from layerscope.profiles import Examples, Line, Profile, Shown, Similarity, Spread
from layerscope.record import Entry, Finding, Histogram, Pair, Picture, Prediction, Record
from layerscope.recordfile import load
from layerscope.sites import Site
from layerscope.stats import Columns
from tests.test_record import plain

FILES = Path(__file__).parent / "data" / "records"


def columns(channels):
    steps = np.arange(channels, dtype=np.float64)
    low = np.where(steps == 1, np.nan, -steps)
    counts = np.arange(channels, dtype=np.int64)
    return Columns(counts * 8, steps / 4, steps * 2, low, low + 3, counts, counts * 0 + 1, counts * 0)


def maps(channels, height=2, width=3, reduced=1):
    codes = np.arange(channels * height * width, dtype=np.uint8).reshape(channels, height, width)
    low = np.arange(channels, dtype=np.float32)
    return Maps(low, low + np.float32(0.5), codes.shape, codes, reduced)


def layer(path, channels, images, call=0, side="", **more):
    shape = (images, channels, 2, 3)
    pictures = [maps(channels, reduced=1 + image) for image in range(images)]
    return Entry(
        Site(path, call, "NCHW"), "Conv2d", shape, "float32", columns(channels), maps=pictures, side=side, **more
    )


def filled(record, *entries):
    for entry in entries:
        record.add(entry)
        assert entry.total or entry.columns is None  # saving looks for it too
    return record


def features():
    made = Record("features", "net=net.pth", notes=["a note"], never=["spare"])
    made.pictures = [Picture("a.png", np.arange(18, dtype=np.uint8).reshape(2, 3, 3))]
    made.predictions = [[Prediction(1, "tulip", 0.75), Prediction(-1, "none", 0)], []]
    made.provenance = {"layerscope": "0.1.0", "preprocessing": {"size": 224, "mean": [0.5, 0.25]}}
    head = Entry(Site("head", 0, "NC"), "Linear", (2, 4), "float16", columns(4), note="a vector")
    return filled(made, layer("conv", 3, 2), layer("conv", 3, 1, call=1), head)


def weights():
    made = Record("weights", "net.pth", foreign=["evil.call"])
    made.findings = [Finding("conv.weight", "zero-kernel", [1, 2], "they say nothing")]
    made.provenance = {"format": "zip", "architecture": None, "epoch": 3, "extra": {"lr": 0.5}}
    histogram = Histogram(np.array([-1.0, 0.0, 2.0]), np.array([3, 5]))
    kernels = Entry(
        Site("conv.weight", 0, "OIHW"), "Conv2d", (2, 3, 2, 3), "float32", columns(2), columns(1), histogram
    )
    kernels.maps = [maps(6)]
    bias = Entry(Site("conv.bias", 0, "O"), "Conv2d", (2,), "float32", whole=columns(1), histogram=histogram)
    return filled(made, kernels, bias, Entry(Site("bn.num_batches_tracked"), "counter", (), "int64", note="7 batches"))


def compare():
    made = Record("compare", "a.pth", subject_b="b.pth", stages=[("conv", "conv")])
    shape = (1, 2, 2, 3)
    made.pairs = [Pair("conv", shape, shape, "changed", 0.5, 0.125, 1), Pair("c", None, (), "only-b")]
    return filled(made, layer("conv", 2, 1, side="a"), layer("conv", 2, 1, side="b"))


def survey():
    made = Record("survey", "net", classes=["cat", "dog"])
    made.provenance = {"images": 5, "of": 6, "broken": [{"number": 5, "image": "dogs/5.jpg", "reason": "cut off"}]}
    places = np.arange(12, dtype=np.int32).reshape(3, 2, 2)
    best = Examples(np.array([[3, 1], [0, -1], [4, 0]]), np.ones((3, 2), np.float32), places, places + np.int32(1))
    whole = Profile(
        5, np.array([1, 5, 0]), best, Spread(np.array([7, 2050, 2051]), np.arange(9).reshape(3, 3)),
        np.array([0, -1, 1], np.int32), np.array([0.5, np.nan, 0], np.float32), np.array([0.75, 0, np.nan], np.float32),
        [(0, 2, 0.995)], 1.75, (8, 9), (Line(-3, 4, 2, 16), Line(-1, 2, 2, 18)),
    )  # fmt: skip
    made.shown = [Shown(3, "cats/3.jpg", "cat", 16, 18, np.arange(5, dtype=np.uint8))]
    made.similarity = Similarity(["conv", "relu"], np.array([[1, 0.5], [0.5, 1]], np.float32), 1)
    bare = Profile(5, np.array([0, 0]))
    return filled(made, layer("conv", 3, 2, profile=whole), layer("relu", 2, 0, profile=bare), layer("fc", 2, 0))


MADE = {"features-1": features, "features-2": features, "weights-2": weights, "compare-2": compare, "survey-2": survey}


@pytest.mark.parametrize("name", MADE)
def test_a_record_of_an_older_version_is_read(name):
    assert plain(load(FILES / f"{name}.layerscope")) == plain(MADE[name]())


@pytest.mark.parametrize("name", MADE)
def test_a_record_of_an_older_version_survives_in_the_newest_schema(name, tmp_path):
    again = load(FILES / f"{name}.layerscope").save(tmp_path / "a.layerscope")
    assert plain(load(again)) == plain(MADE[name]())
