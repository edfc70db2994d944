"""Whatever happens to the bytes of a real file: it opens and reads, or says in one line why not."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerscope.checkpoints import open_checkpoint
from layerscope.errors import CheckpointError
from tests.checkpoints.test_door import FORMATS

#: of one file: (where, what is written there), as parts of the length so that they fit every file
FLIPS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)
SPLICES = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))


def survives(path: Path) -> None:
    """Open and read everything; any exception but CheckpointError of one line fails the test."""
    try:
        with open_checkpoint(path) as checkpoint:
            for spec in checkpoint.specs:
                assert isinstance(spec.nbytes, int)
                if not spec.unreadable:
                    checkpoint.read(spec)
            assert all(line.isprintable() for line in checkpoint.warnings)
    except CheckpointError as error:
        assert str(error).isprintable() and "cannot be understood" not in str(error)


def flip(data: bytes, flips: list[tuple[float, bytes]]) -> bytes:
    changed = bytearray(data)
    for where, new in flips:
        at = int(where * len(data))
        changed[at : at + len(new)] = new
    return bytes(changed)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=FLIPS, cut=st.none() | st.floats(0, 1), splice=st.none() | SPLICES)
def test_changed_files(
    samples: dict[str, Path],
    format: str,
    flips: list[tuple[float, bytes]],
    cut: float | None,
    splice: tuple[float, float, float] | None,
) -> None:
    source = samples[format]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "x"
        if source.is_dir():
            shutil.copytree(source, target)
            victim = sorted(target.iterdir())[int(flips[0][0] * 2.99)]
        else:
            victim = target
        data = (source / victim.name if source.is_dir() else source).read_bytes()
        if splice is not None:
            start, end, at = (int(part * len(data)) for part in splice)
            data = data[:at] + data[min(start, end) : max(start, end)] + data[at:]
        data = flip(data, flips)
        victim.write_bytes(data if cut is None else data[: int(cut * len(data))])
        survives(target)


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors", "gguf", "onnx"])
def test_every_length(samples: dict[str, Path], format: str, tmp_path: Path) -> None:
    """Cut after each of its bytes near the ends, and at 200 places between."""
    data = samples[format].read_bytes()
    places = {*range(40), *range(len(data) - 40, len(data)), *range(0, len(data), max(1, len(data) // 200))}
    for size in sorted(places & set(range(len(data)))):
        (tmp_path / "x").write_bytes(data[:size])
        survives(tmp_path / "x")
