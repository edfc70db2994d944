"""Where the kernels' machine code is kept: which file is believed, who compiles, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import layerscope
from layerscope import stats
from layerscope.stats import cache, objects

KEY = b"k" * 32
CODE = bytes(range(256)) * 40
needs_owners = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no owners and modes")


@pytest.fixture(autouse=True)
def compiled() -> None:
    stats.warm()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place to keep machine code in."""
    monkeypatch.setattr(cache, "_folders", lambda: iter([tmp_path]))
    return tmp_path


def keep(code: bytes = CODE, key: bytes = KEY) -> None:
    assert cache.fetch(key, lambda line: code) == code


@pytest.fixture
def kept(folder: Path) -> Path:
    """A file with CODE under KEY."""
    keep()
    (path,) = folder.iterdir()
    assert cache.load(KEY) == CODE
    return path


# ---- several processes


CHILD = """
import os, sys, time
from pathlib import Path
from layerscope.stats import adopt, cache, distribution, machine_code, objects
import numpy as np

code, key = cache.load(objects._key()), objects._key()
cache._folders = lambda: iter([Path(sys.argv[1])])

def export(line):
    cache.say(line)
    exec(sys.argv[2])
    return code

objects._export = export
"""
USE = "distribution(np.arange(100, dtype=np.float32), 'float32'); print(len(objects._kernels), 'numba' in sys.modules)"


def start(folder: object, use: str = USE, compiling: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process that keeps machine code in that folder alone; to compile is to run `compiling` and to take ours."""
    command = [sys.executable, "-c", CHILD + use, str(folder), compiling]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def ended(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """What it wrote, and the lines of its standard error."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out.strip(), err.splitlines()


def test_of_many_processes_that_start_at_once_one_compiles(tmp_path: Path) -> None:
    processes = [start(tmp_path, compiling="time.sleep(1.5)") for _ in range(5)]
    results = [ended(process) for process in processes]
    assert {out for out, _ in results} == {f"{len(objects.SIGNATURES)} False"}
    (line,) = [line for _, lines in results for line in lines]
    assert line == f"layerscope: compiling the kernels for this processor once, about 10 s; kept in {tmp_path}"
    assert [path.suffix for path in tmp_path.iterdir()] == [".bin"]
    assert ended(start(tmp_path)) == (results[0][0], [])


def test_a_process_that_is_killed_while_it_compiles_locks_nobody_out(tmp_path: Path) -> None:
    killed = start(tmp_path, compiling="os.kill(os.getpid(), 9)")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    out, lines = ended(start(tmp_path))
    assert out == f"{len(objects.SIGNATURES)} False" and len(lines) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".bin"]


def test_nobody_waits_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cache, "WAIT_S", 0.3)
    monkeypatch.setattr(cache, "QUIET_S", 0.1)
    _, lock = cache._locked(KEY)
    with lock, pytest.raises(cache.Unkept, match="another process has been compiling for more than"):
        cache.fetch(KEY, lambda line: pytest.fail("compiled"))
    assert caplog.messages == ["layerscope: waiting for another process that compiles the kernels"]
    keep()


def test_code_of_another_processor_is_left_and_ours_compiled_once(tmp_path: Path) -> None:
    other = "import llvmlite.binding as llvm; target = objects._target(); objects._target = lambda: target\n"
    other += "llvm.get_host_cpu_name = lambda: 'another'\n" + USE
    assert len(ended(start(tmp_path, other))[1]) == 1
    assert ended(start(tmp_path, other))[1] == []
    assert len(ended(start(tmp_path))[1]) == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert ended(start(tmp_path))[1] == []


ADOPT = "adopt(key + code); objects.kernel('carry_i8'); print(len(objects._kernels), machine_code() == key + code)"


def test_a_process_takes_the_kernels_of_the_one_that_started_it() -> None:
    assert ended(start(os.devnull, ADOPT)) == (f"{len(objects.SIGNATURES)} True", [])
    foreign = ADOPT.replace("adopt(key", "adopt(b'f' * 32")
    out, (line,) = ended(start(os.devnull, foreign))
    assert out.endswith("True") and "compiling the kernels for this process alone" in line
    assert ended(start(os.devnull, "adopt(b'')\n" + USE, LAYERSCOPE_KERNELS="numpy"))[1] == []


def test_a_survey_is_measured_by_machine_code_alone() -> None:
    """Numpy first and machine code afterwards would be sums that no other process has."""
    use = USE.partition(";")[0] + "; print(len(objects._kernels)); machine_code(); print(len(objects._kernels))"
    out, lines = ended(start(os.devnull, use))
    assert [int(word) for word in out.split()] == [len(objects.plain.TWINS), len(objects.SIGNATURES)]
    assert ["numpy does" in line for line in lines] == [True, False]


# ---- nowhere to keep it


@pytest.fixture
def closed(tmp_path: Path) -> dict[str, str]:
    """An environment in which no folder takes a file, also not in the processes that are started from there."""
    copy = tmp_path / "copy"
    shutil.copytree(Path(layerscope.__file__).parent, copy / "layerscope", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "layerscope/stats/__pycache__").write_text("a file, not a folder")
    (copy / "sitecustomize.py").write_text(f"import tempfile; tempfile.tempdir = {os.devnull!r}")
    variables = dict.fromkeys(("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"), os.devnull)
    return os.environ | variables | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def command(env: dict[str, str], *arguments: object) -> tuple[str, list[str]]:
    script = [sys.executable, "-m", "layerscope", *map(str, arguments)]
    return ended(subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))


def test_without_a_folder_numpy_does_the_work_and_one_line_says_why(closed: dict[str, str], tmp_path: Path) -> None:
    file, rng = tmp_path / "a.safetensors", np.random.default_rng(0)
    save_file({"a": rng.normal(size=(9, 30)).astype("f4"), "b": rng.integers(0, 9, 200_000).astype("u1")}, file)
    normal, silence = command(dict(os.environ), "weights", file, "--json")
    out, (line,) = command(closed, "weights", file, "--json")
    assert silence == []
    assert line.startswith("layerscope: numpy does the work of the compiled kernels, slower on large tensors: ")
    assert f"{closed['PYTHONPATH']}/layerscope/stats/__pycache__: File exists" in line
    assert line.endswith("set LAYERSCOPE_CACHE=FOLDER to one that can be written to")
    ours, theirs = json.loads(out), json.loads(normal)
    for one, other in zip(ours["tensors"], theirs["tensors"], strict=True):
        assert one.pop("mean") == pytest.approx(other.pop("mean"), rel=1e-12)
        assert one.pop("std") == pytest.approx(other.pop("std"), rel=1e-12)
    assert ours == theirs


NETWORK = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
"""


@pytest.mark.slow  # compiles
def test_without_a_folder_one_process_of_a_survey_compiles_for_all(closed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for number in range(300):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"set/{number}.png")
    survey = ("survey", f"{tmp_path}/net.py:make", tmp_path / "set", "--size", 16, "--workers", 2, "--json")
    out, lines = command(closed | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}, *survey)
    assert ["compiling the kernels for this process alone" in line for line in lines] == [True]
    assert json.loads(out)["layers"] == json.loads(command(dict(os.environ), *survey)[0])["layers"]


def test_a_folder_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "mine"))
    keep(key=b"o" * 32)
    assert [path.suffix for path in (tmp_path / "mine").iterdir()] == [".bin"]
    assert next(cache._folders()) == tmp_path / "mine"
    monkeypatch.setattr("tempfile.gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError("no usable folder")))
    assert len(list(cache._folders())) == 3


def test_a_full_disk_is_found_out_before_anything_is_compiled(folder: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(cache.Unkept, match="No space left on device"):
            cache.fetch(KEY, lambda line: pytest.fail("compiled"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@needs_owners
def test_a_folder_whose_files_anybody_can_write_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without modes, where each process would compile, and not believe the file of the last."""
    monkeypatch.setattr(cache, "_trusted", lambda status: False)
    with pytest.raises(cache.Unkept, match="other users can write its files"):
        cache.fetch(KEY, lambda line: pytest.fail("compiled"))


def test_code_that_could_not_be_kept_is_used_and_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    keep()
    (line,) = caplog.messages
    assert f"could not be kept in {folder} (Input/output error); set LAYERSCOPE_CACHE=FOLDER" in line
    assert list(folder.iterdir()) == []


# ---- which file is believed


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "no magic": lambda content: content[1:],
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "another key": lambda content: content.replace(KEY, b"K" * 32),
    "first bit of the code": lambda content: content.replace(CODE, b"\1" + CODE[1:]),
    "last bit of the code": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "hash": lambda content: content.replace(KEY, KEY[:-1] + b"\0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_compiled_anew(damage: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kept.read_bytes()
    broken = DAMAGES[damage](whole)
    assert broken != whole
    kept.write_bytes(broken)
    executed = []
    monkeypatch.setattr(objects, "_code", b"")
    monkeypatch.setattr(objects, "_key", lambda: KEY)
    monkeypatch.setattr(objects, "_export", lambda line: CODE)
    monkeypatch.setattr(objects, "_load", lambda code: executed.append(code) or {"rows_f4": 1})
    monkeypatch.setattr(objects, "_compile", lambda line: pytest.fail("numba's own code was asked for"))
    assert cache.load(KEY) is None
    assert objects._made(compiled=False).keys() == {"rows_f4"}
    assert executed == [CODE] and kept.read_bytes() == whole
    monkeypatch.setattr(objects, "_code", b"")
    monkeypatch.setattr(objects, "_export", lambda line: pytest.fail("compiled once more"))
    objects._made(compiled=False)


def test_every_key_has_its_file(kept: Path) -> None:
    assert cache.load(b"q" * 32) is None
    keep(CODE[1:], b"q" * 32)
    assert (cache.load(KEY), cache.load(b"q" * 32)) == (CODE, CODE[1:])
    kept.replace(kept.with_name(cache._name(b"r" * 32)))
    assert cache.load(b"r" * 32) is None


@needs_owners
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_not_used(kept: Path, mode: int) -> None:
    kept.chmod(mode)
    assert cache.load(KEY) is None
    keep()
    assert cache.load(KEY) == CODE


@needs_owners
def test_a_file_of_another_user_is_not_used(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = kept.stat()
    for owner, trusted in ((status.st_uid, True), (0, True), (status.st_uid + 1, False)):
        fields = list(status)
        fields[4] = owner
        assert cache._trusted(os.stat_result(fields)) is trusted
    monkeypatch.setattr(cache, "_trusted", lambda status: False)
    assert cache.load(KEY) is None


@needs_owners
def test_a_loose_umask_makes_no_loose_file(folder: Path) -> None:
    before = os.umask(0)
    try:
        keep()
    finally:
        os.umask(before)
    assert cache.load(KEY) == CODE


def test_a_package_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder inside a file cannot be made, not even by root."""
    file = tmp_path / "file"
    file.touch()
    home = tmp_path / "home"
    monkeypatch.setattr(cache, "__file__", str(file / "objects.py"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    package, user, temporary = cache._folders()
    assert package == file / "__pycache__" and home in user.parents
    keep()
    assert [path.parent for path in home.rglob("*.bin")] == [user] and not temporary.joinpath(cache._name(KEY)).exists()
    assert cache.load(KEY) == CODE
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(file))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.load(KEY) is None
    keep()
    assert [path.parent.parent for path in tmp_path.rglob("layerscope-*/*.bin")] == [tmp_path]
    assert cache.load(KEY) == CODE
    monkeypatch.setattr("tempfile.tempdir", str(file))
    with pytest.raises(cache.Unkept, match="Not a directory"):
        keep()


@pytest.mark.parametrize(
    "system, end", [("win32", ("layerscope", "cache")), ("darwin", ("Library", "Caches", "layerscope"))]
)
def test_where_other_systems_keep_it(system: str, end: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert list(cache._folders())[1].parts[-len(end) :] == end


def test_writers_and_readers_at_once(kept: Path) -> None:
    def work(i: int) -> bool:
        if i % 2:
            cache._store(kept.parent, KEY, CODE)
        return cache.load(KEY) == CODE

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert list(kept.parent.iterdir()) == [kept]
