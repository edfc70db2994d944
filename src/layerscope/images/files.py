"""Image files, of whatever kind, as upright 8-bit RGB; idx files; folders."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from layerscope.errors import ImageError

__all__ = [
    "find_idx", "find_images", "idx_pairs", "image_named", "is_split", "natural", "open_image",
    "read_idx", "scan", "upright",
]  # fmt: skip

_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm",
    ".pnm", ".jp2", ".j2k", ".avif", ".ico", ".tga",
}  # fmt: skip

#: what Pillow calls the kinds that are read. It knows more, and runs Ghostscript, a program, on one of them (EPS).
_KINDS = {
    "JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "TGA",
}  # fmt: skip
#: an idx file may unpack to 64 times its size and this: beyond, it is a bomb
_SPARE_BYTES = 64 << 20
_STRIP = 256  # rows
_DIGITS = re.compile(rb"\d+")
_IDX = re.compile(r"(.*)images[-.]idx3-ubyte(\.gz)?")

_FASHION = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit and float gray to 8 bits over the range of the type, not cut off at 255 as Pillow does."""
    values = np.asarray(image)
    top = 65535.0 if image.mode.startswith("I") else 1.0 if np.nanmax(values, initial=0.0) <= 1 else 255.0
    codes = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _STRIP):  # as float64 a whole image is eight times as large
        strip = values[row : row + _STRIP].astype(np.float64) / top * 255
        scaled = np.nan_to_num(strip, nan=0.0, posinf=255.0, neginf=0.0)
        codes[row : row + _STRIP] = np.rint(np.clip(scaled, 0, 255))
    return Image.fromarray(codes)


def upright(image: Image.Image) -> Image.Image:
    """Any image as upright 8-bit RGB, transparency laid on white, 16 bits scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # What is transparent has a colour all the same, often black: show it as a page would.
        rgba = image.convert("RGBA")
        page = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(page, rgba).convert("RGB")
    return image.convert("RGB")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The first frame of an image file as upright RGB, transparency laid on white, 16 bits scaled to 8.

    Raises ImageError for what is missing, broken, cut off or larger than 178 megapixels.
    """
    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of half the size that it refuses, and of odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(name) as image:
                if image.format not in _KINDS:
                    raise ImageError(f"{name}: is {image.format}, which is not read; save it as PNG or JPEG")
                image.load()
                return upright(image)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such image; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: is a folder; name an image file in it") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more than 178 million pixels; make it smaller") from error
    except UnidentifiedImageError as error:
        size = Path(name).stat().st_size
        what = "is empty" if size == 0 else f"is not an image that Pillow knows ({size} bytes)"
        raise ImageError(f"{name}: {what}; give a JPEG, PNG, WebP, TIFF, BMP or GIF") from error
    except PermissionError as error:
        raise ImageError(f"{name}: may not be read; check its permissions") from error
    except MemoryError as error:
        raise ImageError(f"{name}: there is not enough memory for it; make it smaller") from error
    except (OSError, ValueError, SyntaxError, struct.error, EOFError) as error:
        raise ImageError(f"{name}: broken or cut off ({error}); fetch or save the image again") from error


def image_named(name: str) -> bool:
    """Whether a file in a folder is taken for an image by its name; hidden ones, such as macOS's ._a.png, are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES  # noqa: PTH122


def scan(folder: str | os.PathLike[str]) -> tuple[list[bytes], list[int], list[str]]:
    """Every image in a folder and below it: its path below the folder, its class (-1 for none), and the classes.

    A class is a folder right below that holds an image, however deep. In natural order, image2 before image10, whatever
    the file system says; hidden files and folders are left out. Raises ImageError for a folder that cannot be read.
    """
    root, separator = os.path.join(os.fsencode(folder), b""), os.fsencode(os.sep)  # noqa: PTH118 - bytes
    paths: list[bytes] = []
    for here, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        visible = (name for name in folders if not name.startswith(b".") and not _leads_back(here, name))
        folders[:] = sorted(visible, key=natural)
        images = sorted((name for name in files if image_named(os.fsdecode(name))), key=natural)
        below = os.path.join(here, b"")[len(root) :].replace(separator, b"/")  # noqa: PTH118
        paths.extend(below + name for name in images)
    inside = [path.partition(b"/")[0] if b"/" in path else b"" for path in paths]
    classes = {name: number for number, name in enumerate(dict.fromkeys(filter(None, inside)))}
    return paths, [classes.get(name, -1) for name in inside], [name.decode("utf-8", "replace") for name in classes]


def _refuse(error: OSError) -> None:
    name = os.fsdecode(error.filename)
    raise ImageError(f"{name}: cannot be read ({error.strerror}); check its permissions") from error


def _leads_back(here: bytes, name: bytes) -> bool:
    """Whether a folder is a link to one above: it would be followed for ever."""
    target = os.path.realpath(os.path.join(here, name))  # noqa: PTH118 - bytes
    return os.path.join(os.path.realpath(here), b"").startswith(os.path.join(target, b""))  # noqa: PTH118


def is_split(folder: Path) -> bool:
    """Whether the images are split already: folders of that name are the parts of a data set, not classes."""
    return all((folder / name).is_dir() for name in ("train", "val"))


def natural(name: bytes) -> tuple[bytes, bytes]:
    """Sorts image2 before image10."""
    return _DIGITS.sub(lambda run: run[0].lstrip(b"0").rjust(20, b"0"), name), name


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files named by `paths`; a folder stands for the images in it and below it, sorted by name.

    Raises ImageError for a folder without images. Missing files are found out when they are opened.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path / os.fsdecode(name) for name in scan(path)[0])
        if not inside:
            raise ImageError(f"{path}: no image in this folder nor below it; name image files, or a folder with some")
        found.extend(inside)
    return found


def find_idx(path: Path) -> list[tuple[Path, Path | None]]:
    """Files of pictures in MNIST's format, each with that of its labels if there is one: of a folder, or one by name.

    Those to train on come first.
    """
    inside = (file for file in (path.iterdir() if path.is_dir() else [path]) if _IDX.fullmatch(file.name))
    files = sorted(inside, key=lambda file: (not file.name.startswith("train"), file.name))
    return [(file, _labels_of(file)) for file in files]


def _labels_of(pictures: Path) -> Path | None:
    beside = pictures.with_name(pictures.name.replace("images", "labels").replace("idx3", "idx1"))
    packed_or_not = (beside, beside.with_name(f"{beside.name}.gz"), beside.with_suffix(""))
    return next((file for file in packed_or_not if file.is_file()), None)


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes (MNIST's format, gzip or plain): (N, ...) as its header says.

    Format: Y. LeCun, "The MNIST database": two zero bytes, type 8, number of axes, each length as big-endian uint32.
    Raises ImageError when header and size disagree.
    """
    name = os.fspath(path)
    try:
        raw = Path(name).read_bytes()
        data = _unpacked(raw) if raw[:2] == b"\x1f\x8b" else raw
        zero, kind, axes = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
        if zero or kind != 8:
            raise ImageError(f"{name}: is not an idx file of unsigned bytes; give MNIST's or Fashion-MNIST's files")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file; check the path") from error
    except (OSError, ValueError, struct.error, EOFError, zlib.error, MemoryError) as error:
        raise ImageError(f"{name}: broken idx file ({error}); fetch it again") from error


def _unpacked(raw: bytes) -> bytes:
    most = 64 * len(raw) + _SPARE_BYTES
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{len(raw)} bytes unpack to more than {most}, as a zip bomb does")
    return data


def idx_pairs(images: Path, labels: Path) -> tuple[list[str], NDArray[np.uint8], NDArray[np.int64]]:
    """Classes, pictures (N, h, w) and their classes (N,) of two idx files that belong together.

    The classes are digits, or Fashion-MNIST's names where a folder of the path is called so. Raises ImageError.
    """
    pictures, targets = read_idx(images), read_idx(labels).astype(np.int64)
    if pictures.ndim != 3 or targets.shape != pictures.shape[:1]:
        raise ImageError(
            f"{images}: {pictures.shape} pictures and {targets.shape} labels do not belong together; fetch both again"
        )
    if "fashion" in str(images.parent.resolve()).lower() and targets.max(initial=0) < len(_FASHION):
        return _FASHION, pictures, targets
    return [str(digit) for digit in range(max(10, int(targets.max(initial=0)) + 1))], pictures, targets
