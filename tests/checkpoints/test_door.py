"""The one door: what is refused there, what every reader promises, and that torch stays out."""

from __future__ import annotations

import ast
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import layerscope.checkpoints as door
from layerscope.checkpoints import READERS, TensorSpec, open_checkpoint
from layerscope.checkpoints.pickles.objects import as_python
from layerscope.checkpoints.storage.errors import show
from layerscope.dtypes import STORAGE
from layerscope.errors import CheckpointError
from tests.checkpoints.conftest import refusal, rezip

FORMATS = (
    *("zip", "legacy", "module", "nested", "script", "exported", "pickle", "safetensors", "sharded"),
    *("onnx", "gguf", "h5", "keras"),
)

STRANGERS = {
    "empty": (b"", "is empty"),
    "text": (b"learning rate 0.1\nepochs 90\n", "is text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100), "JPEG"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "gunzip"),
    "zeros": (bytes(5000), "zeros only"),
    "numpy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "numpy array"),
    "noise": (bytes(range(130, 250)), "as no known format does"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "empty zip"),
    "json": (b'{"a": 1}', "is text"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_what_is_no_checkpoint_says_what_it_is(tmp_path: Path, case: str) -> None:
    content, answer = STRANGERS[case]
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert answer in refusal(path)


def test_no_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nope.pth")
    (tmp_path / "a.pth").touch()
    assert "give a.pth" in refusal(tmp_path)
    assert "no regular file" in refusal(Path("/dev/null"))


def test_two_indices_in_a_folder_are_no_choice(tmp_path: Path) -> None:
    for name in ("a.index.json", "b.index.json"):
        (tmp_path / name).write_text('{"weight_map": {}}')
    assert "is a folder" in refusal(tmp_path)


def test_ancient_tar(tmp_path: Path) -> None:
    import io
    import tarfile

    for first, answer in (("sys_info", "0.1.10"), ("notes.txt", "unpack it")):
        with tarfile.open(tmp_path / "a.pth", "w") as archive:
            archive.addfile(tarfile.TarInfo(first), io.BytesIO())
        assert answer in refusal(tmp_path / "a.pth")


def test_other_zip_archives(tmp_path: Path, samples: dict[str, Path]) -> None:
    path = rezip(samples["zip"], tmp_path / "a", lambda name, data: None if name.endswith("pkl") else data)
    assert "without a data.pkl" in refusal(path)


@pytest.mark.parametrize("format", FORMATS)
def test_the_name_never_decides(tmp_path: Path, samples: dict[str, Path], format: str) -> None:
    path = samples[format]
    if path.is_file():
        path = tmp_path / "photo.jpg"
        path.write_bytes(samples[format].read_bytes())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.specs


@pytest.mark.parametrize("format", FORMATS)
def test_the_contract_of_readers(samples: dict[str, Path], format: str) -> None:
    checkpoint = open_checkpoint(str(samples[format]))
    names = [spec.name for spec in checkpoint.specs]
    assert names and len(set(names)) == len(names)
    assert checkpoint.format and isinstance(checkpoint.path, Path)
    arrays = []
    for spec in checkpoint.specs:
        assert spec.dtype in STORAGE and spec.role in ("weight", "optimizer")
        assert spec.tied == "" or spec.tied in names[: names.index(spec.name)]
        array = checkpoint.read(spec)
        assert array.shape == spec.shape and array.nbytes == spec.nbytes and array.dtype == STORAGE[spec.dtype]
        assert not array.flags.writeable
        arrays.append(array.copy())
    again = [checkpoint.read(spec) for spec in checkpoint.specs]
    checkpoint.close()
    assert all((a.tobytes() == b.tobytes()) for a, b in zip(again, arrays, strict=True))  # mapped after close
    with pytest.raises(CheckpointError, match="is closed"):
        checkpoint.read(checkpoint.specs[0])


def test_a_spec_of_another_file(samples: dict[str, Path]) -> None:
    with (
        open_checkpoint(samples["zip"]) as checkpoint,
        pytest.raises(CheckpointError, match="has no tensor x"),
    ):
        checkpoint.read(TensorSpec("x", (1,), "float32"))


def test_every_reader_opens_a_sample(samples: dict[str, Path]) -> None:
    used = set()
    for path in samples.values():
        path = next(path.glob("*.index.json")) if path.is_dir() else path
        head = path.read_bytes()[:4096]
        used.add(next(name for name, reader in READERS.items() if reader.sniff(head, path)))
    assert used == set(READERS)


def test_torch_and_numba_stay_out(samples: dict[str, Path]) -> None:
    code = (
        "import sys\n"
        "from layerscope.checkpoints import open_checkpoint\n"
        "for path in sys.argv[1:]:\n"
        "    with open_checkpoint(path) as checkpoint:\n"
        "        for spec in checkpoint.specs:\n"
        "            checkpoint.read(spec)\n"
        "    assert checkpoint.specs, path\n"
        "print([name for name in ('torch', 'numba', 'onnx', 'safetensors') if name in sys.modules])\n"
    )
    paths = [str(samples[format]) for format in FORMATS if format not in ("h5", "keras")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]", done.stderr
    paths = [str(samples[format]) for format in ("h5", "keras")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=Path.cwd())
    assert "torch" not in done.stdout and done.returncode == 0, done.stderr


def test_nothing_in_the_package_can_run_a_pickle() -> None:
    """No import of what executes: the inert unpickler has nothing to call with."""
    for file in Path(door.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"torch", "numba", "pickle", "importlib", "subprocess"} & {n.split(".")[0] for n in names}, file
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called not in ("eval", "exec", "__import__", "compile"), file


@pytest.mark.parametrize("error", [MemoryError, RecursionError, struct.error, KeyError, OverflowError, zlib.error])
def test_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    class Careless:
        @staticmethod
        def sniff(head: bytes, path: Path) -> bool:
            return True

        @staticmethod
        def open(path: Path) -> door.Checkpoint:
            raise error("one\ntwo")

    monkeypatch.setattr(door, "READERS", {"careless": Careless})
    (tmp_path / "a\nb").write_bytes(b"x")
    said = "needs more memory than there is" if error is MemoryError else "cannot be understood"
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(tmp_path / "a\nb")
    assert str(caught.value).isprintable()


def test_text_from_a_file_is_safe_to_print() -> None:
    assert show("\x1b[2J\n\u202e") == "\\x1b[2J\\n\\u202e"
    assert show("\ud800") == "\\ud800"
    assert len(show("x" * 1000)) == 80 and len(show(b"x" * 1000)) == 80
    assert show(2**100_000) == "a number of 100001 bits" and show(True) == "True"
    laughing: object = ("ha",)
    for _ in range(100):
        laughing = (laughing, laughing)
    assert show(laughing) == "a tuple" and show((1, "a")) == "(1, a)"
    assert len(as_python(laughing)) < 200


def test_public_names() -> None:
    assert set(door.__all__) == {"READERS", "Checkpoint", "Reader", "TensorSpec", "open_checkpoint"}
    assert all(hasattr(door, name) for name in door.__all__)
