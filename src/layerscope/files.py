"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from layerscope.errors import writing

__all__ = ["save"]


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
