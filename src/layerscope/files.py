"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from layerscope.errors import writing

__all__ = ["save"]


def save(data: bytes, path: Path) -> Path:
    """Write a file whole or not at all, and its folder if need be. Raises OutputError."""
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            half.write_bytes(data)
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)
    return path
