"""Small image files of every kind, to be broken."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
from PIL import Image

__all__ = ["samples"]


def samples() -> dict[str, bytes]:
    """name -> bytes; those that begin with `idx` are idx files."""
    rows, cols = np.mgrid[0:18, 0:24]
    rgb = np.stack([rows * 13, cols * 9, (rows * cols) % 256], 2).astype(np.uint8)
    image = Image.fromarray(rgb)
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.fromarray((rows * 14).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    given = {
        "plain.jpg": (image, "JPEG", {}),
        "progressive.jpg": (image, "JPEG", {"progressive": True, "exif": exif, "icc_profile": b"x" * 64}),
        "cmyk.jpg": (image.convert("CMYK"), "JPEG", {}),
        "rgb.png": (image, "PNG", {}),
        "rgba.png": (alpha, "PNG", {}),
        "palette.png": (image.convert("P"), "PNG", {"transparency": 3}),
        "gray16.png": (Image.fromarray((rows * 3000).astype(np.uint16)), "PNG", {}),
        "bits.png": (image.convert("1"), "PNG", {}),
        "moving.png": (image, "PNG", {"save_all": True, "append_images": [image.rotate(90)]}),
        "lossy.webp": (image, "WEBP", {"exif": exif}),
        "lossless.webp": (alpha, "WEBP", {"lossless": True}),
        "moving.webp": (image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
        "plain.tif": (image, "TIFF", {}),
        "lzw.tif": (image, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (image, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "float.tif": (Image.fromarray((rows / 18).astype(np.float32)), "TIFF", {}),
        "int.tif": (Image.fromarray((rows * 70000).astype(np.int32)), "TIFF", {}),
        "plain.gif": (image.convert("P"), "GIF", {}),
        "moving.gif": (image.convert("P"), "GIF", {"save_all": True, "append_images": [image.convert("P").rotate(9)]}),
        "plain.bmp": (image, "BMP", {}),
        "palette.bmp": (image.convert("P"), "BMP", {}),
        "plain.ppm": (image, "PPM", {}),
        "gray.pgm": (image.convert("L"), "PPM", {}),
    }
    found = {}
    for name, (one, kind, options) in given.items():
        buffer = io.BytesIO()
        one.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    idx = struct.pack(">HBBIII", 0, 8, 3, 2, 5, 4) + bytes(range(40))
    return found | {"idx": idx, "idx.gz": gzip.compress(idx, mtime=0), "idx-labels": idx[:3] + b"\1\0\0\0\2\3\4"}
