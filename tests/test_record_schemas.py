"""Records as older versions wrote them, kept in `tests/data/records`, are read as what they were made of.

`features-1` was written by the code that wrote schema 1, the others by 0.1.0, which wrote schema 2. And what follows
from the types of a class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from layerscope.errors import RecordError
from layerscope.records.arrays import Arrays, Packed
from layerscope.records.file import load
from layerscope.records.maps import Maps
from layerscope.records.profiles import ChannelHistograms, Examples, Line, Profile, Shown, Similarity
from layerscope.records.record import Entry, Finding, Histogram, Pair, Picture, Prediction, Record
from layerscope.records.schema import MOST, OPTIONAL, Signed, facts, of
from layerscope.records.sites import Site
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
        5, np.array([1, 5, 0]), best, ChannelHistograms(np.array([7, 2050, 2051]), np.arange(9).reshape(3, 3)),
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


#: of the old survey: place in the JSON, what stands there, and what is said of it
LIES = {
    "a histogram that is no flag": (("entries", 0, "histogram"), "x", "entries.0.histogram is not true or false"),
    "a profile that is a number": (("entries", 0, "profile"), 0, "entries.0.profile is not a table"),
    "examples that are no flag": (("entries", 0, "profile", "examples"), 1, "profile.examples is not true or false"),
    "a class that is none": (("entries", 0, "profile", "classes", 1), "NCHW", r"classes.1 is not one of 'favourite'"),
    "lines of three numbers": (("entries", 0, "profile", "lines", 1), [1, 2, 3], "lines.1 is not a list of 4"),
    "no classes": (("entries", 0, "profile"), {"examples": True, "spread": True}, "profile.classes is missing"),
    "entries that are none": (("entries",), {}, "entries is not a list"),
    "an entry that is none": (("entries", 1), "x", "entries.1 is not a table"),
    "a schema that is none": (("schema",), 1.5, "schema is not a whole number"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_older_record_that_lies_is_refused(tmp_path, lie):
    (*place, last), value, said = LIES[lie]
    old = FILES / "survey-2.layerscope"
    with safe_open(old, "numpy") as file:
        body = json.loads(file.metadata()["layerscope"])
    holder = body
    for key in place:
        holder = holder[key]
    holder[last] = value
    save_file(load_file(old), tmp_path / "a", metadata={"layerscope": json.dumps(body)})
    with pytest.raises(RecordError, match=said):
        load(tmp_path / "a")


@dataclass
class Inner:
    name: str
    bins: Annotated[NDArray[np.int64], "n"]
    counts: Annotated[NDArray[np.float32], "C n"]

    def _contradiction(self) -> str:
        return "it is red" if self.name == "red" else ""


@dataclass
class Outer:
    channels: Annotated[NDArray[np.uint8], "C 3"]
    parts: list[Inner]
    side: Literal["left", "right"]
    pair: tuple[Signed, float | None]
    anything: Annotated[dict[str, Any], facts(size=int)]
    on: Annotated[bool, OPTIONAL] = True


def outer(**more):
    inner = Inner("blue", np.array([1, 2]), np.ones((4, 2), np.float32))
    given = {"pair": (-1, None), "anything": {"size": 3, "x": [1.5]}, "on": False} | more
    return Outer(np.zeros((4, 3), np.uint8), [inner, inner], "left", **given)


def written(path, value, change=lambda body, arrays: None):
    """What is read from a file in which a value was written, after a change to it."""
    arrays = {}
    body = json.loads(json.dumps(of(Outer).write(value, "", Packed(arrays))))
    change(body, arrays)
    save_file(arrays, path, metadata={"layerscope": "{}"})
    return of(Outer).read(body, Arrays(str(path)))


def test_a_class_is_stored_by_the_types_of_its_fields(tmp_path):
    def older(body, arrays):
        assert set(arrays) == {"channels", *(f"parts.{at}.{name}" for at in (0, 1) for name in ("bins", "counts"))}
        del body["on"]
        body["new"] = "is skipped"

    assert plain(written(tmp_path / "a", outer())) == plain(outer())
    assert plain(written(tmp_path / "a", outer(), older)) == plain(outer(on=True))


@pytest.mark.parametrize(
    "place, value, said",
    [
        (("channels",), 3, "channels is not a text"),
        (("channels",), "parts.0.bins", "channels: parts.0.bins is I64 of 1 axes, not U8 of 2"),
        (("parts", 1, "bins"), "parts.0.bins", "parts.1.bins: parts.0.bins is used twice"),
        (("parts",), {}, "parts is not a list"),
        (("parts", 1, "name"), None, "parts.1.name is not a text"),
        (("parts", 0, "name"), "red", "parts.0: it is red"),
        (("parts", 0), [], "parts.0 is not a table"),
        (("side",), "up", "side is not one of 'left', 'right'"),
        (("pair",), [1], "pair is not a list of 2"),
        (("pair", 0), MOST + 1, "pair.0 is not a whole number"),
        (("pair", 0), 1.0, "pair.0 is not a whole number"),
        (("pair", 1), True, "pair.1 is not a number"),
        (("anything",), [], "anything is not a table"),
        (("anything", "size"), -1, "anything.size is not a whole number from 0 on"),
        (("anything", "x"), [[MOST + 1]], "anything.x is not plain"),
        (("on",), 1, "on is not true or false"),
    ],
)
def test_what_a_class_does_not_allow_is_refused_with_its_place(tmp_path, place, value, said):
    def lie(body, arrays):
        for key in place[:-1]:
            body = body[key]
        body[place[-1]] = value

    with pytest.raises(ValueError, match=said):
        written(tmp_path / "a", outer(), lie)


@pytest.mark.parametrize(
    "name, shape, said",
    [
        ("channels", (4, 2), "channels has axes of"),
        ("channels", (5, 3), "parts.0.counts has axes of"),
        ("parts.1.bins", (3,), "parts.1.counts has axes of"),
        ("parts.0.counts", (4, 2, 1), "F32 of 3 axes, not F32 of 2"),
    ],
)
def test_axes_of_one_letter_have_one_size(tmp_path, name, shape, said):
    def resized(body, arrays):
        arrays[name] = np.zeros(shape, arrays[name].dtype)

    with pytest.raises(ValueError, match=said):
        written(tmp_path / "a", outer(), resized)


def test_letters_of_two_tables_are_two_sizes(tmp_path):
    value = outer()
    value.parts[1] = Inner("green", np.arange(5), np.ones((4, 5), np.float32))
    assert plain(written(tmp_path / "a", value)) == plain(value)


def test_nesting_has_an_end(tmp_path):
    def nested(levels):
        value = []
        for _ in range(levels - 1):
            value = {"a": value}
        return value

    assert written(tmp_path / "a", outer(anything={"x": nested(20)})).anything
    with pytest.raises(ValueError, match=r"anything\.x is not plain: 20 levels at most"):
        written(tmp_path / "a", outer(anything={"x": nested(21)}))
