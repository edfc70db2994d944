"""The viewer's format: what the page reads equals the record."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import layerscope
from layerscope.errors import RecordError
from layerscope.records.maps import Maps
from layerscope.records.record import Entry, Record
from layerscope.records.sites import Site
from layerscope.stats import Columns
from layerscope.text import json_text
from layerscope.views import format as viewer_format

#: the layout of 0.1.0: a reader that knows it by heart goes on as long as no statistic is added
LAYOUT = {
    "header_bytes": 16,
    "arrays": [[name, "f4"] for name in ("lo", "hi", "mean", "std", "min", "max")]
    + [[name, "u4"] for name in ("zeros", "nan", "inf")],
}


def read(data: bytes, layout: dict = LAYOUT) -> dict:
    """A block read by its description in docs/viewer.md and the layout of an index, and by nothing else."""
    channels, height, width, flags = struct.unpack_from("<4I", data)
    at, found = layout["header_bytes"], {"shape": (channels, height, width), "flags": flags}
    for name, kind in layout["arrays"]:
        found[name] = np.frombuffer(data, f"<{kind}", channels, at)
        at += 4 * channels
    found["codes"] = np.frombuffer(data, np.uint8, channels * height * width, at).reshape(channels, height, width)
    assert len(data) == at + channels * height * width
    if flags & 1:
        found["codes"] = unpredicted(found["codes"])
    return found


def unpredicted(gaps: np.ndarray) -> np.ndarray:
    """(C, h, w), code after code."""
    codes = gaps.astype(int)
    for y, x in np.ndindex(codes.shape[1:]):
        left, upper = codes[:, y, x - 1], codes[:, y - 1, x]
        codes[:, y, x] += (left + upper) // 2 if y and x else upper if y else left if x else 0
        codes[:, y, x] %= 256
    return codes.astype(np.uint8)


@pytest.fixture
def record(small, photo):
    return layerscope.features(small, [photo, photo])


def columns(size: int) -> Columns:
    whole, part = np.arange(size, dtype=np.int64), np.arange(size) / 4
    return Columns(whole + 2, part, part, part, part, whole, whole, whole)


def entry(channels: int = 2, **fields) -> Entry:
    codes = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    low = np.zeros(2, np.float32)
    fields.setdefault("columns", columns(channels))
    fields.setdefault("maps", [Maps(low, low + 1, (2, 3, 4), codes)])
    return Entry(Site("layer", 0, "NCHW"), "Conv2d", (1, channels, 3, 4), "float32", **fields)


def test_the_index_says_what_the_record_holds(record):
    index = json.loads(json_text(viewer_format.index(record, {"image": True, "units": True})))
    assert index["schema"] == 1
    assert index["block"] == LAYOUT
    assert [(one["name"], one["brief"]) for one in index["statistics"]][3:5] == [("max", True), ("zeros", False)]
    assert [layer["key"] for layer in index["layers"]] == list(record.entries)
    assert [layer["id"] for layer in index["layers"]] == list(range(len(record)))
    stem = index["layers"][0]
    assert stem["maps"] == [{"c": 6, "h": 112, "w": 112, "reduced": 1}] * 2
    assert stem["channels"] == 6
    total = record["stem"].total
    assert stem["total"]["mean"] == total.mean.item()
    assert stem["total"]["count"] == 2 * 6 * 112 * 112
    assert index["never"] == ["spare"]
    assert index["pictures"] == [{"name": "photo.png", "width": 224, "height": 224}] * 2
    assert len(index["predictions"][1]) == 4
    assert index["live"] == {"image": True, "units": True}


def test_what_is_no_number_is_null(tmp_path):
    nothing = Columns(*(np.array([value]) for value in (0, 0.0, 0.0, np.nan, np.inf, 0, 3, 0)))
    record = Record("features", "net", provenance={"x": [float("nan"), {"y": -float("inf")}]})
    record.add(entry(whole=nothing))
    index = json.loads(json_text(viewer_format.index(record)))
    assert index["layers"][0]["total"]["min"] is None
    assert index["layers"][0]["total"]["max"] is None
    assert index["provenance"] == {"x": [None, {"y": None}]}


def test_a_block_is_the_maps_and_the_statistics(record):
    for image in (0, 1):
        one, found = record["block.conv"], read(viewer_format.block(record["block.conv"], image))
        maps = one.maps[image]
        assert found["shape"] == maps.shape
        assert found["flags"] == 0
        assert np.array_equal(found["codes"], maps.codes)
        assert np.array_equal(found["lo"], maps.lo)
        assert np.array_equal(found["hi"], maps.hi)
        for name in ("mean", "std", "min", "max", "zeros", "nan", "inf"):
            want = np.asarray(getattr(one.columns, name))
            assert np.array_equal(found[name], want.astype(found[name].dtype)), name


@settings(max_examples=60, deadline=None)
@given(codes=arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)))
def test_predicted_codes_come_back(codes):
    channels = len(codes)
    maps = Maps(np.zeros(channels, np.float32), np.ones(channels, np.float32), codes.shape, codes)
    plain = viewer_format.block(entry(channels, maps=[maps]), 0)
    packed = viewer_format.predicted(plain)
    assert len(packed) == len(plain)
    found = read(packed)
    assert found["flags"] == viewer_format.PREDICTED == 1
    assert np.array_equal(found["codes"], codes)
    assert packed[16 : 16 + 36 * channels] == plain[16 : 16 + 36 * channels]


PAGE = """
import { readFileSync } from "node:fs";
const [, file, layout] = process.argv,
  { parseBlock } = await import(file);
for (const line of readFileSync(0, "utf8").trim().split("\\n")) {
  const block = parseBlock(Uint8Array.from(Buffer.from(line, "base64")).buffer, JSON.parse(layout));
  console.log(JSON.stringify([block.C, block.h, block.w, [...block.codes], [...block.lo], [...block.stats.inf]]));
}"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to run the page's code")
def test_the_page_reads_what_python_packs():
    random = np.random.default_rng(5)
    shapes = [(1, 1, 1), (3, 1, 7), (2, 9, 1), (5, 6, 4), (1, 17, 33)]
    blocks = []
    for channels, height, width in shapes:
        codes = random.choice([0, 1, 127, 254, 255], (channels, height, width)).astype(np.uint8)
        low = random.normal(size=channels).astype(np.float32)
        blocks.append(viewer_format.block(entry(channels, maps=[Maps(low, low + 1, codes.shape, codes)]), 0))
    lines = [base64.b64encode(one).decode() for block in blocks for one in (block, viewer_format.predicted(block))]
    code = (files("layerscope") / "web" / "block.js").as_uri()
    done = subprocess.run(
        ["node", "--input-type=module", "-e", PAGE, code, json.dumps(viewer_format.layout())],
        input="\n".join(lines), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for at, block in enumerate(blocks):
        want = read(block)
        for found in said[2 * at : 2 * at + 2]:
            assert tuple(found[:3]) == want["shape"]
            assert found[3] == want["codes"].ravel().tolist()
            assert np.array_equal(np.float32(found[4]), want["lo"])
            assert found[5] == want["inf"].tolist()


def test_a_block_without_maps_has_nothing_to_predict():
    plain = viewer_format.block(entry(3), 0, maps=False)
    assert viewer_format.predicted(plain)[16:] == plain[16:]


def test_every_entry_of_every_kind_of_record_can_be_read(record, checkpoint, small, photo):
    both = layerscope.compare(small, small, photo)
    for one in (record, both, layerscope.weights(checkpoint)):
        index = viewer_format.index(one)
        for row, found in zip(index["layers"], one.values(), strict=True):
            block = read(viewer_format.block(found, 0))
            maps = row["maps"][0] if row["maps"] else {"c": row["channels"], "h": 0, "w": 0}
            assert block["shape"] == (maps["c"], maps["h"], maps["w"])


def test_slices_of_a_kernel_have_the_statistics_of_their_kernel(checkpoint):
    kernels = layerscope.weights(checkpoint)["0.weight"]
    found = read(viewer_format.block(kernels, 0))
    assert found["shape"] == (24, 5, 5)
    assert np.array_equal(found["mean"].reshape(8, 3), kernels.columns.mean.astype(np.float32)[:, None].repeat(3, 1))


def test_a_matrix_has_the_statistics_of_the_whole(checkpoint):
    matrix = layerscope.weights(checkpoint)["4.weight"]
    found = read(viewer_format.block(matrix, 0))
    assert found["shape"] == (1, 5, 144)
    assert found["mean"][0] == np.float32(matrix.total.mean)


def test_statistics_alone_where_there_are_no_maps():
    found = read(viewer_format.block(entry(3), 5))
    assert found["shape"] == (3, 0, 0)
    assert found["zeros"].tolist() == [0, 1, 2]
    assert read(viewer_format.block(entry(3), 0, maps=False))["shape"] == (3, 0, 0)
    assert read(viewer_format.block(entry(columns=None, maps=[]), 0))["shape"] == (0, 0, 0)


def test_counts_beyond_32_bits_stop_at_the_greatest():
    many = columns(2)._replace(zeros=np.array([1 << 40, 7]))
    assert read(viewer_format.block(entry(columns=many), 0))["zeros"].tolist() == [0xFFFFFFFF, 7]


def test_pictures_are_png_of_the_same_pixels(record):
    image = Image.open(io.BytesIO(viewer_format.picture_of(record, 1)))
    assert image.format == "PNG"
    assert np.array_equal(np.asarray(image), record.pictures[1].pixels)


@pytest.mark.parametrize("channels", [5, 0])
def test_statistics_of_other_channels_than_the_maps_are_refused(channels):
    """Loading a record checks all else: the sizes of its arrays, and the types of what it says."""
    with pytest.raises(RecordError, match="layer: the record contradicts itself"):
        viewer_format.block(entry(channels), 0)
