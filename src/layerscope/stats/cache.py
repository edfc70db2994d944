"""Where the kernels' machine code is kept, and which file is believed."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["load", "store"]

_MAGIC = b"layerscope kernels 1\n"


def load(key: bytes) -> bytes | None:
    """The code kept under that key; None unless every byte is as it was written, and by whom one trusts."""
    head = len(_MAGIC) + 2 * hashlib.sha256().digest_size
    for folder in _folders():
        with suppress(OSError), (folder / _name(key)).open("rb") as file:
            content = file.read()
            code = content[head:]
            if _trusted(os.fstat(file.fileno())) and content[:head] == _MAGIC + key + hashlib.sha256(code).digest():
                return code
    return None


def store(key: bytes, code: bytes) -> bytes:
    """Keep the code in the first folder that takes it, whole or not at all."""
    for folder in _folders():
        draft = folder / f"{_name(key)}.{os.urandom(4).hex()}"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
                file.write(_MAGIC + key + hashlib.sha256(code).digest() + code)
            draft.replace(folder / _name(key))
            break
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return code


def _folders() -> Iterator[Path]:
    """Where the file may be: beside the sources, in the user's cache, in a temporary folder."""
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home
        if sys.platform == "win32":
            yield Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "layerscope", "cache")
        elif sys.platform == "darwin":
            yield Path.home() / "Library" / "Caches" / "layerscope"
        else:
            yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "layerscope")
    yield Path(tempfile.gettempdir(), f"layerscope-{os.getuid()}" if hasattr(os, "getuid") else "layerscope")


def _name(key: bytes) -> str:
    return f"kernels-{key[:8].hex()}.bin"


def _trusted(status: os.stat_result) -> bool:
    """Whether nobody but the user or the administrator can have written the file."""
    if not hasattr(os, "getuid"):  # Windows: folders there belong to one user
        return True
    return status.st_uid in (0, os.getuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
