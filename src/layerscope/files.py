"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from layerscope.errors import writing

__all__ = ["save", "version", "written_over"]


def version(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Which file a path names, its size and when it was written last; () where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def written_over(path: str | os.PathLike[str], before: tuple[int, ...]) -> bool:
    """Whether another program has written into the file since it had that version; what is mapped of it has changed.

    Another file of that name is no matter, nor none: what is mapped is the one that was opened.
    """
    now = version(path)
    return bool(now) and now[:2] == before[:2] and now != before


def save(data: bytes, path: Path) -> Path:
    """Write a file whole or not at all, and its folder if need be. Raises OutputError.

    A link stays, and what it points to is written. A pipe or a device, such as /dev/stdout, is written into.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # nothing may take the place of /dev/null
            return path
        target = path.resolve() if path.is_symlink() else path
        # A name of its own: two programs may write the same file, and a long name has no room for more.
        half = target.with_name(f".layerscope-{os.getpid()}-{secrets.token_hex(4)}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            half.write_bytes(data)
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)
    return path
