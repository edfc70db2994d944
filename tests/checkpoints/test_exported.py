"""torch.export archives by hand: tables that lie, and what is listed without being read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from layerscope.checkpoints import open_checkpoint
from tests.checkpoints.conftest import refusal


def write(path: Path, table: object, data: bytes = bytes(16)) -> Path:
    """An archive with one weights file, w0, and this table."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e/data/weights/w0", data)
        raw = table if isinstance(table, str) else json.dumps({"config": table})
        archive.writestr("e/data/weights/model_weights_config.json", raw)
    return path


def entry(path_name: str = "w0", use_pickle: bool = False, **meta: object) -> dict[str, object]:
    """A table's entry for four float32."""
    whole = {"dtype": 7, "sizes": [{"as_int": 4}], "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0}, **meta}
    return {"path_name": path_name, "use_pickle": use_pickle, "tensor_meta": whole}


TABLES = {
    "no file": ({"w": entry(path_name="w1")}, "refers to e/data/weights/w1 for w"),
    "out of the folder": ({"w": entry(path_name="../../x")}, "which it does not hold"),
    "too large": ({"w": entry(sizes=[{"as_int": 5}])}, "needs 20 bytes"),
    "offset": ({"w": entry(storage_offset={"as_int": -1})}, "before its beginning"),
    "negative": ({"w": entry(sizes=[{"as_int": -4}])}, "-4 in its shape"),
    "symbolic": ({"w": entry(sizes=[{"as_expr": "s0"}])}, "that is no number"),
    "strides": ({"w": entry(strides=[])}, "1 dimensions but 0 strides"),
    "no name": ({"w": {"tensor_meta": entry()["tensor_meta"]}}, "in no way of torch.export"),
    "no sizes": ({"w": entry(sizes=None)}, "in no way of torch.export"),
    "a list": ([1], "no JSON of torch.export"),
    "no JSON": ("{", "no JSON of torch.export"),
    "no config": ("{}", "no JSON of torch.export"),
    "deep": ("[" * 100_000, "no JSON of torch.export"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_lie(tmp_path: Path, case: str) -> None:
    table, answer = TABLES[case]
    assert answer in refusal(write(tmp_path / "a", table))


def test_listed_without_being_read(tmp_path: Path) -> None:
    table = {"w": entry(), "same": entry(), "p": entry(use_pickle=True), "u": entry(dtype=99), "o": {"path_name": "x"}}
    with open_checkpoint(write(tmp_path / "a", table)) as checkpoint:
        assert [spec.tied for spec in checkpoint.specs] == ["", "w", "", "", ""]
        assert [bool(spec.unreadable) for spec in checkpoint.specs] == [False, False, True, True, True]
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [0] * 4
        assert len(checkpoint.warnings) == 3
