"""Images of every kind that lies around become upright 8-bit RGB, or one clear line."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.errors import ImageError
from layerscope.images.files import find_images, open_image, read_idx, scan
from layerscope.surveying.sources import open_source
from layerscope.training.data import find_examples
from tests.conftest import picture


def test_gray_palette_and_cmyk(tmp_path):
    for mode in ("L", "P", "CMYK", "1", "YCbCr", "RGBX"):
        path = tmp_path / f"{mode}.tiff"
        Image.new("RGB", (5, 4), (200, 30, 30)).convert(mode).save(path)
        image = open_image(path)
        assert (image.mode, image.size) == ("RGB", (5, 4))
    red, green, _ = open_image(tmp_path / "CMYK.tiff").getpixel((0, 0))
    assert red > 150 > green


def test_transparency_lies_on_white_not_on_the_hidden_colour(tmp_path):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (10, 20, 30)]


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert [opened.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_rotation_in_the_metadata_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter: what was left is on top
    image.save(tmp_path / "a.jpg", exif=exif)
    opened = open_image(tmp_path / "a.jpg")
    assert opened.size == (20, 40)
    assert opened.getpixel((10, 2))[0] < 50 < 200 < opened.getpixel((10, 38))[0]


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def test_every_bad_file_is_one_line_with_its_name(tmp_path):
    whole = picture(tmp_path / "whole.jpg", 200, 200)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder").mkdir()
    said = {
        "cut.jpg": "cut off",
        "empty.png": "empty",
        "text.png": "not an image",
        "no.png": "no such",
        "folder": "folder",
    }
    for name, words in said.items():
        with pytest.raises(ImageError) as error:
            open_image(tmp_path / name)
        assert words in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    # A PNG header that claims 40,000 x 40,000 pixels.
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    import zlib

    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ImageError, match="178 million"):
        open_image(tmp_path / "bomb.png")


def test_a_folder_stands_for_its_images(tmp_path):
    for name in ("b.png", "a.png"):
        picture(tmp_path / "set" / name if (tmp_path / "set").is_dir() else tmp_path / name, 4, 4)
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in find_images([tmp_path])] == ["a.png", "b.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="no image in this folder"):
        find_images([tmp_path / "none"])


def test_every_command_finds_the_same_images_in_a_folder(tmp_path):
    """However deep they lie: of a class, `train` once left out what was not right in its folder."""
    for name in ("b/2.png", "b/10.png", "a/x.png", "a/deep/er/y.PNG", "a/deep/.hidden/z.png", ".git/x.png", "b/.z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    source = open_source(tmp_path)
    names = ["a/x.png", "a/deep/er/y.PNG", "b/2.png", "b/10.png"]
    assert [source.name(number) for number in range(len(source))] == names
    assert (source.classes, [source.label(number) for number in range(4)]) == (["a", "b"], [0, 0, 1, 1])
    assert find_images([tmp_path]) == sorted(tmp_path / name for name in names)
    examples = find_examples(tmp_path, 0, 0.5, None)
    assert (examples.classes, examples.targets.tolist()) == (["a", "b"], [0, 0, 1, 1])
    assert sorted(examples.sources) == sorted(tmp_path / name for name in names)


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    whole = os.scandir

    def refuse(path):
        if os.fsdecode(path).endswith("a"):
            raise PermissionError(13, "Permission denied", path)
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match=r"a: cannot be read \(Permission denied\); check its permissions"):
        scan(tmp_path)


def test_idx(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + values.tobytes()
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    for name in ("a", "a.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), values)
    (tmp_path / "cut").write_bytes(data[:-1])
    (tmp_path / "other").write_bytes(b"\x00\x01\x0d\x01" + data)
    for name in ("cut", "other", "none"):
        with pytest.raises(ImageError, match=name):
            read_idx(tmp_path / name)


def test_which_files_of_a_folder_are_images(tmp_path):
    """The same for every command: what is read by name is found, and hidden files are not."""
    for name in ("a.png", "b.JP2", "c.tga", "d.avif"):
        Image.new("RGB", (40, 40)).save(tmp_path / name, format={".JP2": "JPEG2000"}.get(Path(name).suffix))
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")  # macOS leaves these
    (tmp_path / "notes.txt").write_text("none")
    found = ["a.png", "b.JP2", "c.tga", "d.avif"]
    assert [path.name for path in find_images([tmp_path])] == found
    source = open_source(tmp_path)
    assert [source.name(number) for number in range(len(source))] == found
    assert len(open_source(tmp_path / "b.JP2")) == 1


def test_what_is_wrong_is_said_as_what_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    for error, said in ((PermissionError(13, "no"), "check its permissions"), (MemoryError(), "not enough memory")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(ImageError, match=said):
            open_image(path)
