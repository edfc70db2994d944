"""torch.export files: those of real networks load, and nothing that a crafted one asks for is done."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from layerscope.errors import NetworkError
from layerscope.networks.open import open_network

pytestmark = pytest.mark.filterwarnings("ignore")
LOADS = pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="torch 2.4 cannot unflatten what it has loaded")


class Planted:
    """Unpickled, it makes the folder `pwned`."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def pickled() -> bytes:
    data = io.BytesIO()
    torch.save((Planted(),), data)
    return data.getvalue()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A small network for any number of images: its sizes are expressions."""
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    x = torch.randn(4, 3, 8, 8)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), path)
    return path


def crafted(source: Path, path: Path, change: Callable[[str, bytes], bytes], **more: bytes) -> str:
    """The archive with its parts changed, and more of them."""
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(path, "w") as made:
        for name in given.namelist():
            made.writestr(name, change(name, given.read(name)))
        root = given.namelist()[0].partition("/")[0]
        for name, data in more.items():
            made.writestr(f"{root}/data/{name.replace('__', '/')}", data)
    return str(path)


def field(name: str, text: str) -> Callable[[str, bytes], bytes]:
    """Every field of this name in the program becomes this text."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(one) for one in value]
        if isinstance(value, dict):
            return {k: text if k == name and isinstance(v, str) else walk(v) for k, v in value.items()}
        return value

    def change(part: str, data: bytes) -> bytes:
        program = part.endswith(("model.json", "serialized_exported_program.json"))
        changed = json.dumps(walk(json.loads(data))).encode() if program else data
        assert not program or changed != json.dumps(json.loads(data)).encode()
        return changed

    return change


def inputs(name: str, data: bytes) -> bytes:
    return pickled() if "sample_inputs" in name or "example_inputs" in name else data


def unchanged(_name: str, data: bytes) -> bytes:
    return data


@LOADS
def test_a_program_with_sizes_that_are_expressions_loads(exported):
    network = open_network(str(exported))
    assert network.model(torch.zeros(3, 3, 8, 8)).shape == (3, 144)


HOSTILE: dict[str, tuple[Callable[[str, bytes], bytes], dict[str, bytes]]] = {
    "a pickle for the inputs": (inputs, {}),
    "an expression": (field("expr_str", "__import__('os').mkdir('pwned')"), {}),
    "an expression of names that are calls": (field("expr_str", "Symbol(exec('import os; os.mkdir(chr(97))'))"), {}),
    "an expression with an attribute": (field("expr_str", "s0.__class__"), {}),
    "a function that is no operator": (field("target", "torch.os.mkdir"), {}),
    "an operator that writes a file": (field("target", "torch.ops.aten.save.default"), {}),
    "a name that is code": (field("name", "x):\n    pass\n#"), {}),
    "an opaque object": (unchanged, {"constants__opaque_obj_0": pickle.dumps(Planted())}),
    "an object of TorchScript": (unchanged, {"constants__custom_obj_0": b"x"}),
    "a library": (unchanged, {"aotinductor__model__x.so": b"x"}),
    "a library in other letters": (unchanged, {"AOTInductor__model__x.so": b"x"}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_of_a_crafted_file_is_done(case, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, more = HOSTILE[case]
    with pytest.raises(NetworkError) as raised:
        open_network(crafted(exported, tmp_path / "net.pt2", change, **more))
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_a_compressed_part_is_refused(exported, tmp_path):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(exported) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            made.writestr(name, given.read(name))
    with pytest.raises(NetworkError, match="is compressed"):
        open_network(str(path))


@LOADS
def test_the_users_own_wish_about_pickles_is_left_as_it_was(exported, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    open_network(str(exported))
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
