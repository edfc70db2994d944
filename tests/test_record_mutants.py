"""Of records, what no other test saw when the code was broken on purpose: `verification/mutants.py`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from layerscope.errors import RecordError
from layerscope.records.arrays import Arrays
from layerscope.records.file import load
from layerscope.records.maps import Maps
from layerscope.records.profiles import Crop, Examples, Line, Profile, crop_of, edges_of, wanted
from layerscope.records.record import Entry, Record, last_of_size
from layerscope.records.sites import Site
from tests.survey.making import record


def square(side):
    ends = np.zeros(2, np.float32)
    return Maps(ends, ends, (2, side, side), np.zeros((2, side, side), np.uint8))


def changed(path, change):
    """The file of the survey made by hand, with its JSON changed."""
    record().save(path)
    with safe_open(path, "numpy") as handle:
        body = json.loads(handle.metadata()["layerscope"])
    change(body)
    save_file(load_file(path), path, metadata={"layerscope": json.dumps(body)})
    return path


@pytest.mark.parametrize(
    ("kind", "layout", "expected"),
    [
        ("weights", "OIHW", True), ("features", "OIHW", False), ("survey", "NCHW", False),
        ("compare", "OIHW", True), ("compare", "NCHW", False),
    ],
)  # fmt: skip
def test_what_is_about_tensors(kind, layout, expected):
    made = Record(kind, "x")
    made.add(Entry(Site("a", 0, layout), "Conv2d", (1, 2, 3, 3), "float32"))
    assert made.of_tensors is expected


def test_entries_by_path_or_type():
    made = record()
    made["relu"].type = "ReLU"
    assert list(made.only("conv")) == list(made.only("Conv*")) == ["conv"]
    assert list(made.only("conv", "ReLU")) == ["conv", "relu"] and list(made.only("Linear")) == []


def test_a_vector_is_no_stage_of_a_network():
    entries = [
        Entry(Site(f"{side}{at}", 0, "NCHW"), "Conv2d", (1, 2, side, side), "float32", maps=[square(side)])
        for at in range(2)
        for side in (4, 1)
    ]
    assert [entry.key for entry in last_of_size(entries)] == ["41"]


def test_a_fault_that_does_not_name_the_file_gets_its_name(tmp_path):
    def beyond(body):
        body["entries"][0]["profile"]["redundant_channels"] = [[0, 3, 0.5]]

    with pytest.raises(RecordError, match=r"b\.layerscope: a safetensors file, but not a whole record"):
        load(changed(tmp_path / "b.layerscope", beyond))


def test_the_two_bins_beside_zero():
    low, high = edges_of(np.array([2046, 2047, 2048, 2049]))
    step = float(np.array([1 << 20], np.uint32).view(np.float32)[0])
    assert low.tolist() == [-2 * step, -step, 0, step]
    assert high.tolist() == [-step, 0, step, 2 * step]


def test_an_array_is_read_once(tmp_path):
    save_file({"a": np.zeros(3)}, tmp_path / "a", metadata={"layerscope": "{}"})
    arrays = Arrays(str(tmp_path / "a"))
    assert arrays.read("a", np.float64, "n").tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="a is used twice"):
        arrays.read("a", np.float64, "n")


def test_the_images_that_are_wanted_first():
    nothing = np.zeros((2, 2, 2), np.int32)
    first, second = (
        Examples(np.array(image), np.zeros((2, 2), np.float32), nothing, nothing)
        for image in ([[7, 3], [7, 5]], [[9, 7], [3, -1]])
    )
    # best of some channel: 7 of two and once a second, 3 once and once a second, 9 once; 5 is a second alone
    assert wanted([first, second]) == [7, 3, 9, 5]
    assert wanted([second, first]) == [7, 3, 9, 5]
    assert wanted([]) == []


#: units along the rows see 4 of 16 pixels, 2 apart; along the columns 7 of 24, 3 apart
LINES = Line(-1, 3, 2, 16), Line(-2, 5, 3, 24)


@pytest.mark.parametrize(
    ("lines", "begin", "expected"),
    [
        (None, (0, 0), Crop(((0, 16), (0, 24)), ((0, 16), (0, 24)), ((0, 4), (0, 6)))),
        (LINES, (0, 0), Crop(((0, 4), (0, 6)), ((0, 3), (0, 5)), ((0, 4), (0, 6)))),
        (LINES, (6, 7), Crop(((11, 16), (19, 24)), ((11, 15), (19, 24)), ((12, 16), (21, 27)))),
    ],
)
def test_the_part_of_an_image_that_an_example_is_about(lines, begin, expected):
    at = np.array([[begin]], np.int32)
    best = Examples(np.array([[0]]), np.ones((1, 1), np.float32), at, at)
    profile = Profile(1, np.zeros(1, np.int64), best, grid=(8, 8), lines=lines)
    assert crop_of(profile, 0, 0, (2, 2), (16, 24)) == expected


def test_numbers_of_unknown_fields_fit_a_page_too(tmp_path):
    def large(body):
        body["provenance"]["steps"] = [2**53 + 1]

    with pytest.raises(RecordError, match=r"provenance\.steps is not plain"):
        load(changed(tmp_path / "b.layerscope", large))
