"""Keras by way of h5py: names, mapped and compressed datasets, and files that point elsewhere."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layerscope.checkpoints import open_checkpoint
from tests.checkpoints.conftest import refusal

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("format", ["h5", "keras"])
def test_names_roles_and_values(samples: dict[str, Path], format: str) -> None:
    with open_checkpoint(samples[format]) as checkpoint:
        specs = {spec.name: spec for spec in checkpoint.specs}
        assert {name: spec.role for name, spec in specs.items()} == {
            "conv/conv/bias:0": "weight",
            "conv/conv/kernel:0": "weight",
            "optimizer_weights/iteration": "optimizer",
        }
        kernel = checkpoint.read(specs["conv/conv/kernel:0"])
        assert np.array_equal(kernel, np.arange(12, dtype=np.float32).reshape(3, 4)) and not kernel.flags.owndata
        assert checkpoint.read(specs["conv/conv/bias:0"]).tolist() == [0] * 4
        assert checkpoint.read(specs["optimizer_weights/iteration"]).item() == 7


def test_without_h5py(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'layerscope[keras]'" in refusal(samples["h5"])


def test_other_files_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(80))
    with h5py.File(tmp_path / "other", "w") as file:
        file["x"] = np.ones(3)
    with h5py.File(tmp_path / "a", "w") as file:
        file["w"] = np.ones(2)
        file["link"] = h5py.ExternalLink("other", "x")
        file.create_dataset("outside", (10,), "f8", external=[(str(tmp_path / "secret"), 0, 80)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other"), "x", (3,))
        file.create_virtual_dataset("virtual", layout)
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert {spec.name: bool(spec.unreadable) for spec in checkpoint.specs} == {
            "outside": True,
            "virtual": True,
            "w": False,
        }


def test_odd_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a", "w") as file:
        file["text"] = "hello"
        file["big"] = np.ones(2, ">f4")
        file["empty"] = np.empty((0, 3), np.float32)
        file["never"] = h5py.Empty("f4")
        file["again"] = file["empty"]
        file["loop"] = file["/"]
        file["flags"] = np.array([True, False])
    with open_checkpoint(tmp_path / "a") as checkpoint:
        unreadable = {spec.name for spec in checkpoint.specs if spec.unreadable}
        assert {"text", "big"} <= unreadable
        for spec in checkpoint.specs:
            if not spec.unreadable:
                assert checkpoint.read(spec).shape == spec.shape


def test_bombs(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a", "w") as file:
        file.create_dataset("w", (2**40,), "f4", chunks=(2**16,), compression="gzip")
    assert "more than the limit" in refusal(tmp_path / "a")


def test_damaged(tmp_path: Path, samples: dict[str, Path]) -> None:
    whole = samples["h5"].read_bytes()
    (tmp_path / "a").write_bytes(whole[:600])
    refusal(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("model.weights.h5", whole[:600])
    refusal(tmp_path / "b")
