"""The kernels' machine code: kept, found again, never trusted blindly, and the same as numba's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscope import stats
from layerscope.stats import activations, cache, calls, distribution, objects, plain, quantize
from layerscope.stats.signatures import SIGNATURES


@pytest.fixture(autouse=True)
def compiled() -> None:
    stats.warm()


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


EVERYTHING = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from layerscope.stats import activations, distribution, quantize

x = np.random.default_rng(0).normal(size=(4, 8, 5000)).astype(np.float32)
x.setflags(write=False)
def everything(_=None):
    columns = activations(x)
    activations(x.transpose(0, 2, 1).copy(), channels_last=True)
    quantize(x[0], columns.min[0], columns.max[0])
    for dtype in ("float32", "float64", "float16", "uint8"):
        found = distribution(x.astype(dtype), dtype, rows=4)
    odd = np.frombuffer(b"x" + x.tobytes(), np.float32, offset=1)
    return distribution(odd, "float32").counts.tolist()
with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(everything, range(8)))
assert all(result == results[0] for result in results)
"""


def test_numba_stays_out_once_the_code_is_kept() -> None:
    seen = "print([name for name in ('numba', 'scipy') if name in sys.modules], 'llvmlite' in sys.modules)"
    assert run(EVERYTHING + seen) == "[] True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_goes_on() -> None:
    fork = """
child = os.fork()
if not child:
    os._exit(0 if everything() == results[0] else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run("import warnings; warnings.simplefilter('ignore')\n" + EVERYTHING + fork) == "0"


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict, dict]]:
    """The functions of a fresh object file, and numba's own."""
    fresh = objects._bound(objects._load(objects._export("for a test")))
    monkeypatch.setenv("LAYERSCOPE_KERNELS", "numba")
    yield fresh, objects._made(compiled=True)
    del objects._owners[-2:]


@pytest.mark.slow  # compiles everything twice
def test_both_routes_give_the_same_bits(both: tuple[dict, dict], monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for functions in both:
        assert functions.keys() == SIGNATURES.keys()
        monkeypatch.setattr(objects, "_kernels", functions)
        x = np.random.default_rng(0).normal(100, 0.01, (3, 21, 1001)).astype(np.float32)
        x[0, 0, 5], x[0, 1, 5], x[0, 2] = np.nan, np.inf, 0
        columns = activations(x)
        found = [*columns, *activations(x, channels_last=True), quantize(x[0], columns.min[0], columns.max[0])]
        for dtype in ("float32", "float64", "float16", "uint8", "int32"):
            values = np.nan_to_num(x, posinf=0).astype(dtype).repeat(9, 0)
            for bins in (50, 300):
                one = distribution(values, dtype, bins, rows=27)
                assert one.rows is not None and one.counts is not None
                found += [*one.whole, *one.rows, one.counts]
        results.append([np.asarray(field).tobytes() for field in found])
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["numba", "numpy"])
def test_all_statistics_hold_with_numbas_own_code_and_with_numpy(other: str) -> None:
    script = f"import pytest; raise SystemExit(pytest.main([{str(Path(__file__).with_name('test_stats.py'))!r}]))"
    run(script, LAYERSCOPE_KERNELS=other)


def test_where_no_object_can_be_loaded_numpy_goes_on_and_numba_for_what_it_has_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(code: bytes) -> dict[str, int]:
        raise RuntimeError("this platform loads\nno objects")

    monkeypatch.setattr(objects, "_load", broken)
    monkeypatch.setattr(objects, "_compile", lambda line: cache.say(line) or {"rows_f4": SimpleNamespace(address=4711)})
    assert objects._made(compiled=False) is plain.TWINS
    assert objects._made(compiled=True).keys() == {"rows_f4"}
    numpys, numbas = caplog.messages
    assert numpys.endswith("slower on large tensors: this platform loads no objects")
    assert numbas.endswith("for this process alone, about 10 s: this platform loads no objects")
    objects._owners.pop()


@pytest.mark.parametrize("missing", ["numba", "llvmlite.binding"])
def test_where_the_compiler_cannot_be_imported_numpy_goes_on(missing: str) -> None:
    """As numba refuses where numpy is newer than it knows."""
    missed = f"import sys; sys.modules[{missing!r}] = None\n"
    nowhere = (
        "from layerscope.stats import cache; from pathlib import Path; cache._folders = lambda: iter([Path('x')])\n"
    )
    ask = "from layerscope.stats import distribution; print(distribution(np.arange(5.0), 'float64').whole.mean)"
    assert run(missed + nowhere + "import numpy as np; " + ask) == "[2.]"


def test_code_that_needs_more_than_libc_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "declare i32 @puts(ptr)\ndefine i32 @f(ptr %x) {\n %y = call i32 @puts(ptr %x)\n ret i32 %y\n}"
    function = SimpleNamespace(native_name="f", inspect_llvm=lambda: text)
    monkeypatch.setattr(objects, "_compile", lambda line: {"rows_f4": function})
    with pytest.raises(RuntimeError, match=r"do not stand alone: \['puts'\]"):
        objects._export("")


def test_the_key_follows_processor_and_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import llvmlite.binding as llvm

    keys = {objects._key(), objects._key()}
    assert len(keys) == 1
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_name", lambda: "another")
        keys.add(objects._key())
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "get_host_cpu_features", lambda: SimpleNamespace(flatten=lambda: "+another"))
        keys.add(objects._key())
    for name in ("kernels.py", "objects.py", "signatures.py", "survey_kernels.py"):
        (tmp_path / name).write_bytes(Path(objects.__file__).with_name(name).read_bytes())
    monkeypatch.setattr(objects, "__file__", str(tmp_path / "objects.py"))
    assert objects._key() in keys
    with (tmp_path / "kernels.py").open("a") as file:
        file.write("#")
    keys.add(objects._key())
    assert len(keys) == 4


def good() -> dict[str, list]:
    """Arguments that fit, for every kernel."""
    f4, u2 = np.ones(6, np.float32), np.ones(6, np.uint16)
    edges, counts, patterns = np.array([0, 1, 2], np.float32), np.zeros(2, np.int64), np.zeros(65536, np.int64)
    return {
        "rows": [f4, 3, np.empty((8, 2))],
        "channels_last": [f4.reshape(1, 3, 2), np.empty((8, 2))],
        "bin_values": [f4, edges, counts],
        "bin_pairs": [f4, edges, 0.01, counts],
        "count_patterns": [u2, patterns],
        "spread": [u2, np.zeros(65536, np.float32), patterns, f4.copy()],
        "codes": [f4.reshape(2, 3), np.zeros(2), np.ones(2), np.empty((2, 3), np.uint8)],
    }


def spoil(array: NDArray) -> Iterator[NDArray]:
    """Arrays that do not fit where this one does."""
    yield array[:-1].copy()
    yield np.concatenate([array, array])
    yield array[None]
    yield array.astype(np.complex64)
    yield np.repeat(array, 2, -1)[..., ::2]
    if array.itemsize > 1:
        yield array.astype(array.dtype.newbyteorder())
        yield np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


@pytest.mark.parametrize("name", good())
def test_what_does_not_fit_never_reaches_machine_code(name: str) -> None:
    getattr(calls, name)(*good()[name])
    written = {"spread": [2, 3]}.get(name, [len(good()[name]) - 1])
    free = {"rows": [], "bin_values": [0], "bin_pairs": [0], "count_patterns": [0]}.get(name, [])
    tried = 0
    for place, argument in enumerate(good()[name]):
        if not isinstance(argument, np.ndarray):
            continue
        for number, wrong in enumerate(spoil(argument)):
            if number < 2 and place in free:
                continue  # any length is right
            arguments = good()[name]
            arguments[place] = wrong
            with pytest.raises(ValueError):
                getattr(calls, name)(*arguments)
            tried += 1
    for place in written:
        arguments = good()[name]
        arguments[place].setflags(write=False)
        with pytest.raises(ValueError, match="write"):
            getattr(calls, name)(*arguments)
    assert tried >= 10


def test_numbers_of_bins_that_do_not_fit() -> None:
    values = np.ones(6, np.float32)
    with pytest.raises(ValueError, match="16 bits"):
        calls.bin_pairs(values, np.arange(257, dtype=np.float32), 0.1, np.zeros(256, np.int64))
    for call in (calls.bin_values, lambda *given: calls.bin_pairs(*given[:2], 0.1, given[2])):
        with pytest.raises(ValueError, match="one bin"):
            call(values, np.zeros(1, np.float32), np.zeros(0, np.int64))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_file_that_changes_while_it_is_read_spoils_no_memory(kind: type) -> None:
    """Values outside the edges, which were made from what the file held before."""
    edges = np.linspace(0, 1, 256).astype(kind)
    wild = np.array([-1, 2, 1e30, -1e30, np.inf, -np.inf, np.nan, 0.5], kind).repeat(1000)
    np.random.default_rng(0).shuffle(wild)
    for call in (calls.bin_values, lambda *given: calls.bin_pairs(*given[:2], 0.01, given[2])):
        room = np.zeros(255 + 2000, np.int64)
        call(wild, edges, room[1000:-1000])
        assert not room[:1000].any() and not room[-1000:].any()
        assert room.sum() <= wild.size
