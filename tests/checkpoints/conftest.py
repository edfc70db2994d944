"""Small real files of every format, and what the tests of the readers share. torch is used to write files only."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerscope.checkpoints import open_checkpoint
from layerscope.errors import CheckpointError

DTYPES = (
    *(
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
    ),
    *("uint8", "bool", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
DTYPES = tuple(name for name in DTYPES if hasattr(torch, name))  # torch has float8_e8m0fnu since 2.7


class Network(torch.nn.Module):
    """Convolution, batch norm, a tied pair, a buffer that is not saved, and a nested module."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        self.head = torch.nn.Linear(4, 4, bias=False)
        self.tied = torch.nn.Linear(4, 4, bias=False)
        self.tied.weight = self.head.weight
        self.register_buffer("grid", torch.arange(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.head(self.features(x).mean((2, 3))))


def bits(tensor: torch.Tensor) -> NDArray:
    """The elements of a tensor as bytes, (nbytes,), in C order."""
    tensor = tensor.detach()
    tensor = tensor.int_repr() if tensor.is_quantized else tensor
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)


def same(array: NDArray, tensor: torch.Tensor) -> bool:
    """Whether shape and every bit agree."""
    return array.shape == tuple(tensor.shape) and np.array_equal(
        np.ascontiguousarray(array).reshape(-1).view(np.uint8), bits(tensor)
    )


def values(dtype: str, shape: tuple[int, ...] = (3, 4)) -> torch.Tensor:
    """Random bits of a type, reproducible."""
    size = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    count = int(np.prod(shape))
    raw = np.random.default_rng(len(dtype)).integers(0, 2 if dtype == "bool" else 256, count * size, np.uint8)
    if not count:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return torch.from_numpy(raw).view(getattr(torch, dtype)).reshape(shape)


def check(path: Path, expected: dict[str, torch.Tensor]) -> None:
    """Names in order, shapes, types and every bit of a file are those of a state dict."""
    with open_checkpoint(path) as checkpoint:
        assert [spec.name for spec in checkpoint.specs] == list(expected)
        for spec in checkpoint.specs:
            tensor = expected[spec.name]
            assert spec.dtype == str(tensor.dtype).removeprefix("torch.")
            assert spec.nbytes == tensor.numel() * tensor.element_size()
            array = checkpoint.read(spec)
            assert same(array, tensor), spec
            assert not array.flags.writeable


def refusal(path: Path) -> str:
    """The message with which a file is refused: one printable line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint = open_checkpoint(path)
        for spec in checkpoint.specs:
            checkpoint.read(spec)
    message = str(caught.value)
    assert "cannot be understood" not in message, message  # the last resort: a check is missing
    assert message.isprintable() and message.startswith(str(path)) and len(message) < len(str(path)) + 600, message
    return message.removeprefix(str(path))  # its folder is named after the test


def rezip(path: Path, target: Path, change: Callable[[str, bytes], bytes | None], method: int = 0) -> Path:
    """A copy of a zip archive with its entries changed; None leaves an entry out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def zip_with(target: Path, pickled: bytes, **storages: bytes) -> Path:
    """A file like torch.save's with this pickle; storages are named s0, s1, ..."""
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return target


def text(value: str) -> bytes:
    """The opcode that pushes a string."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """The opcode that pushes an integer."""
    return pickle.dumps(value, 2)[2:-1]


def tensor_pickle(
    shape: tuple[int, ...] = (2,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    key: str = "s0",
    count: int = 2,
    kind: str = "FloatStorage",
    name: str = "w",
) -> bytes:
    """The pickle of {name: tensor} with whatever sizes, as PyTorch would write it if it were true."""
    sizes = [b"(" + b"".join(map(integer, part)) + b"t" for part in (shape, strides)]
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + integer(count)
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + integer(offset) + b"".join(sizes) + b"\x89NtR"
    return b"\x80\x02}" + text(name) + tensor + b"s."


@pytest.fixture(scope="session")
def network() -> Network:
    """A network of two kilobytes."""
    torch.manual_seed(0)
    return Network().eval()


def _quietly(write: Callable[[], object]) -> None:
    # torch.jit and torch.export warn about their own future; these tests are about their files.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write()


def write_gguf(
    path: Path, tensors: dict[str, tuple[tuple[int, ...], int, bytes]], values: bytes = b"", n: int = 0
) -> Path:
    """A GGUF file by hand: name -> (shape in ggml's order, type, bytes)."""
    table, data = b"", b""
    for name, (shape, kind, raw) in tensors.items():
        table += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
        table += struct.pack(f"<{len(shape)}QIQ", *shape, kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n) + values + table
    path.write_bytes(header + bytes(-len(header) % 32) + data)
    return path


def write_onnx(path: Path, external: bool = False) -> Path:
    """A model with an initializer and a Constant node."""
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "weight")
    constant = onnx.numpy_helper.from_array(np.array([5, -7], np.int64))
    node = onnx.helper.make_node("Constant", [], ["shape"], value=constant)
    graph = onnx.helper.make_graph([node], "g", [], [], [weight])
    model = onnx.helper.make_model(graph, producer_name="test")
    kwargs = {"location": f"{path.name}.data", "size_threshold": 0} if external else {}
    onnx.save(model, str(path), save_as_external_data=external, **kwargs)
    return path


def write_h5(path: Path) -> Path:
    """Weights as Keras lays them out."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["conv/conv/kernel:0"] = np.arange(12, dtype=np.float32).reshape(3, 4)
        file.create_dataset("conv/conv/bias:0", data=np.zeros(4, np.float16), compression="gzip")
        file["optimizer_weights/iteration"] = np.int64(7)
    return path


def write_keras(path: Path) -> Path:
    """A .keras archive."""
    inner = write_h5(path.with_suffix(".inner"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.write(inner, "model.weights.h5")
    return path


def write_sharded(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """Two safetensors files and their index."""
    from safetensors.torch import save_file

    folder.mkdir()
    names = list(state)
    shards = {
        "model-1.safetensors": names[: len(names) // 2],
        "model-2.safetensors": names[len(names) // 2 :],
    }
    for shard, part in shards.items():
        save_file({name: state[name].contiguous() for name in part}, folder / shard)
    places = {name: shard for shard, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, network: Network) -> dict[str, Path]:
    """One small file of every format."""
    return write_samples(tmp_path_factory.mktemp("samples"), network)


def write_samples(folder: Path, network: Network) -> dict[str, Path]:
    """Write one small file of every format into a folder."""
    from safetensors.torch import save_file

    state = network.state_dict()
    untied = {name: tensor.clone() for name, tensor in state.items()}
    files = {
        "zip": lambda path: torch.save(state, path),
        "legacy": lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
        "module": lambda path: torch.save(network, path),
        "nested": lambda path: torch.save({"model": state, "epoch": 3, "optimizer": {"state": {}}}, path),
        "script": lambda path: _quietly(lambda: torch.jit.save(torch.jit.script(network), str(path))),
        "exported": lambda path: _quietly(lambda: export(network, path)),
        "pickle": lambda path: path.write_bytes(pickle.dumps({"w": np.arange(6.0).reshape(2, 3)})),
        "safetensors": lambda path: save_file(untied, path),
        "sharded": lambda path: write_sharded(path, untied),
        "onnx": write_onnx,
        "gguf": lambda path: write_gguf(path, {"w": ((3, 2), 0, np.arange(6, dtype=np.float32).tobytes())}),
        "h5": write_h5,
        "keras": write_keras,
    }
    for name, write in files.items():
        write(folder / name)
    return {name: folder / name for name in files}


def export(network: torch.nn.Module, path: Path) -> None:
    """Write a file of torch.export."""
    program = torch.export.export(network, (torch.zeros(1, 3, 8, 8),))
    with path.open("wb") as file:
        torch.export.save(program, file)


@pytest.fixture(autouse=True)
def nothing_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What hostile files try is to run a command; it would leave a file behind."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "pwned").exists()
