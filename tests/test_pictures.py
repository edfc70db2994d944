"""PNG pictures: decoded pixels against what the record says."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import layerscope
from layerscope.records.maps import Maps, colormap, columns_for, levels, mosaic
from layerscope.records.record import Entry, Picture, Record
from layerscope.records.sites import Site
from layerscope.stats import Columns
from layerscope.tensors import kernel_maps
from layerscope.views import png
from layerscope.views.sheet import STEPS, Ink, Sheet


def columns(count: int, zeros: list[int] | None = None) -> Columns:
    blank = np.zeros(count)
    none = np.zeros(count, np.int64)
    return Columns(none + 4, blank, blank, blank, blank, np.array(zeros or none), none, none)


def record(codes: np.ndarray, lo: list[float], hi: list[float], zeros: list[int] | None = None) -> Record:
    made = Record("features", "net", pictures=[Picture("a.png", np.zeros((2, 2, 3), np.uint8))])
    maps = Maps(np.array(lo, np.float32), np.array(hi, np.float32), codes.shape, codes)
    shape = (1, *codes.shape)
    made.add(
        Entry(Site("conv", 0, "NCHW"), "Conv2d", shape, "float32", columns(len(codes), zeros), columns(1), maps=[maps])
    )
    return made


def pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def has(picture: np.ndarray, color: np.ndarray) -> bool:
    return bool((picture == color).all(2).any())


def test_a_mosaic_shows_the_codes_through_the_colour_table():
    codes = np.zeros((2, 4, 4), np.uint8)
    codes[0, 0, 0], codes[1, 3, 3] = 254, 127
    picture = pixels(png.feature_mosaic(record(codes, [0, 0], [1, 1]), record(codes, [0, 0], [1, 1])["conv"]))
    table = colormap("viridis", STEPS)
    top = np.argwhere((picture == table[-1]).all(2))
    tile = top[(top[:, 0] < picture.shape[0] - 60)]  # above the scale bar
    height, width = np.ptp(tile, axis=0) + 1
    assert (height, width) == (32, 32)  # 4 x 4 grown to 128 x 128
    middle = table[round(127 / 254 * (STEPS - 1))]
    assert has(picture, middle)


def test_range_of_channel_layer_and_network():
    codes = np.full((2, 3, 3), 254, np.uint8)
    maps = record(codes, [0, 0], [1, 4])["conv"].maps[0]
    assert levels(maps, maps.lo, maps.hi, 101)[:, 254].tolist() == [100, 100]
    assert levels(maps, *maps.span(), 101)[:, 254].tolist() == [25, 100]
    assert levels(maps, 0, 8, 101)[:, 254].tolist() == [12, 50]
    assert levels(maps, 0, 8, 101)[:, 0].tolist() == [0, 0]
    below = record(codes, [-2, 0], [2, 4])["conv"].maps[0]
    assert levels(below, -4, 4, 101)[:, 0].tolist() == [25, 50]
    assert levels(below, 0, 4, 101)[:, 0].tolist() == [0, 0]


def test_what_is_not_finite_is_hatched_never_a_colour():
    codes = np.full((1, 8, 8), 255, np.uint8)
    made = record(codes, [float("nan")], [float("nan")])
    image = Image.open(io.BytesIO(png.feature_mosaic(made, made["conv"])))
    indices = np.asarray(image)
    assert (indices == Ink.HATCH_A).sum() > 1000 and (indices == Ink.HATCH_B).sum() > 1000


def test_dead_channels_are_framed():
    codes = np.zeros((3, 8, 8), np.uint8)
    accent = np.array([255, 176, 59])
    alive = record(codes, [0] * 3, [0] * 3)
    dead = record(codes, [0] * 3, [0] * 3, zeros=[0, 4, 0])
    assert dead["conv"].dead == [1]
    assert not has(pixels(png.feature_mosaic(alive, alive["conv"])), accent)
    drawn = pixels(png.feature_mosaic(dead, dead["conv"]))
    assert (drawn == accent).all(2).sum() >= 4 * 128  # the frame around a tile, and not only its label


def test_twelve_channels_or_all():
    codes = np.zeros((40, 8, 8), np.uint8)
    made = record(codes, [0] * 40, [1] * 40)
    some, every = (pixels(png.feature_mosaic(made, made["conv"], channels=n)) for n in (12, None))
    assert every.size > some.size / 3
    tiles, _ = png.feature_tiles(made["conv"].maps[0], set(), "channel", (0, 0), channels=12)
    assert tiles.shape[0] < some.shape[0]


def test_mosaic_lays_tiles_in_rows():
    tiles = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((5, 2, 3), np.uint8)
    sheet = mosaic(tiles, 3, 1, 0)
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert sheet[0].tolist() == [1, 1, 1, 0, 2, 2, 2, 0, 3, 3, 3]
    assert sheet[3].tolist() == [4, 4, 4, 0, 5, 5, 5, 0, 0, 0, 0]
    assert sheet[2].tolist() == [0] * 11


@pytest.mark.parametrize("count", [1, 2, 12, 13, 2048])
def test_columns_hold_every_tile(count):
    columns = columns_for(count, 7, 7)
    assert 1 <= columns <= count


def test_viridis_is_matplotlibs():
    colormaps = pytest.importorskip("matplotlib").colormaps
    want = np.array(colormaps["viridis"].colors) * 255
    assert np.abs(colormap("viridis", 256) - want).max() <= 2.5
    assert colormap("gray", 256)[:, 0].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("shape", "tiles", "note"),
    [
        ((8, 3, 5, 5), (24, 5, 5), "one RGB tile a kernel"),
        ((8, 1, 3, 3), (8, 3, 3), "one tile a kernel"),
        ((8, 4, 3, 3), (32, 3, 3), "one row a kernel, one tile an input channel"),
        ((64, 128, 3, 3), (64, 3, 3), "mean over its 128 input channels"),
        ((8, 4, 1, 1), (1, 8, 4), "as a matrix"),
        ((10, 20), (1, 10, 20), "as a matrix"),
        ((1100, 20), (1, 367, 7), "every 3th row"),
        ((6, 4, 9), (6, 4, 9), "rows are input channels"),
        ((2, 4, 3, 3, 3), (8, 9, 3), "one tile an input channel"),
    ],
)
def test_how_kernels_are_shown(shape, tiles, note):
    from layerscope.tensors import layout_of

    maps, said = kernel_maps(np.random.default_rng(0).normal(size=shape), "float64", layout_of("a.weight", shape))
    assert maps.shape == tiles
    assert note in said


def test_vectors_and_empty_tensors_have_no_kernel_picture():
    assert kernel_maps(np.zeros(4), "float64", "C")[0] is None
    assert kernel_maps(np.zeros((0, 3, 3, 3)), "float64", "OIHW")[0] is None


def test_weights_writes_a_histogram_and_a_kernel_picture_a_tensor(run, checkpoint, tmp_path):
    ran = run("weights", checkpoint, "--out", "out")
    assert ran.code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "0.weight.histogram.png" in names and "0.weight.kernels.png" in names
    assert "1.running_var.histogram.png" in names and "1.num_batches_tracked.histogram.png" not in names
    assert f"{len(names)} pictures in out" in ran.err
    for name in names:
        assert pixels((tmp_path / "out" / name).read_bytes()).std() > 1


def test_features_writes_a_mosaic_a_layer_and_image(run, code, tmp_path, photo):
    ran = run("features", f"{code}:small", photo, "--size", 32, "--out", "one", "--channels", "all", "--cmap", "gray")
    assert ran.code == 0
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"stem.features.png", "block.relu.features.png", "block.relu-1.features.png"} <= names
    colors = pixels((tmp_path / "one" / "stem.features.png").read_bytes())
    tile = colors[120:160, 40:80]
    assert (np.ptp(tile.astype(int), axis=2) == 0).all()
    assert run("features", f"{code}:small", photo, photo, "--size", 32, "--out", "two", "--range", "network").code == 0
    assert len(list((tmp_path / "two").iterdir())) == 2 * len(names)


def test_names_of_tensors_cannot_leave_the_folder(run, tmp_path):
    state = {"../../evil": torch.ones(3), "a/b.weight": torch.randn(2, 3), "": torch.ones(2), "x" * 400: torch.ones(2)}
    torch.save(state | {"A.weight": torch.randn(3, 3), "a.weight": torch.randn(3, 3)}, tmp_path / "a.pth")
    assert run("weights", "a.pth", "--out", "deep/out").code == 0
    written = list(tmp_path.rglob("*.png"))
    assert {path.parent for path in written} == {tmp_path / "deep" / "out"}
    assert len({path.name.lower() for path in written}) == len(written) == 6 + 3


def test_text_is_cut_to_its_room():
    sheet = Sheet(40, 300, "gray")
    assert sheet.text(0, 0, "a long name of a layer" * 20, 14, room=100) <= 102
    assert (sheet.pixels[:, 105:] == sheet.pixels[-1, -1]).all()


def test_a_saved_record_draws_the_same_pictures(small, tmp_path):
    made = layerscope.features(small, torch.randn(1, 3, 16, 16))
    made.save(tmp_path / "a.layerscope")
    again = layerscope.load(tmp_path / "a.layerscope")
    for entry in made.values():
        assert png.feature_mosaic(made, entry) == png.feature_mosaic(again, again[entry.key])
