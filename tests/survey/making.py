"""A survey's record made by hand: two layers of three channels over five images of two classes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from layerscope.records.maps import Maps
from layerscope.records.profiles import ChannelHistograms, Examples, Line, Profile, Shown, Similarity
from layerscope.records.record import Entry, Record
from layerscope.records.sites import Site
from layerscope.stats import Columns

CHANNELS, PLACES = 3, 2


def columns():
    return Columns(
        count=np.array([80, 80, 80]), mean=np.array([1.0, 0.0, 2.0]), m2=np.array([4.0, 0.0, 9.0]),
        min=np.array([-1.0, 0.0, 0.5]), max=np.array([3.0, 0.0, 4.0]), zeros=np.array([7, 80, 0]),
        nan=np.zeros(3, np.int64), inf=np.zeros(3, np.int64),
    )  # fmt: skip


def examples():
    rng = np.random.default_rng(0)
    image = np.array([[3, 1], [-1, -1], [0, 3]])
    value = np.array([[3.0, 2.5], [0, 0], [4.0, 3.5]], np.float32)
    return Examples(image, value, rng.integers(0, 8, (3, 2, 2)).astype(np.int32), np.zeros((3, 2, 2), np.int32))


def profile():
    counts = np.zeros((CHANNELS, 4), np.int64)
    counts[0] = [1, 2, 0, 70]
    counts[2] = [0, 80, 0, 0]
    return Profile(
        images=5, inactive=np.array([1, 5, 0]), examples=examples(),
        histograms=ChannelHistograms(2048 + 8 * 127 + np.arange(4), counts),
        preferred_class=np.array([0, -1, 1], np.int32), selectivity=np.array([0.5, np.nan, np.nan], np.float32),
        eta_squared=np.array([0.8, np.nan, 0.25], np.float32),
        redundant_channels=[(0, 2, 0.995)], rank=1.75, grid=(8, 8),
        lines=(Line(-3, 4, 2, 16), Line(-1, 2, 2, 16)),
    )  # fmt: skip


def shown(number):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (40 * number, 90, 200)).save(buffer, "WEBP")
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    return Shown(number, f"cats/{number}.jpg", ["cat", "dog"][number % 2], 16, 16, data)


def record():
    made = Record("survey", "tiny", classes=["cat", "dog"], notes=["a note"])
    made.provenance = {"images": 5, "of": 6, "broken": [{"number": 5, "image": "dogs/5.jpg", "reason": "cut off"}]}
    codes = np.arange(CHANNELS * 16, dtype=np.uint8).reshape(CHANNELS, 4, 4)
    for path in ("conv", "relu"):
        maps = [Maps(np.zeros(3, np.float32), examples().value[:, place], (3, 4, 4), codes) for place in range(PLACES)]
        entry = Entry(Site(path, 0, "NCHW"), "Conv2d", (5, 3, 8, 8), "float32", columns(), maps=maps, profile=profile())
        made.add(entry)
    made.shown = [shown(number) for number in (0, 1, 3)]
    made.similarity = Similarity(["conv", "relu"], np.array([[1, 0.5], [0.5, 1]], np.float32), 1)
    return made
