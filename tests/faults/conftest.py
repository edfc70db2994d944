"""What the commands need to run, and what has to hold after each that failed."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from layerscope.records.record import Record
from tests.attacks import crafting

#: every command that writes -> its arguments; {to} is where
WRITERS = {
    "weights --record": "weights net.pth --record {to}/a.layerscope",
    "weights --csv": "weights net.pth --csv {to}/a.csv",
    "weights --out": "weights net.pth --out {to}",
    "features --record": "features nets.py:small photo.png --size 32 --record {to}/a.layerscope",
    "features --out": "features nets.py:small photo.png --size 32 --out {to}",
    "unit --out": "unit nets.py:small photo.png block.conv 1 --size 32 --out {to}/a.png",
    "compare --record": "compare net.pth other.pth --record {to}/a.layerscope",
    "compare --out": "compare net.pth other.pth --out {to}",
    "export --html": "export r.layerscope --html {to}/a.html",
    "export --csv": "export r.layerscope --csv {to}",
    "export --tensorboard": "export r.layerscope --tensorboard {to}",
    "survey --record": "survey nets.py:small flowers --size 32 --record {to}/a.layerscope",
    "train --save": "train flowers --network nets.py:small --size 16 --save {to}/a.pth",
    "train --logdir": "train flowers --network nets.py:small --size 16 --save b.pth --logdir {to}",
}


@pytest.fixture
def place(tmp_path, checkpoint, code, photo) -> Path:
    """The folder of `run`, with everything that the commands of WRITERS ask for."""
    other = bytearray(checkpoint.read_bytes())
    (tmp_path / "other.pth").write_bytes(other)
    crafting.write(tmp_path / "r.layerscope", *crafting.truth(0))
    for color in ("red", "blue", "green", "white"):  # as many classes as the network has outputs
        (tmp_path / "flowers" / color).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 20), color).save(tmp_path / "flowers" / color / f"{number}.png")
    return tmp_path


@pytest.fixture
def full() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """full(n): no file can grow beyond n bytes, as on a disk without room; the kernel says so, nothing is patched."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)

    return limited


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes; caches of Python left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def a_record() -> Record:
    """A record of features."""
    return crafting._features()
