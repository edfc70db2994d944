"""Files that are no checkpoint, though they are called so: what they are, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from .errors import Damage, show

__all__ = ["refuse", "refuse_path"]

_AGAIN = "download the file itself, not the page about it"
_BEGINNINGS = (
    (b"version https://git-lfs", "is a git-lfs pointer, not the file", "run `git lfs pull` in its repository"),
    (b"<!doctype html", "is a web page (HTML)", _AGAIN),
    (b"<html", "is a web page (HTML)", _AGAIN),
    (b"<?xml", "is an XML document, perhaps a download's error message", _AGAIN),
    (b"\xff\xd8\xff", "is a JPEG image", "give a checkpoint; for images there is `layerscope features`"),
    (b"\x89png", "is a PNG image", "give a checkpoint; for images there is `layerscope features`"),
    (b"gif8", "is a GIF image", "give a checkpoint; for images there is `layerscope features`"),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (b"\xfd7zxz", "is compressed with xz", "unpack it with xz -d"),
    (b"bzh", "is compressed with bzip2", "unpack it with bunzip2"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it with zstd -d"),
    (b"7z\xbc\xaf", "is a 7z archive", "unpack it"),
    (b"%pdf", "is a PDF document", "give a checkpoint"),
    (b"\x93numpy", "is a single numpy array", "give a checkpoint, or save the array in a state dict"),
    (b"\x7felf", "is a program", "give a checkpoint"),
    (b"pk\x05\x06", "is an empty zip archive", "save the checkpoint again"),
)
#: of PyTorch's tar files, which nothing has written since 2017
_OLD_TAR = ("sys_info", "pickle", "storages", "tensors")
_MAX_LISTED = 5
_SUFFIXES = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".tar", ".pkl", ".safetensors", ".onnx", ".gguf", ".h5", ".keras")


def refuse(head: bytes) -> Damage:
    """Why the file that begins with `head` is none that a reader knows."""
    if not head:
        return Damage("is empty", "get the file again from where it came from")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what, step in _BEGINNINGS:
        if start.startswith(beginning):
            return Damage(what, step)
    if head[257:262] == b"ustar":
        first = head[:100].split(b"\0")[0].decode("utf-8", "replace").removeprefix("./")
        if first in _OLD_TAR:
            return Damage(
                "is in the tar format that PyTorch wrote before version 0.1.10",
                "if you trust it, run torch.save(torch.load(OLD, weights_only=False), NEW) and give NEW",
            )
        return Damage(f"is a tar archive that begins with {show(first)}", "unpack it and give the checkpoint inside")
    if not head.strip(b"\0"):
        return Damage("begins with zeros only, as a file that was never fully written", "get it again")
    step = "give a file of torch.save, safetensors, ONNX, GGUF or Keras"
    try:
        # The head may end within a character.
        text = head.decode("utf-8", "strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if all(c.isprintable() or c.isspace() for c in text):
        return Damage(f"is text ({show(text.strip()[:40], 60)}), not a checkpoint", step)
    return Damage(f"begins with the bytes {head[:8].hex(' ')}, as no known format does", step)


def refuse_path(path: Path) -> Damage | None:
    """Why there is no file to open at `path`, None if there is one."""
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.suffix.lower() in _SUFFIXES)
        listed = ", ".join(show(name, 60) for name in names[:_MAX_LISTED]) or "a file, not a folder"
        return Damage("is a folder without a *.index.json", f"give {listed}")
    if not path.exists():
        return Damage("does not exist", "check the name")
    return None if path.is_file() else Damage("is no regular file", "copy its content into a file first")
