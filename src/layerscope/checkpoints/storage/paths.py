"""File names that a checkpoint gives: only such that stay in its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from .errors import Damage, show

__all__ = ["inside"]


def inside(folder: Path, name: object) -> Path:
    """The file `name` below `folder`; Damage if it would lie elsewhere, also by way of a symbolic link."""
    if isinstance(name, str) and name and "\\" not in name and "\0" not in name and ":" not in name:
        parts = PurePosixPath(name)
        path = folder / parts
        if not parts.is_absolute() and ".." not in parts.parts and _is_below(path, folder):
            return path
    raise Damage(f"refers to {show(name)}, which is no file of its own folder", "do not trust this checkpoint")


def _is_below(path: Path, folder: Path) -> bool:
    # A link out of the folder reads any file of the machine; only the Hugging Face cache has a use for it.
    store = folder.resolve()
    return path.resolve().is_relative_to(store) or _in_cache(path, store)


def _in_cache(path: Path, store: Path) -> bool:
    """Whether `path` is a link of the Hugging Face cache: snapshots/REVISION/file -> ../../blobs/HASH."""
    return store.parent.name == "snapshots" and path.resolve().parent == store.parent.parent / "blobs"
