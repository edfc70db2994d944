"""The inert unpickler: it agrees with Python's on plain data, and nothing that a pickle asks for happens."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope.checkpoints import open_checkpoint
from layerscope.checkpoints.pickles.builders import BUILDERS
from layerscope.checkpoints.pickles.machine import _OPCODES, Machine
from layerscope.checkpoints.storage.errors import Damage
from tests.checkpoints.conftest import refusal, tensor_pickle, text, zip_with


def load(data: bytes) -> Any:
    def persistent(reference: object) -> object:
        raise Damage(f"no storage {reference}")

    return Machine(data, BUILDERS, persistent).load()


def test_every_opcode_of_python_is_known() -> None:
    assert {op.code.encode("latin-1") for op in pickletools.opcodes} - {b"."} == set(_OPCODES)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
    max_leaves=20,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_data_are_what_python_makes_of_them(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers(protocol: int) -> None:
    value = [
        collections.OrderedDict(a=1),
        {1, 2},
        frozenset([3]),
        bytearray(b"ab"),
        b"\xff",
        torch.Size([2, 3]),
    ]
    found = load(pickle.dumps(value, protocol))
    assert found == [{"a": 1}, [1, 2], [3], b"ab", b"\xff", (2, 3)]


def test_python_2() -> None:
    assert load(b"(dp0\nS'a\\x41'\np1\nI01\ns.") == {"aA": True}
    assert load(b"\x80\x02U\x02\xff\xfe.") == b"\xff\xfe"
    assert load(b"(lp0\nL12L\naF1.5\naVx\\u00e9\na.") == [12, 1.5, "xé"]


class Call:
    """Pickles into a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


COMMAND = "touch pwned"
#: what the pickle does -> (the pickle, what the warning says)
HOSTILE = {
    "os.system": (pickle.dumps(Call(os.system, COMMAND)), "call posix.system('touch pwned')"),
    "eval": (pickle.dumps(Call(eval, "open('pwned', 'w')")), "call builtins.eval("),
    "exec": (pickle.dumps(Call(exec, "open('pwned', 'w')")), "call builtins.exec("),
    "popen class": (
        pickle.dumps(Call(subprocess.Popen, ["touch", "pwned"])),
        "call subprocess.Popen(['touch', 'pwned'])",
    ),
    "open": (pickle.dumps(Call(open, "pwned", "w")), f"call {open.__module__}.open('pwned', 'w')"),
    "protocol 0": (b"cos\nsystem\n(S'touch pwned'\ntR.", "call os.system('touch pwned')"),
    "inst": (b"\x80\x02(S'touch pwned'\nios\nsystem\n.", "call os.system('touch pwned')"),
    "obj": (b"\x80\x02(cos\nsystem\nS'touch pwned'\no.", "call os.system('touch pwned')"),
    "stack global": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
        "call os.system('touch pwned')",
    ),
    "dotted name": (
        b"\x80\x04\x8c\x02os\x8c\x0bpath.os.sys\x93\x8c\x0btouch pwned\x85R.",
        "call os.path.os.sys(",
    ),
    "nested reduce": (
        b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\nU\x02os\x85RU\x06system\x86RU\x0btouch pwned\x85R.",
        "call builtins.getattr(builtins.__import__('os'), 'system')('touch pwned')",
    ),
    "setstate in the state": (
        b"\x80\x02cargparse\nNamespace\n)\x81}U\x0c__setstate__cos\nsystem\nsbU\x0btouch pwnedb.",
        "call os.system('touch pwned')",
    ),
    "setstate in slots": (
        b"\x80\x02cargparse\nNamespace\n)\x81N}U\x0c__setstate__cos\nsystem\ns\x86bU\x0btouch pwnedb.",
        "call os.system('touch pwned')",
    ),
    "append in the state": (
        b"\x80\x02cargparse\nNamespace\n)\x81}U\x06appendcos\nsystem\nsbU\x0btouch pwneda.",
        "call os.system('touch pwned')",
    ),
    "sys.path": (b"\x80\x02csys\npath\nU\x04/tmpa.", "change sys.path with ('/tmp')"),
    "os.environ": (b"\x80\x02cos\nenviron\nU\x01aU\x01bs.", "change os.environ with ('a', 'b')"),
    "attributes of a class": (b"\x80\x02cos\nPathLike\n}U\x01aU\x01bsb.", "change os.PathLike with "),
    "hidden from the value": (
        b"\x80\x02cos\nsystem\nU\x0btouch pwned\x85R0}.",
        "call os.system('touch pwned')",
    ),
    "extension": (b"\x80\x02\x82\x05U\x01a\x85R.", "call copyreg.extension_5('a')"),
    "torch.load": (b"\x80\x02ctorch.hub\nload\nU\x01a\x85R.", "call torch.hub.load('a')"),
    "control characters": (
        b"\x80\x02cos\nsystem\nU\x08\x1b[31m\n\r\x00\x85R.",
        r"call os.system('\x1b[31m\n\r\x00')",
    ),
}


@pytest.mark.parametrize("where", ["alone", "zip"])
@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_runs_and_the_warning_says_what_would_have(tmp_path: Path, case: str, where: str) -> None:
    pickled, said = HOSTILE[case]
    path = tmp_path / "model.pth"
    path.write_bytes(pickled) if where == "alone" else zip_with(path, pickled)
    with open_checkpoint(path) as checkpoint:
        lines = [line for line in checkpoint.warnings if line.startswith("loading this file with pickle would")]
        assert any(said in line for line in lines), checkpoint.warnings
        assert all(line.isprintable() and len(line) < 250 for line in checkpoint.warnings)
        assert checkpoint.foreign
    assert not Path("pwned").exists()


TOUCHING = [case for case, (data, _) in HOSTILE.items() if b"touch pwned" in data and case != "dotted name"]


@pytest.mark.parametrize("case", TOUCHING)
def test_python_would_have_run_it(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hostile set is hostile: where it touches a file, Python's own unpickler does so."""
    pickled = HOSTILE[case][0]
    monkeypatch.chdir(tmp_path)
    try:
        pickle.loads(pickled)
    finally:
        assert Path("pwned").exists()
        Path("pwned").unlink()


def test_a_checkpoint_with_a_call_inside_still_lists_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a"
    torch.save({"w": torch.ones(2), "evil": Call(os.system, COMMAND)}, path)
    with open_checkpoint(path) as checkpoint:
        assert [spec.name for spec in checkpoint.specs] == ["w"]
        assert checkpoint.warnings == ["loading this file with pickle would call posix.system('touch pwned')"]
        assert list(checkpoint.foreign) == ["posix.system"]


def test_instances_of_classes_are_named_without_alarm(tmp_path: Path) -> None:
    import argparse
    import functools
    import types

    path = tmp_path / "a"
    things = [argparse.Namespace(a=1), Path("x"), types.SimpleNamespace(b=2), functools.partial(print, 1)]
    things += [torch.relu, torch.nn.functional.relu, np.random.default_rng(0), re.compile("x")]
    torch.save({"w": torch.ones(2), "things": things}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.warnings == []
        assert {"argparse.Namespace", "types.SimpleNamespace", "functools.partial"} < set(checkpoint.foreign)


def test_many_calls_are_summed_up(tmp_path: Path) -> None:
    calls = b"".join(b"cos\nsystem\n" + text(f"{i}") + b"\x85R0" for i in range(50))
    with open_checkpoint(zip_with(tmp_path / "a", b"\x80\x02" + calls + b"}.")) as checkpoint:
        assert len(checkpoint.warnings) == 22
        assert checkpoint.warnings[20] == "loading this file with pickle would do 30 more things like this"


BROKEN = {
    "stack": b"\x80\x020.",
    "mark": b"\x80\x02t.",
    "below a mark": b"\x80\x02N(\x85.",
    "memo": b"\x80\x02h\x07.",
    "end": b"\x80\x02X\xff\xff\xff\x7fab.",
    "negative": b"\x80\x02T\xff\xff\xff\xffab.",
    "opcode": b"\x80\x02\xff.",
    "no stop": b"\x80\x02NNN",
    "protocol": b"\x80\x05\x80\x09.",
    "no tuple": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nNR.",
    "bad arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "global of numbers": b"\x80\x04K\x01K\x02\x93.",
    "odd items": b"\x80\x02}(NNNu.",
    "buffers": b"\x80\x05\x97.",
    "huge integer": b"\x80\x02\x8b" + (5000).to_bytes(4, "little") + bytes(5000) + b".",
    "many digits": b"\x80\x02L" + b"9" * 5000 + b"L\n.",
    "no number": b"\x80\x02Iab\n.",
    "no float": b"\x80\x02Fab\n.",
    "no quotes": b"\x80\x02Sab\n.",
    "escape": b"\x80\x02S'\\x'\n.",
    "surrogates": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "keyed by a list": b"\x80\x02}]Ns0" + b"c" + b"\n.",
    "persistent": b"\x80\x02Pabc\n.",
    "persistent tuple": b"\x80\x02N\x85Q.",
    "dict as list": b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.",
    "dtype of nothing": b"\x80\x02cnumpy\ndtype\n)R.",
    "array state": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)RNb.",
    "scalar too short": b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8\x85RU\x01a\x86R.",
    "storage in a bare pickle": tensor_pickle(),  # found by fuzzing
    "from type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNNNtR.",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(BROKEN[case])
    message = refusal(path)
    if case in ("end", "negative", "no stop"):
        assert "the pickle ends in its middle" in message


def test_text_in_a_name_is_escaped(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a", tensor_pickle(shape=(3,), name="\x1b[2J\n"), s0=bytes(8))
    assert "needs 12 bytes" in refusal(path)
    with open_checkpoint(zip_with(tmp_path / "b", tensor_pickle(name="\ud800\n"), s0=bytes(8))) as checkpoint:
        assert checkpoint.specs[0].name == "\ud800\n"  # exact; who prints it escapes it
