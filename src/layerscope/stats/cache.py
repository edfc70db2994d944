"""Where the kernels' machine code is kept, which file is believed, and who makes it: one process for all that wait."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from layerscope.text import printable

__all__ = ["SETTING", "Unkept", "fetch", "load", "say"]

#: names a folder that is tried before all others
SETTING = "LAYERSCOPE_CACHE"
#: a process that takes longer than this to compile is not waited for; that one waits is said after a while
WAIT_S, QUIET_S = 120.0, 10.0

_MAGIC = b"layerscope kernels 1\n"
_POLL_S = 0.05
_OWN = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
#: more bytes than the code has: a full disk is found out before ten seconds of work
_ROOM = bytes(1 << 17)
#: Windows locks bytes against writing, too: one behind all that is written
_LOCKED_BYTE = 1 << 20


class Unkept(Exception):
    """No folder takes the file; the message says why."""


def say(line: str) -> None:
    """One line on standard error, or wherever the program that uses this package sends its log."""
    logging.getLogger("layerscope").warning("layerscope: %s", printable(line))


def fetch(key: bytes, make: Callable[[str], bytes], anyway: bool = False) -> bytes:
    """The code under that key; where there is none one process makes it, and all that ask meanwhile wait for it.

    `make` is handed the line that says so. Raises Unkept where no folder takes the code, unless it is made `anyway`.
    """
    if (code := load(key)) is not None:
        return code
    try:
        folder, lock = _locked(key)
    except Unkept as error:
        if anyway:
            return make(f"compiling the kernels for this process alone, about 10 s: {error}")
        raise
    with lock:  # closing lets go of it, and so does the end of the process
        if (code := load(key)) is not None:  # made meanwhile
            return code
        try:
            code = make(f"compiling the kernels for this processor once, about 10 s; kept in {folder}")
            _store(folder, key, code)
        finally:
            with suppress(OSError):  # Windows deletes no file that is open
                Path(lock.name).unlink()
    return code


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


def _store(folder: Path, key: bytes, code: bytes) -> None:
    """Keep the code, whole or not at all."""
    draft = folder / f"{_name(key)}.{os.urandom(4).hex()}"
    try:
        with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
            file.write(_MAGIC + key + hashlib.sha256(code).digest() + code)
        draft.replace(folder / _name(key))
    except OSError as error:
        why = error.strerror or error
        say(f"the compiled kernels could not be kept in {folder} ({why}); set {SETTING}=FOLDER to another")
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _locked(key: bytes) -> tuple[Path, IO[bytes]]:
    """The first folder that takes the file, and a lock on the making of it there. Raises Unkept."""
    reasons = []
    for folder in _folders():
        file = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(  # noqa: SIM115 - the lock lives on
                folder / f"{_name(key)}.lock", "r+b", 0, opener=lambda path, flags: os.open(path, flags | _OWN, 0o600)
            )
            if file.write(_ROOM) < len(_ROOM):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if not _trusted(os.fstat(file.fileno())):
                raise PermissionError("other users can write its files")
            _wait(file)
            return folder, file
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
            if file is not None:
                file.close()
    raise Unkept(f"no folder keeps them ({', '.join(reasons)}); set {SETTING}=FOLDER to one that can be written to")


def _wait(file: IO[bytes]) -> None:
    """Take the lock. Raises TimeoutError."""
    start, announced = time.monotonic(), False
    while not _taken(file):
        waited = time.monotonic() - start
        if waited > WAIT_S:
            raise TimeoutError(f"another process has been compiling for more than {WAIT_S:g} s")
        if waited > QUIET_S and not announced:
            say("waiting for another process that compiles the kernels")
            announced = True
        time.sleep(_POLL_S)


def _taken(file: IO[bytes]) -> bool:
    """Whether the lock on the file is ours now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: two may compile, and each file is whole
        pass
    return True


def _folders() -> Iterator[Path]:
    """Where the file may be: where the user says, beside the sources, in the user's cache, in a temporary folder."""
    if chosen := os.environ.get(SETTING):
        yield Path(chosen)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home
        if sys.platform == "win32":
            yield Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "layerscope", "cache")
        elif sys.platform == "darwin":
            yield Path.home() / "Library" / "Caches" / "layerscope"
        else:
            yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "layerscope")
    with suppress(FileNotFoundError):  # no folder for temporary files
        yield Path(tempfile.gettempdir(), f"layerscope-{os.getuid()}" if hasattr(os, "getuid") else "layerscope")


def _name(key: bytes) -> str:
    return f"kernels-{key[:8].hex()}.bin"


def _trusted(status: os.stat_result) -> bool:
    """Whether nobody but the user or the administrator can have written the file."""
    if not hasattr(os, "getuid"):  # Windows: folders there belong to one user
        return True
    return status.st_uid in (0, os.getuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
