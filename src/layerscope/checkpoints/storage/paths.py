"""File names inside a checkpoint: only such that stay in its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from .errors import Damage, show

__all__ = ["inside"]


def inside(folder: Path, name: object) -> Path:
    """The file `name` below `folder`; Damage if it would lie elsewhere, also by way of a symbolic link."""
    if isinstance(name, str) and name and not set(name) & {"\\", "\0", ":"}:
        parts = PurePosixPath(name)
        if not parts.is_absolute() and ".." not in parts.parts:
            file, store = (folder / parts).resolve(), folder.resolve()
            # A link out of the folder reads any file of the machine; only the Hugging Face cache has a use for it:
            # snapshots/REVISION/file -> ../../blobs/HASH.
            cached = store.parent.name == "snapshots" and file.parent == store.parent.parent / "blobs"
            if file.is_relative_to(store) or cached:
                return folder / parts
    raise Damage(f"refers to {show(name)}, which is no file of its own folder", "do not trust this checkpoint")
