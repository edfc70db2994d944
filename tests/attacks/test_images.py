"""A broken or crafted image: one line or a picture, in bounded memory, and no program is run."""

from __future__ import annotations

import gzip
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerscope.errors import ImageError
from layerscope.images.files import open_image, read_idx
from tests.attacks.measuring import peak
from tests.attacks.pictures import samples

SAMPLES = samples()


def survives(path: Path, idx: bool) -> None:
    try:
        found = read_idx(path) if idx else open_image(path)
        assert idx or found.mode == "RGB"
    except ImageError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_images(tmp_path, name):
    (tmp_path / "x").write_bytes(SAMPLES[name])
    if name.startswith("idx"):
        assert read_idx(tmp_path / "x").size
    else:
        assert open_image(tmp_path / "x").size in ((24, 18), (18, 24))


@pytest.mark.parametrize("name", SAMPLES)
def test_broken_at_random(tmp_path, name, capfd):
    path = tmp_path / "x"
    for seed in range(12):
        choice, data = random.Random(seed), bytearray(SAMPLES[name])
        for _ in range(choice.randrange(1, 4)):
            at = choice.randrange(len(data)) if choice.random() < 0.5 else choice.randrange(min(60, len(data)))
            data[at : at + 4] = choice.choice([b"\xff" * 4, b"", b"\0" * 4, b"\x7f\xff\xff\xff", choice.randbytes(2)])
        path.write_bytes(data or b"x")
        survives(path, name.startswith("idx"))
    for size in range(0, len(SAMPLES[name]), max(1, len(SAMPLES[name]) // 12)):
        path.write_bytes(SAMPLES[name][:size])
        survives(path, name.startswith("idx"))


def test_what_gzip_cannot_unpack_is_one_line(tmp_path):
    data = bytearray(gzip.compress(bytes(range(200)), mtime=0))
    data[12:16] = b"\xff\xff\xff\xff"
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ImageError, match="broken idx file"):
        read_idx(tmp_path / "x")


def test_an_idx_file_that_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("layerscope.images.files._SPARE_BYTES", 1 << 20)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 20_000_000) + bytes(20_000_000), mtime=0))

    def refused() -> None:
        with pytest.raises(ImageError, match="bomb"):
            read_idx(path)

    assert peak(refused) < 8 * (64 * path.stat().st_size + (1 << 20))


@pytest.mark.parametrize("head", [">HBBII", ">HBB255I"])
def test_an_idx_file_that_says_it_is_large(tmp_path, head):
    count = struct.calcsize(head) // 4 - 1
    (tmp_path / "x").write_bytes(struct.pack(head, 0, 8, count, *[2**32 - 1] * count))
    with pytest.raises(ImageError, match="broken idx file"):
        read_idx(tmp_path / "x")


def test_a_png_that_says_it_is_large(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )

    def refused() -> None:
        with pytest.raises(ImageError, match="178 million pixels"):
            open_image(path)

    assert peak(refused) < 1_000_000


def test_sixteen_bits_take_no_more_than_a_few_times_their_size(tmp_path):
    """As float64, five copies of it, a 16-bit image of a small file took 7 GB."""
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((3000, 3000), np.uint16)).save(path)
    assert peak(lambda: open_image(path)) < 3000 * 3000 * 6


def test_no_program_is_run_on_a_file(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript; a file is an EPS by its content, whatever its name says."""
    ghost = tmp_path / "gs"
    ghost.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    ghost.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "x.jpg"
    Image.new("RGB", (9, 9)).save(path, "EPS")
    with pytest.raises(ImageError, match="is EPS, which is not read"):
        open_image(path)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "name", ["n\nn.png", "\x1b[2J.png", "\u202egnp.png", "x" * 255, "\udcff.png", "x" * 300, "a\0b"]
)
def test_names_of_images_that_are_not_there(run, code, name):
    ran = run("features", f"{code}:small", name)
    assert ran.code == 1
    assert ran.line.isprintable()


def test_other_files_that_are_none(tmp_path):
    for path in ("/dev/null", tmp_path):
        with pytest.raises(ImageError):
            open_image(path)
